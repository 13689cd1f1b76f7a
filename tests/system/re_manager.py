"""A real RE Manager of bluesky-queueserver, with fakeredis for its Redis, that loads the example's startup files."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import zmq
from fakeredis import TcpFakeServer

from tests.system.waiting import until

STARTUP = Path(__file__).parents[2] / "examples" / "queueserver" / "startup"
_ANSWER = 30_000
"""How long an answer may take, ms; on a busy machine it does."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class REManager:
    """The manager, its worker and its Redis; a context manager that ends them all.

    Parameters
    ----------
    folder: for a copy of the startup files, the log, and the state of the worker
    environment: what the startup files want to know

    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._startup = Path(shutil.copytree(STARTUP, folder / "startup"))
        self._log = folder / "re-manager.log"
        self._environment = {**os.environ, **environment, "XDG_STATE_HOME": str(folder / "state")}
        self._redis = TcpFakeServer(("127.0.0.1", 0))
        self._redis_thread = threading.Thread(target=self._redis.serve_forever, daemon=True)
        self._control = f"tcp://127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._redis_thread.start()
        address = "{}:{}".format(*self._redis.server_address)
        arguments = {
            "--startup-dir": self._startup,
            "--user-group-permissions": self._startup,
            "--existing-plans-devices": self._startup,
            "--redis-addr": address,
            "--zmq-control-addr": self._control,
            "--zmq-info-addr": f"tcp://127.0.0.1:{free_port()}",
        }
        words = [str(word) for pair in arguments.items() for word in pair]
        program = "from bluesky_queueserver.manager.start_manager import start_manager; start_manager()"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program, *words],
                env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            until(lambda: self._asked("ping") is not None, "the RE Manager answers")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            manager = psutil.Process(self._process.pid)
            everybody = [manager, *manager.children(recursive=True)]
            self._asked("manager_stop", {"option": "safe_off"})
            for process in psutil.wait_procs(everybody, timeout=15)[1]:
                process.kill()
            self._process.wait()
        self._redis.shutdown()
        self._redis.server_close()
        self._redis_thread.join()

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return an answer; fail if it tells of an error."""
        answer = self._asked(method, parameters)
        assert answer is not None, f"no answer to {method}; {self.log[-3000:]}"
        assert answer.get("success", True), f"{answer}; {self.log[-3000:]}"
        return answer

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def _asked(self, method: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """Return an answer in the manager's way, None if none comes. (Its own client leaves its context open.)"""
        with zmq.Context() as context, context.socket(zmq.REQ) as asking:
            asking.linger = 0
            asking.connect(self._control)
            asking.send_json({"method": method, "params": dict(parameters or {})})
            if not asking.poll(_ANSWER):
                return None
            answer: dict[str, Any] = asking.recv_json()
            return answer
