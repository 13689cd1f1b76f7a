"""SQLite files of a server: one process at a time, durable commits; damaged files are set aside, never deleted."""

import sqlite3
import time
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from tango_server.sqlite.wal_file import WalFile, connect, make_shrinkable, transaction, use_log

LOCK_TIMEOUT = 1.0
"""How long to wait for the lock of another process, s."""
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SYNCHRONOUS = "FULL"
_LONGEST_LOG = 2**26


class Damaged(NamedTuple):
    """Why a file is damaged, and its new name."""

    reason: sqlite3.DatabaseError
    aside: Path


def open_alone(
    path: Path,
    *,
    admit: Callable[[sqlite3.Connection], None],
    prepare: Callable[[sqlite3.Connection], None],
    checkpoint_pages: int,
) -> tuple[WalFile, Damaged | None]:
    """Open a file exclusively until it is closed or this process ends; a damaged one is replaced by a new file.

    Exclusive by a lock file beside it: SQLite's exclusive mode would also exclude other connections of this process.
    `synchronous=FULL`: a commit is on disk when it returns. A commit checkpoints from `checkpoint_pages` in the log on.
    `admit` raises if the file must not be changed; `prepare` then creates or upgrades its tables, and finds damage.

    Raises
    ------
    sqlite3.DatabaseError
        if another process uses it, or it cannot be written.
    OSError
        if it cannot be locked, for example because the folder is not writable.
    """

    def opened() -> WalFile:
        connection = connect(path, LOCK_TIMEOUT)
        try:
            admit(connection)
            make_shrinkable(connection, path)
            use_log(connection, synchronous=_SYNCHRONOUS, checkpoint_pages=checkpoint_pages)
            connection.execute(f"PRAGMA journal_size_limit={_LONGEST_LOG}")
            with transaction(connection):  # raises if another process writes, or it cannot be written
                pass
            prepare(connection)
            return WalFile(path, connection, timeout=LOCK_TIMEOUT, closed=lock.release)
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
    """Raise as `open_alone` does if another process has the file open, or it cannot be locked."""
    _locked(path).release()


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file itself is damaged, rather than its disk failing or another process using it."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def check_for_damage(connection: sqlite3.Connection) -> None:
    """Check the whole file; raise `sqlite3.DatabaseError` if it is damaged."""
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        error = sqlite3.DatabaseError(verdict)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _put_aside(path: Path) -> Path:
    """Rename a damaged file and its companions, replacing no other file; return its new name."""
    aside = _free_name(path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"))
    for suffix in ("-wal", "-shm", ""):  # SQLite deletes a log without its file
        companion = Path(f"{path}{suffix}")
        if companion.exists():
            companion.rename(f"{aside}{suffix}")
    return aside


def _locked(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock", timeout=LOCK_TIMEOUT, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise sqlite3.OperationalError("another process has it open") from error
    return lock


def _free_name(wanted: Path) -> Path:
    """Return the name, with a number appended if it is taken."""
    numbered = (wanted.with_name(f"{wanted.name}-{number}") for number in count(2))
    return next(name for name in chain([wanted], numbered) if not name.exists())
