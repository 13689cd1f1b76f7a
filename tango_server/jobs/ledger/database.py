"""The SQLite file of the server: opened exclusively, migrated to this version, set aside if damaged."""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tango_server.jobs.ledger.schema import ADDED_COLUMNS, INDEXES_OF_ADDED, MIGRATIONS, SCHEMA, VERSION
from tango_server.sqlite.sole_owner import Damaged, check_for_damage, is_damage, open_alone
from tango_server.sqlite.wal_file import WalFile, transaction, version_of

_log = logging.getLogger(__name__)

_CLEAN, _AGE = "closed cleanly", "age"
_LONG_LOG = 4_000
"""Pages (4 kB) of SQLite's write-ahead log at which it is restarted."""
_TOO_LONG_LOG = 16_000
"""Pages at which a commit does that itself."""
_SPARE_PAGES = 2_750
"""Unused pages to keep for later use."""
_PORTION = 250
"""Pages returned to the disk at a time."""


class LedgerError(OSError):
    """The ledger can't be used; it was not changed."""


class LedgerBusyError(LedgerError):
    """The ledger can't be written at the moment, for example on a full disk; the call had no effect."""


class LedgerDamagedError(LedgerError):
    """The file is damaged; the next `Database` on it checks all of it and sets it aside."""


