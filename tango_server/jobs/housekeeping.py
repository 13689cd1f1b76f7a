"""Background chores in one thread: measure free space, flush outputs and ledger, prune old history."""

import errno
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from tango_server.jobs import capacity, clock
from tango_server.jobs.capacity import FreeSpace
from tango_server.jobs.ledger.database import Database
from tango_server.jobs.ledger.history import History

_log = logging.getLogger(__name__)

_INTERVAL = 1.0
_PRUNE_INTERVAL = 60.0
_SYNCED_AT_ONCE = 64
_DAY = 86_400.0
_NOT_FOR_FLUSHING = {errno.EINVAL, errno.ENOTSUP}
"""Errors of file systems that can't flush, such as some network file systems for folders."""


class Housekeeper:
    """The thread of the chores. `on_free_space` is called from it with each measured free space."""

    def __init__(
        self,
        database: Database,
        *,
        folders: Callable[[], tuple[Path, ...]],
        history_days: float,
        history_limit: int,
        on_free_space: Callable[[FreeSpace], None],
    ) -> None:
        self._database = database
        self._history = History(database)
        self._folders = folders
        self._history_days = history_days
        self._history_limit = history_limit
        self._on_free_space = on_free_space
        self._ending = threading.Event()
        self._next_prune = 0.0
        self._chores = (self._measure, self._shorten_log, self._sync, self._prune, database.give_back)
        self._problems: dict[str, str] = {}
        """The last error of each chore, so that it is logged once."""
        self._thread = threading.Thread(target=self._run, name="petif-housekeeping", daemon=True)
        self._thread.start()

    def close(self, timeout: float) -> None:
        """Stop the thread; wait at most `timeout` seconds, since a dead file server may block it."""
        self._ending.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._ending.is_set():
            more = [self._attempt(chore) for chore in self._chores]
            if not any(more):
                self._ending.wait(_INTERVAL)

    def _attempt(self, chore: Callable[[], bool]) -> bool:
        """Run one chore, independently of the others; return whether it has more to do now."""
        try:
            more = chore()
        except OSError as error:  # retried at the next interval
            if self._problems.get(chore.__name__) != str(error):
                _log.warning("Housekeeping failed, retrying: %s", error)
            self._problems[chore.__name__] = str(error)
            return False
        except Exception:  # noqa: BLE001 - thread boundary: it must run for a year
            if not self._ending.is_set():  # else the ledger was closed while a file server blocked this thread
                _log.exception("Unexpected error in housekeeping; continuing")
            return False
        self._problems.pop(chore.__name__, None)
        return more

    def _measure(self) -> bool:
        self._on_free_space(capacity.measure(self._folders()))
        return False

    def _shorten_log(self) -> bool:
        self._database.shorten_log()
        return False

    def _sync(self) -> bool:
        """Flush outputs to disk that a power loss could destroy; return whether there are more."""
        waiting = self._history.unsynced(_SYNCED_AT_ONCE)
        flushed: dict[str, bool] = {}
        for job_id, output in waiting:
            if self._ending.is_set():
                break
            flushed[job_id] = _flush(output)
        folders = {folder: _flush_folder(folder) for folder in {output.parent for _, output in waiting}}
        safe = {job_id for job_id, output in waiting if flushed.get(job_id) and folders[output.parent]}
        if safe:
            self._history.mark_synced(sorted(safe))
        if doubtful := sorted(flushed.keys() - safe):
            self._history.mark_doubtful(doubtful)
        return len(flushed) == _SYNCED_AT_ONCE

    def _prune(self) -> bool:
        now = clock.now().monotonic
        if now < self._next_prune:
            return False
        self._next_prune = now + _PRUNE_INTERVAL
        self._database.keep_age()
        kept_for = self._history_days * _DAY
        while not self._ending.is_set() and (pruned := self._history.prune(kept_for, self._history_limit)):
            _log.info("Deleted the reports of %d jobs (history_days, history_limit)", pruned)
        return False


def boot() -> str:
    """Return an identifier of the last boot of this machine; empty if unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        import psutil  # noqa: PLC0415 - other systems than Linux

        try:
            return str(round(psutil.boot_time() / 60))
        except OSError:  # Linux without /proc
            return ""


def _flush(output: Path) -> bool:
    """Flush one output to disk; return whether it is safe, or was removed."""
    try:
        descriptor = os.open(output, os.O_RDWR if os.name == "nt" else os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:  # removed by the user
        return True
    except OSError as error:
        _log.warning("%s: cannot flush to disk: %s. It is converted again after a power loss.", output, error)
        return False
    return _flush_open(descriptor, output)


def _flush_folder(folder: Path) -> bool:
    if os.name == "nt":  # Windows can't flush a folder; its renames are journalled
        return True
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # then its files could not be opened either, or are gone
        return True
    return _flush_open(descriptor, folder)


def _flush_open(descriptor: int, path: Path) -> bool:
    """Flush and close; a failure is final, since the next attempt would succeed without the data that was lost."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in _NOT_FOR_FLUSHING:
            return True
        _log.warning("%s: cannot flush to disk: %s. It is converted again after a power loss.", path, error)
        return False
    finally:
        os.close(descriptor)
    return True
