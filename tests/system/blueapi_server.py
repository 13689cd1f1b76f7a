"""A real blueapi server with the example's configuration, in an environment of its own, driven by its REST API."""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

from tango_server.addresses import free_port
from tests.system.waiting import until, workers_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "blueapi"
_SESSION = "cm12345-1"  # instrument, proposal and visit, as blueapi wants them


class BlueapiServer:
    """The server and its worker; a context manager that ends both.

    Parameters
    ----------
    program: `blueapi`
    folder: for the log
    environment: what the example needs to know

    """

    def __init__(self, program: Path, folder: Path, environment: Mapping[str, str]) -> None:
        self._log = folder / "blueapi.log"
        self._environment = {**os.environ, **environment, "PYTHONPATH": str(EXAMPLE)}
        url = f"http://127.0.0.1:{free_port('127.0.0.1')}"
        self._command = [str(program), "--config", str(EXAMPLE / "config.yaml"), "--host", url, "serve"]
        self._rest = httpx.Client(base_url=url, timeout=30.0)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            until(self._is_initialized, "blueapi has made the devices and plans")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._rest.close()
        if self._process.poll() is None:
            server = psutil.Process(self._process.pid)
            everybody = [server, *server.children(recursive=True)]
            self._process.send_signal(signal.SIGTERM)  # to the server alone: sent to its worker as well, it would hang
            for process in psutil.wait_procs(everybody, timeout=30)[1]:
                process.kill()
            self._process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def worker(self) -> psutil.Process:
        """The process with the RunEngine."""
        assert self._process is not None
        (worker,) = workers_of(self._process.pid)
        return worker

    def run(self, plan: str, **parameters: Any) -> str:
        """Run a plan as a task; return its result, which is the uid of the run."""
        request = {"name": plan, "params": parameters, "instrument_session": _SESSION}
        task = self._answer("POST", "/tasks", request)["task_id"]
        self._answer("PUT", "/worker/task", {"task_id": task})
        until(lambda: self._is_complete(task), f"the task {plan} is complete")
        outcome = self._answer("GET", f"/tasks/{task}")["outcome"]
        assert outcome["outcome"] == "success", f"{outcome}; {self.log[-3000:]}"
        result: str = outcome["result"]
        return result

    def _is_complete(self, task: str) -> bool:
        answer = self._rest.get(f"/tasks/{task}")
        return bool(answer.json().get("is_complete"))  # 404 for the moment in which a task moves to the complete ones

    def _is_initialized(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log[-3000:]
        try:
            environment = self._answer("GET", "/environment")
        except httpx.TransportError:
            return False
        assert not environment["error_message"], environment
        return bool(environment["initialized"])

    def _answer(self, method: str, path: str, content: Any = None) -> dict[str, Any]:
        answer = self._rest.request(method, path, json=content)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        found: dict[str, Any] = answer.json()
        return found