class Database:
    """Each `transaction` is one commit; they are serialised, and any thread may start one, or read meanwhile."""

    def __init__(self, path: Path, monotonic: Callable[[], float] = time.perf_counter) -> None:
        """Open the file; `monotonic` is a monotonic clock, in s, fine enough to order commits.

        Raises
        ------
        LedgerError
            if another server uses it, a later version wrote it, or the disk fails.
        """
        self.path = path
        self._damaged = False
        try:
            self._file, age, damaged = _opened(path)
        except sqlite3.DatabaseError as error:
            raise LedgerError(
                f"{path}: cannot open the ledger: {error}. Stop any other server that uses it, check the free space, "
                "or choose another state directory."
            ) from error
        self.set_aside = damaged.aside if damaged else None
        """Where a damaged file was moved to, None if there was none."""
        self._identity = _identity_of(path)
        self._monotonic = monotonic
        self._born = monotonic() - age

    @property
    def age(self) -> float:
        """Total time in s that servers have had the file open; unaffected by changes of the wall clock.

        Time not saved by `keep_age` before a kill is lost; the age is at least that of any finished job.
        """
        return self._monotonic() - self._born

    def keep_age(self) -> None:
        """Save the age, so that the next server continues from there."""
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (_AGE, repr(self.age)))

    def shorten_log(self) -> None:
        """Checkpoint SQLite's write-ahead log into the file, and restart the log if it is long.

        Does not block commits and reads. Call it often, from a thread that may wait for the disk.

        Raises
        ------
        LedgerBusyError
            if the disk is full or fails; nothing is lost.
        LedgerDamagedError
            if the file is damaged.
        """
        with self._damage_detected(), self._write_errors_translated():
            self._file.shorten_log(_LONG_LOG, "RESTART")

    def give_back(self) -> bool:
        """Return some unused pages to the disk; return whether there are more. Raises the same errors as a commit."""
        with self._damage_detected(), self._write_errors_translated():
            return self._file.give_back(_PORTION, spare=_SPARE_PAGES)

    def close(self) -> None:
        """Close the file; later calls raise `sqlite3.ProgrammingError`."""
        with self._file.closing() as connection:
            if not self._damaged:
                self._mark_as_closed(connection)

    def _mark_as_closed(self, connection: sqlite3.Connection) -> None:
        try:
            connection.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?)", [(_CLEAN, "1"), (_AGE, repr(self.age))])
        except sqlite3.Error as error:  # only costs a full check at the next start
            _log.warning(
                "%s: cannot mark the ledger as cleanly closed: %s. The next start checks all of it.", self.path, error
            )

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the block as one transaction.

        Raises
        ------
        LedgerBusyError
            if the disk is full or fails, or the file was moved, deleted or replaced.
        LedgerDamagedError
            if the file is damaged.
        """
        self._require_in_place()
        with self._damage_detected(), self._write_errors_translated(), self._file.transaction() as connection:
            yield connection
            self._require_in_place()  # else accepted jobs would vanish with the unlinked file

    @property
    def problem(self) -> str:
        """Why nothing can be written although the disk works; empty if the file is still in place."""
        if _identity_of(self.path) == self._identity:
            return ""
        return (
            f"{self.path}: cannot accept frames: the ledger was moved, deleted or replaced while the server is "
            "running. Move it back, or call Init to start a new one."
        )

    def _require_in_place(self) -> None:
        if problem := self.problem:
            raise LedgerBusyError(problem)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read the state at the start of the block; raise `LedgerDamagedError` if the file is damaged."""
        with self._damage_detected(), self._file.reading() as connection:
            yield connection

    @contextmanager
    def _write_errors_translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise LedgerBusyError(
                f"{self.path}: cannot write the ledger: {error}. Check the free space and the disk."
            ) from error

    @contextmanager
    def _damage_detected(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._damaged = True
            raise LedgerDamagedError(
                f"{self.path}: the ledger is damaged: {error}. Check its disk, then call Init or restart the server: "
                "this sets the file aside and starts a new one."
            ) from error


def _identity_of(path: Path) -> tuple[int, int] | None:
    """Return (device, inode) of a file, None if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _opened(path: Path) -> tuple[WalFile, float, Damaged | None]:
    """Return the file, its age (s), and where a damaged file was moved to."""
    age = 0.0

    def admit(connection: sqlite3.Connection) -> None:
        _require_known_version(connection, path)

    def prepare(connection: sqlite3.Connection) -> None:
        nonlocal age
        _migrate(connection, version_of(connection), path)
        if not connection.execute("SELECT 1 FROM kept WHERE name=?", (_CLEAN,)).fetchone():
            check_for_damage(connection)  # the last server was not shut down cleanly
        age = _age_of(connection)  # this may find damage, too
        connection.execute("DELETE FROM kept WHERE name=?", (_CLEAN,))

    file, damaged = open_alone(path, admit=admit, prepare=prepare, checkpoint_pages=_TOO_LONG_LOG)
    if damaged:
        _log.error(
            "%s: the ledger is damaged (%s). It was moved to %s, and a new one was started. Pending jobs are lost: "
            "submit their folders again.",
            path,
            *damaged,
        )
    return file, age, damaged


def _require_known_version(connection: sqlite3.Connection, path: Path) -> None:
    found = version_of(connection)
    if found > VERSION:
        raise LedgerError(
            f"{path}: cannot open the ledger: it has version {found}, newer than {VERSION}. "
            "Start the version of petif-bluesky that wrote it, or choose another state directory."
        )


def _age_of(connection: sqlite3.Connection) -> float:
    """Return the saved age, but at least that of the last finished job, so that ages never go back."""
    kept = connection.execute("SELECT value FROM kept WHERE name=?", (_AGE,)).fetchone()
    last = connection.execute("SELECT max(age) FROM jobs WHERE outcome IS NOT NULL").fetchone()
    return max(float(kept[0]) if kept else 0.0, last[0] or 0.0)


def _migrate(connection: sqlite3.Connection, found: int, path: Path) -> None:
    if found not in {0, VERSION}:
        _keep_copy(connection, found, path)
    with transaction(connection):
        for statement in MIGRATIONS.get(found, SCHEMA):
            connection.execute(statement)
        columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(jobs)")}
        for name, kind in ADDED_COLUMNS.items():
            if name not in columns:
                connection.execute(f"ALTER TABLE jobs ADD COLUMN {name} {kind}")
        for statement in INDEXES_OF_ADDED:
            connection.execute(statement)
        if found != VERSION:
            connection.execute(f"PRAGMA user_version={VERSION}")
    if found not in {0, VERSION}:
        _log.warning(
            "%s: migrated the ledger from version %d to %d; earlier versions of petif-bluesky can't read it",
            path,
            found,
            VERSION,
        )


def _keep_copy(connection: sqlite3.Connection, found: int, path: Path) -> None:
    """Copy a file of an earlier version, in case of a downgrade."""
    kept = path.with_name(f"{path.name}.version-{found}")
    unfinished = path.with_name(f"{kept.name}.part")
    unfinished.unlink(missing_ok=True)
    copy = sqlite3.connect(unfinished)
    try:
        connection.backup(copy)
    finally:
        copy.close()
    unfinished.replace(kept)
    _log.warning("%s: saved a copy as %s before migrating it from version %d", path, kept, found)
