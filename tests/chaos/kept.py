"""A process that is started again whenever it ends, as systemd or Starter would do."""

import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).parents[2]
_PAUSE = 0.3
_STOP_PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Life:
    """One life of the process: from when to when (monotonic), how it ended, and whether we ended it."""

    began: float
    ended: float
    code: int
    ours: bool


class KeptProcess:
    """`command` in a process of its own, started again when it ends; it ends with this program."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._log = log
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False
        self._away_until = 0.0
        self._stopping = threading.Event()
        self.lives: list[Life] = []
        self._keeper = threading.Thread(target=self._keep, name="keeper")

    def start(self) -> None:
        """Start the process and go on starting it."""
        self._keeper.start()

    @property
    def process(self) -> psutil.Process | None:
        """The process as it lives now, None between two lives."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                return None
            return psutil.Process(self._process.pid)

    def kill(self, away: float = 0.0) -> None:
        """Kill the process; it comes back after `away` s."""
        with self._lock:
            self._away_until = time.monotonic() + away
            if self._process is not None:
                self._killed = True
                self._process.kill()

    def stop(self) -> None:
        """End the process in good order, and for good."""
        self._stopping.set()
        with self._lock:
            if self._process is not None and self._process.stdin is not None:
                self._killed = True
                self._process.stdin.close()
        self._keeper.join(_STOP_PATIENCE)
        if self._keeper.is_alive():
            self.kill()
            self._keeper.join()

    def _keep(self) -> None:
        while not self._stopping.is_set():
            self._live()
            self._stopping.wait(max(_PAUSE, self._away_until - time.monotonic()))

    def _live(self) -> None:
        began = time.monotonic()
        with self._log.open("ab") as log, self._lock:
            if self._stopping.is_set():
                return
            self._killed = False
            self._process = process = subprocess.Popen(
                self._command,
                cwd=REPOSITORY,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        code = process.wait()
        with self._lock:
            self._process = None
            ours = self._killed
        if process.stdin is not None:
            process.stdin.close()
        self.lives.append(Life(began, time.monotonic(), code, ours))
