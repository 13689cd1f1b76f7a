"""A Tango database of the tests' own, and servers that are registered in it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import tango

from tango_server.addresses import free_port
from tango_server.client.local_server import await_answer
from tests.system.waiting import until

MARIADB = "PETIF_TEST_DATABASEDS"
"""Names Debian's DataBaseds if the tests shall run on MariaDB; tests/mariadb.sh sets it."""
_STOP_TIMEOUT = 20.0


class TangoDatabase:
    """A Tango database on a free port of this machine: PyTango's on SQLite, or DataBaseds if MARIADB names it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # A definite port from the first start on: only then is it reusable at once when the database comes back.
        self._port = free_port("127.0.0.1")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the database was not started"
        return self._process.pid

    @property
    def client(self) -> tango.Database:
        return tango.Database("127.0.0.1", self._port)

    def start(self) -> Self:
        with (self._folder / "database.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self._folder,
                env={**os.environ, "PYTANGO_DATABASE_NAME": str(self._folder / "tango.sqlite")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until(self._answers, "the Tango database answers")
        return self

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def register(self, server: str, device: str, properties: Mapping[str, Sequence[str]]) -> None:
        """Register a device by Tango's own means."""
        info = tango.DbDevInfo()
        info.server, info._class, info.name = server, "PETifConverter", device
        self.client.add_device(info)
        self.client.put_device_property(device, {name: list(lines) for name, lines in properties.items()})

    def _command(self) -> list[str]:
        if program := os.environ.get(MARIADB):
            return [program, "2", "-ORBendPoint", f"giop:tcp:{self.address}"]
        place = ["--host", "127.0.0.1", "--port", str(self._port)]
        return [sys.executable, "-m", "tango.databaseds.database", *place, "2"]

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError((self._folder / "database.log").read_text(errors="replace")[-2000:])
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self._port)):
                return False
        try:
            return bool(self.client.get_info())
        except tango.DevFailed:
            return False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class RegisteredServer:
    """`PETifConverter INSTANCE`, as Starter or systemd would run it; started and stopped as `LocalServer` is."""

    def __init__(self, database: TangoDatabase, instance: str, device: str, log: Path) -> None:
        self.database = database
        self.instance = instance
        self.device = device
        self.address = f"tango://{database.address}/{device}"
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was not started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log_text(self) -> str:
        """Return what the server has written."""
        return self._log.read_text(errors="replace")

    def launch(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the server without waiting for it."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, self.instance, "-host", "127.0.0.1", *arguments],
                env={**os.environ, "TANGO_HOST": self.database.address, "PYTHONUNBUFFERED": "1"},  # its log is read
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self._process

    def start(self) -> Self:
        process = self.launch()

        def ready() -> bool:
            text = self.log_text()
            if process.poll() is not None:
                raise RuntimeError(text[-2000:])
            return "Ready to accept request" in text

        until(ready, "the registered server is ready")
        await_answer(self.address)
        return self

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_PROGRAM = "from tango_server.cli import tango_main; tango_main()"
