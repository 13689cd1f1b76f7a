"""What all SQLite files of a server have in common: one process at a time, durable commits, never deleted."""

import logging
import sqlite3
import time
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path

from filelock import FileLock, Timeout

_log = logging.getLogger(__name__)

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_PATIENCE = 1.0
_SYNCHRONOUS = "FULL"
_LONGEST_LOG = 2**26
_LARGEST_INTEGER = 2**63 - 1
_INCREMENTAL = 2  # of PRAGMA auto_vacuum
_LARGE = 50_000_000
_PORTION = 250
"""Pages of 4 kB that are given back at once."""
_SPARE_PAGES = 2_500


def sqlite_integer(number: int) -> int:
    """Return the nearest integer that SQLite holds: some file systems give times of modification beyond.

    >>> sqlite_integer(7), sqlite_integer(2**64) == 2**63 - 1
    (7, True)
    """
    return max(-_LARGEST_INTEGER - 1, min(number, _LARGEST_INTEGER))


class SoleConnection(sqlite3.Connection):
    """A connection to a file that no other process opens in the same way until this one is closed or has ended."""

    lock: FileLock

    def close(self) -> None:
        """Close it, and let others open the file."""
        super().close()
        self.lock.release()


def open_alone(
    path: Path, *, admit: Callable[[sqlite3.Connection], None], prepare: Callable[[sqlite3.Connection], None]
) -> SoleConnection:
    """Open a file that no other process can open so until it is closed or this one ends.

    A lock on a file beside it sees to that, and not SQLite's own exclusive mode, which allows no second connection
    within this process, either (`open_beside`). In WAL mode with `synchronous=FULL`, so that a commit is on disk when
    it returns. `admit` raises if the file is not to be touched, before anything is changed in it; `prepare` makes it
    what the program needs.

    Raises
    ------
    sqlite3.DatabaseError
        if another process uses it, the disk refuses or it is damaged (`is_damage`).
    OSError
        if there can be no lock: the folder may not be written, say.
    """
    lock = _locked(path)
    try:
        connection = _connected(path)
    except BaseException:
        lock.release()
        raise
    connection.lock = lock
    try:
        admit(connection)
        make_shrinkable(connection, path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={_SYNCHRONOUS}")
        connection.execute(f"PRAGMA journal_size_limit={_LONGEST_LOG}")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
        prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def make_shrinkable(connection: sqlite3.Connection, path: Path) -> None:
    """Have a file give back what is deleted from it (`give_back`); one of before is written anew, if there is room.

    SQLite decides that by the first table of a file, or by VACUUM.
    """
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0] == _INCREMENTAL:
        return
    if path.stat().st_size > _LARGE:
        _log.warning("%s: is written anew once, so that it can shrink from now on; this takes its time", path)
    try:
        connection.execute(f"PRAGMA auto_vacuum={_INCREMENTAL}")
        connection.execute("VACUUM")
    except sqlite3.OperationalError as error:  # no room beside it, say: it goes on as it is
        _log.warning("%s: can't shrink (%s); tried again at the next start", path, error)


def give_back(connection: sqlite3.Connection) -> bool:
    """Give a portion of unused pages back to the disk, if there are many; return whether there are more.

    It is one commit of a few milliseconds. Some pages stay, for what comes next.
    """
    if connection.execute("PRAGMA freelist_count").fetchone()[0] <= _SPARE_PAGES + _PORTION:
        return False
    connection.executescript(f"PRAGMA incremental_vacuum({_PORTION})")  # `execute` would take the first step only
    return True


def require_free(path: Path) -> None:
    """Raise as `open_alone` does if another process has the file open, or nothing can be written beside it."""
    _locked(path).release()


def open_beside(path: Path) -> sqlite3.Connection:
    """Return one more connection to a file that this process has opened alone."""
    return sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=_PATIENCE)


def version_of(connection: sqlite3.Connection) -> int:
    """Return the version that the file says it has, 0 if it is new."""
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return found


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether it is the file itself that is wrong, and not its disk or another process."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def check_for_damage(connection: sqlite3.Connection) -> None:
    """Check the whole file; raise as SQLite does."""
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        error = sqlite3.DatabaseError(verdict)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def put_aside(path: Path) -> Path:
    """Rename a damaged file with its companions, over no other one; return its new name."""
    aside = _free_name(path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"))
    for suffix in ("-wal", "-shm", ""):  # SQLite deletes a log that it finds alone
        companion = Path(f"{path}{suffix}")
        if companion.exists():
            companion.rename(f"{aside}{suffix}")
    return aside


def _locked(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock", timeout=_PATIENCE, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise sqlite3.OperationalError("another process has it open") from error
    return lock


def _connected(path: Path) -> SoleConnection:
    return sqlite3.connect(
        path, check_same_thread=False, isolation_level=None, timeout=_PATIENCE, factory=SoleConnection
    )


def _free_name(wanted: Path) -> Path:
    """Return the name, with a number behind it if there is a file of that name."""
    numbered = (wanted.with_name(f"{wanted.name}-{number}") for number in count(2))
    return next(name for name in chain([wanted], numbered) if not name.exists())
