"""SQLite files of a server: one process at a time, durable commits, never deleted; a damaged file is put aside."""

import sqlite3
import time
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from tango_server.sqlite.wal_file import WalFile, connect, make_shrinkable, transaction, use_log

PATIENCE = 1.0
"""How long the lock of another process is waited for, s."""
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SYNCHRONOUS = "FULL"
_LONGEST_LOG = 2**26


class Damaged(NamedTuple):
    """What was wrong with a file, and its name now."""

    reason: sqlite3.DatabaseError
    aside: Path


def open_alone(
    path: Path,
    *,
    admit: Callable[[sqlite3.Connection], None],
    prepare: Callable[[sqlite3.Connection], None],
    checkpoint_pages: int,
) -> tuple[WalFile, Damaged | None]:
    """Open a file that no other process can open so until it is closed or this one ends; a damaged one is begun anew.

    A lock on a file beside it sees to that, and not SQLite's own exclusive mode, which allows no second connection
    within this process, either. With `synchronous=FULL`, so that a commit is on disk when it returns; one that finds
    `checkpoint_pages` in the log moves them. `admit` raises if the file is not to be touched, before anything is
    changed in it; `prepare` makes it what the program needs, and finds damage.

    Raises
    ------
    sqlite3.DatabaseError
        if another process uses it, or the disk refuses.
    OSError
        if there can be no lock: the folder may not be written, say.
    """

    def opened() -> WalFile:
        connection = connect(path, PATIENCE)
        try:
            admit(connection)
            make_shrinkable(connection, path)
            use_log(connection, synchronous=_SYNCHRONOUS, checkpoint_pages=checkpoint_pages)
            connection.execute(f"PRAGMA journal_size_limit={_LONGEST_LOG}")
            with transaction(connection):  # raises if another process writes, or the disk refuses
                pass
            prepare(connection)
            return WalFile(path, connection, timeout=PATIENCE, closed=lock.release)
        except BaseException:
            connection.close()
            raise

    lock = _locked(path)
    try:
        try:
            return opened(), None
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            damaged = Damaged(error, _put_aside(path))
            return opened(), damaged
    except BaseException:
        lock.release()
        raise


def require_free(path: Path) -> None:
    """Raise as `open_alone` does if another process has the file open, or nothing can be written beside it."""
    _locked(path).release()


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


def _put_aside(path: Path) -> Path:
    """Rename a damaged file with its companions, over no other one; return its new name."""
    aside = _free_name(path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"))
    for suffix in ("-wal", "-shm", ""):  # SQLite deletes a log that it finds alone
        companion = Path(f"{path}{suffix}")
        if companion.exists():
            companion.rename(f"{aside}{suffix}")
    return aside


def _locked(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock", timeout=PATIENCE, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise sqlite3.OperationalError("another process has it open") from error
    return lock


def _free_name(wanted: Path) -> Path:
    """Return the name, with a number behind it if there is a file of that name."""
    numbered = (wanted.with_name(f"{wanted.name}-{number}") for number in count(2))
    return next(name for name in chain([wanted], numbered) if not name.exists())
