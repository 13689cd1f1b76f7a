"""The SQLite file of the server: opened for one server alone, brought to this version, set aside if it is damaged.

WAL mode with `synchronous=FULL`, so that a commit is on disk when it returns.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

from tango_server.jobs.schema import MIGRATIONS, SCHEMA, VERSION

_log = logging.getLogger(__name__)

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_PATIENCE = 1.0
_CLEAN, _AGE = "closed cleanly", "age"


class LedgerError(OSError):
    """The ledger can't be used as it is; nothing in it was changed."""


class LedgerBusyError(LedgerError):
    """The ledger can't be written at present, as on a full disk; nothing of the call was written."""


class LedgerDamagedError(LedgerError):
    """The file turned out to be damaged; the next `Database` on it looks through all of it and puts it aside."""


class Database:
    """One connection, one lock. Every `transaction` is one commit; any thread may begin one."""

    def __init__(self, path: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Open the file; `monotonic` is a clock that nobody sets, in s.

        Raises
        ------
        LedgerError
            if another server uses it, a later version wrote it, or the disk refuses.
        """
        self.path = path
        self.set_aside: Path | None = None
        """Where a damaged file was put, None if there was none."""
        self._lock = threading.Lock()
        self._damaged = False
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = _opened(path)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise LedgerError(
                    f"{path}: the ledger can't be opened ({error}); expected one that no other server uses, on a disk "
                    "with free space. End the other server if there is one, or give another state directory."
                ) from error
            self.set_aside = _put_aside(path, error)
            self._connection = _opened(path)
        self._monotonic = monotonic
        self._born = monotonic() - _age_of(self._connection)

    @property
    def age(self) -> float:
        """How long the file has been in use, all servers together, in s; no jump of the wall clock changes it.

        What a killed server had not kept by `keep_age` is not in it.
        """
        return self._monotonic() - self._born

    def keep_age(self) -> None:
        """Write the age down, so that the next server goes on from there."""
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (_AGE, repr(self.age)))

    def close(self) -> None:
        """Close the file; later calls raise `sqlite3.ProgrammingError`."""
        with self._lock:
            if not self._damaged:
                self._mark_as_closed()
            self._connection.close()

    def _mark_as_closed(self) -> None:
        try:
            self._connection.executemany(
                "INSERT OR REPLACE INTO kept VALUES (?, ?)", [(_CLEAN, "1"), (_AGE, repr(self.age))]
            )
        except sqlite3.Error as error:  # all that it costs is a longer look at the next start
            _log.warning("%s: it can't be marked as closed (%s)", self.path, error)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what is done in the block, all of it or nothing.

        Raises
        ------
        LedgerBusyError
            if the disk is full or refuses.
        LedgerDamagedError
            if the file is damaged.
        """
        with self._lock, self._noticing_damage():
            try:
                with self._connection:
                    self._connection.execute("BEGIN IMMEDIATE")
                    yield self._connection
            except sqlite3.OperationalError as error:
                raise LedgerBusyError(
                    f"{self.path}: the ledger can't be written ({error}). Make room on its disk, or check the disk."
                ) from error

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read what is committed; raise `LedgerDamagedError` if the file is damaged."""
        with self._lock, self._noticing_damage():
            yield self._connection

    @contextmanager
    def _noticing_damage(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._damaged = True
            raise LedgerDamagedError(
                f"{self.path}: the ledger is damaged ({error}). Check its disk, then call Init or start the server "
                "again: the file is put aside then, and a new one is begun."
            ) from error


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=_PATIENCE)
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # two servers would convert every frame twice
        found = _version_of(connection, path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA journal_size_limit=67108864")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
        _bring_up_to_date(connection, found, path)
        _look_for_damage(connection)
        connection.execute("DELETE FROM kept WHERE name=?", (_CLEAN,))
    except BaseException:
        connection.close()
        raise
    return connection


def _age_of(connection: sqlite3.Connection) -> float:
    row = connection.execute("SELECT value FROM kept WHERE name=?", (_AGE,)).fetchone()
    return float(row[0]) if row else 0.0


def _version_of(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of the file, 0 if it is new; refuse a later one before anything is changed."""
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > VERSION:
        raise LedgerError(
            f"{path}: a ledger of version {found}; expected {VERSION} or an earlier one. "
            "Start the version of petif-bluesky that wrote it, or give another state directory."
        )
    return found


def _bring_up_to_date(connection: sqlite3.Connection, found: int, path: Path) -> None:
    if found == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in MIGRATIONS[found] if found else SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has gone back itself if the disk is full
            connection.execute("ROLLBACK")
        raise
    if found:
        _log.warning("%s: brought from version %d to %d; an earlier program can't read it now", path, found, VERSION)


def _look_for_damage(connection: sqlite3.Connection) -> None:
    """Check the whole file if the last server did not end in good order; raise as SQLite does."""
    if connection.execute("SELECT 1 FROM kept WHERE name=?", (_CLEAN,)).fetchone():
        return
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        error = sqlite3.DatabaseError(verdict)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _put_aside(path: Path, error: sqlite3.Error) -> Path:
    """Rename a damaged file with its companions; nothing is deleted."""
    aside = _free_name(path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"))
    for suffix in ("-wal", "-shm", ""):  # SQLite deletes a log that it finds alone
        companion = Path(f"{path}{suffix}")
        if companion.exists():
            companion.rename(f"{aside}{suffix}")
    _log.error(
        "%s: the ledger is damaged (%s) and was put aside as %s; a new one is begun. Jobs that were pending are not "
        "known any more: submit the folders again.",
        path,
        error,
        aside,
    )
    return aside


def _free_name(wanted: Path) -> Path:
    """Return the name, with a number behind it if there is a file of that name."""
    numbered = (wanted.with_name(f"{wanted.name}-{number}") for number in count(2))
    return next(name for name in chain([wanted], numbered) if not name.exists())
