"""What one thread does beside the jobs, without haste: flush outputs to disk, prune old history, ask the disks."""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from tango_server.jobs import capacity, clock
from tango_server.jobs.capacity import FreeSpace
from tango_server.jobs.database import LedgerBusyError
from tango_server.jobs.history import History

_log = logging.getLogger(__name__)

_INTERVAL = 1.0
_PRUNE_INTERVAL = 60.0
_SYNCED_AT_ONCE = 64
_DAY = 86_400.0


class Housekeeper:
    """The thread. `tell` is called, from it, with the free space after each look."""

    def __init__(
        self,
        history: History,
        *,
        folders: Callable[[], tuple[Path, ...]],
        history_days: float,
        history_limit: int,
        tell: Callable[[FreeSpace], None],
    ) -> None:
        self._history = history
        self._folders = folders
        self._history_days = history_days
        self._history_limit = history_limit
        self._tell = tell
        self._ending = threading.Event()
        self._next_prune = 0.0
        self._thread = threading.Thread(target=self._run, name="petif-housekeeping", daemon=True)
        self._thread.start()

    def close(self, patience: float) -> None:
        """End the thread; wait for it at most `patience` seconds, since a dead file server may hold it."""
        self._ending.set()
        self._thread.join(patience)

    def _run(self) -> None:
        while not self._ending.is_set():
            more = False
            try:
                self._tell(capacity.measure(self._folders()))
                more = self._sync()
                self._prune()
            except (OSError, LedgerBusyError) as error:  # it is tried again soon enough
                _log.warning("housekeeping: %s", error)
            except Exception:  # noqa: BLE001 - the boundary of the thread: it must go on for a year
                if self._ending.is_set():  # the ledger was closed under a thread that a file server held
                    return
                _log.exception("housekeeping stumbled; it goes on")
            if not more:
                self._ending.wait(_INTERVAL)

    def _sync(self) -> bool:
        """Flush outputs to disk that may be lost with the power; return whether there are more."""
        waiting = self._history.unsynced(_SYNCED_AT_ONCE)
        done = [job_id for job_id, output in waiting if not self._ending.is_set() and _flush(output)]
        for folder in {output.parent for _, output in waiting}:
            _flush_folder(folder)
        if done:
            self._history.mark_synced(done)
        return len(done) == _SYNCED_AT_ONCE

    def _prune(self) -> None:
        now = clock.now()
        if now.monotonic < self._next_prune:
            return
        self._next_prune = now.monotonic + _PRUNE_INTERVAL
        before = now.wall - self._history_days * _DAY
        while not self._ending.is_set() and (pruned := self._history.prune(before, self._history_limit)):
            _log.info("forgot the reports of %d jobs, as history_days and history_limit say", pruned)


def boot() -> str:
    """Return what stands for the time since this machine was started; empty if it can't be told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        import psutil  # noqa: PLC0415 - other systems than Linux

        return str(round(psutil.boot_time() / 60))


def _flush(output: Path) -> bool:
    """Flush one output to disk; return whether there is nothing more to do for it."""
    try:
        descriptor = os.open(output, os.O_RDWR if os.name == "nt" else os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:  # somebody has taken it away: that is theirs to know
        return True
    except OSError as error:
        _log.warning("%s: it can't be flushed to disk (%s)", output, error)
        return True
    try:
        os.fsync(descriptor)
    except OSError as error:
        _log.warning("%s: it can't be flushed to disk (%s)", output, error)
        return False
    finally:
        os.close(descriptor)
    return True


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows has no handle on a folder to flush; its rename is journalled
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
