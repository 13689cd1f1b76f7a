"""A conversion server in its own process, for demos, notebooks and tests."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

_READY = "ready: "
_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 20.0
_ANSWER_TIMEOUT = 10.0
_ANSWER_PAUSE = 0.02


class LocalServer:
    """`petif serve` on a free port of this machine; a context manager.

    The server also stops when this process ends for any reason. Ctrl-C reaches only this process, which then stops the
    server cleanly.

    Parameters
    ----------
    root: folder that the server may read and write
    state_dir: folder of its ledger and its log `server.log`
    arguments: more options of `petif serve`

    """

    def __init__(self, root: Path, state_dir: Path, arguments: Sequence[str] = ()) -> None:
        self._arguments = [
            "--port",
            "0",
            "--root",
            str(root),
            "--state-dir",
            str(state_dir),
            "--stop-on-eof",
            *arguments,
        ]
        self._log_path = state_dir / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, "the server was not started"  # noqa: S101
        return self._process.pid

    def start(self) -> Self:
        """Start the server and return once it can be used at `address`.

        Raises
        ------
        RuntimeError
            if it does not start; the message includes the end of its log.

        """
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        own_group = (
            {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore[attr-defined,unused-ignore]
            if os.name == "nt"
            else {"start_new_session": True}
        )
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-P", "-m", "tango_server", "serve", *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                **own_group,
            )
        line = self._first_line()
        if not line.startswith(_READY):
            self.stop()
            tail = self._log_path.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"The conversion server did not start. End of its log {self._log_path}:\n{tail}")
        self.address = line.removeprefix(_READY).strip()
        try:
            await_answer(self.address)
        except TimeoutError as error:
            self.stop()
            raise RuntimeError(f"{error} Check its log {self._log_path}.") from error
        return self

    def stop(self) -> None:
        """Let the server finish running conversions and stop; kill it if it does not."""
        process, self._process = self._process, None
        if process is None:
            return
        stdin, stdout = _pipes(process)
        stdin.close()
        try:
            process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        stdout.close()

    def _first_line(self) -> str:
        """Return the line with the address; an empty one if the server stops or takes too long."""
        assert self._process is not None, "the server was not started"  # noqa: S101
        watchdog = threading.Timer(_START_TIMEOUT, self._process.kill)
        watchdog.start()
        try:
            for line in _pipes(self._process)[1]:
                if line.startswith(_READY.encode()):
                    return line.decode()
        finally:
            watchdog.cancel()
        return ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def await_answer(address: str, timeout: float = _ANSWER_TIMEOUT) -> None:
    """Wait until a device that is ready answers this process.

    A process keeps connections to a stopped server for up to two minutes, and each of them fails once if another server
    listens at the same address: the system soon reuses free ports. A proxy that has failed refuses calls for a second,
    so each attempt uses a new one.

    Raises
    ------
    TimeoutError
        if there is no answer within `timeout` seconds.

    """
    import tango  # noqa: PLC0415 - takes 0.3 s, and is not needed before a server runs

    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while True:
        try:
            tango.DeviceProxy(address).ping()
        except tango.DevFailed as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{address} does not answer ({error.args[0].desc.strip()}).") from error
            pause.wait(_ANSWER_PAUSE)
        else:
            return


def _pipes(process: "subprocess.Popen[bytes]") -> tuple[IO[bytes], IO[bytes]]:
    if process.stdin is None or process.stdout is None:
        raise ValueError("the server was started without pipes")
    return process.stdin, process.stdout
