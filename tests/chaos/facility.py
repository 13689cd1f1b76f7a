"""A Tango database and a registered server, kept running as at a facility."""

import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import tango

from tango_server.addresses import free_port
from tests.chaos.kept import KeptProcess, Life
from tests.chaos.launcher import CLOCK, set_wall_clock

_DEVICE = "petif/chaos/1"
_INSTANCE = "chaos"
_HOST = "127.0.0.1"
_PATIENCE = 30.0
_SURVIVAL = 5.0


class Facility:
    """The database (SQLite), the server that it names, and the server's wall clock. A context manager.

    `settings` become the device's properties; `folder` takes logs, the database's file and the clock's.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._port = free_port(_HOST)
        self._settings = settings
        self._clock = folder / "clock"
        self.log = folder / "server.log"
        environment = {
            **os.environ,
            "TANGO_HOST": f"{_HOST}:{self._port}",
            "PYTANGO_DATABASE_NAME": str(folder / "tango.db"),
        }
        launcher = [sys.executable, "-m", "tests.chaos.launcher"]
        self.database = KeptProcess(
            [*launcher, "database", "--host", _HOST, "--port", str(self._port), "2"],
            environment,
            folder / "database.log",
        )
        self.server = KeptProcess(
            [*launcher, "server", _INSTANCE, "-ORBendPoint", f"giop:tcp:{_HOST}:0"],
            {**environment, CLOCK: str(self._clock)},
            self.log,
        )
        self.address = f"tango://{_HOST}:{self._port}/{_DEVICE}"

    def move_clock(self, offset: float) -> None:
        """Put the server's wall clock off by `offset` s."""
        set_wall_clock(self._clock, offset)

    def surprises(self) -> list[Life]:
        """Return the lives of the server that nobody ended, and that had a database to begin with."""
        gone = [(life.ended, after.began + 2.0) for life, after in self._database_gaps()]
        return [
            life
            for life in self.server.lives
            if not life.ours and not any(end > life.began and start < life.ended for start, end in gone)
        ]

    def survivors(self) -> list[str]:
        """Wait for all processes that were ever started for this server to be gone; return the ones that are not."""
        ours = [process for process in psutil.process_iter() if _environment(process).get(CLOCK) == str(self._clock)]
        _, alive = psutil.wait_procs(ours, timeout=_SURVIVAL)
        return [f"{process.pid} {' '.join(process.cmdline())}" for process in alive]

    def _database_gaps(self) -> list[tuple[Life, Life]]:
        lives = self.database.lives
        now = time.monotonic()
        return list(zip(lives, [*lives[1:], Life(now, now, 0, ours=False)], strict=False))

    def __enter__(self) -> Self:
        self.move_clock(0.0)
        self.database.start()
        try:
            self._register()
        except BaseException:
            self.database.stop()
            raise
        self.server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.stop()
        self.database.stop()

    def _register(self) -> None:
        database = _connected(self._port)
        info = tango.DbDevInfo()
        info.server, info._class, info.name = f"PETifConverter/{_INSTANCE}", "PETifConverter", _DEVICE
        database.add_device(info)
        properties = {
            name: value if isinstance(value, list) else [str(value)] for name, value in self._settings.items()
        }
        database.put_device_property(_DEVICE, properties)


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return dict(process.environ())
    except psutil.Error:  # it is gone, or somebody else's
        return {}


def _connected(port: int) -> tango.Database:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return tango.Database(_HOST, port)
        except tango.DevFailed:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
