"""The SQLite file of the server: opened for one server alone, brought to this version, set aside if it is damaged."""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tango_server.jobs.ledger.schema import MIGRATIONS, SCHEMA, VERSION
from tango_server.sqlite.sole_owner import Damaged, check_for_damage, is_damage, open_alone
from tango_server.sqlite.wal_file import WalFile, transaction, version_of

_log = logging.getLogger(__name__)

_CLEAN, _AGE = "closed cleanly", "age"
_LONG_LOG = 4_000
"""Pages of SQLite's log, 4 kB each, with which it is to begin anew."""
_TOO_LONG_LOG = 16_000
"""Pages with which a commit takes care of that itself, since nobody else does."""
_SPARE_PAGES = 2_750
"""Unused pages that stay, for what comes next."""
_PORTION = 250
"""Pages that are given back at once."""


class LedgerError(OSError):
    """The ledger can't be used as it is; nothing in it was changed."""


class LedgerBusyError(LedgerError):
    """The ledger can't be written at present, as on a full disk; nothing of the call was written."""


class LedgerDamagedError(LedgerError):
    """The file turned out to be damaged; the next `Database` on it looks through all of it and puts it aside."""


class Database:
    """Every `transaction` is one commit, one after the other; any thread may begin one, or read meanwhile."""

    def __init__(self, path: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Open the file; `monotonic` is a clock that nobody sets, in s.

        Raises
        ------
        LedgerError
            if another server uses it, a later version wrote it, or the disk refuses.
        """
        self.path = path
        self._damaged = False
        try:
            self._file, age, damaged = _opened(path)
        except sqlite3.DatabaseError as error:
            raise LedgerError(
                f"{path}: the ledger can't be opened ({error}); expected one that no other server uses, on a disk "
                "with free space. End the other server if there is one, or give another state directory."
            ) from error
        self.set_aside = damaged.aside if damaged else None
        """Where a damaged file was put, None if there was none."""
        self._identity = _identity_of(path)
        self._monotonic = monotonic
        self._born = monotonic() - age

    @property
    def age(self) -> float:
        """How long the file has been in use, all servers together, in s; no jump of the wall clock changes it.

        What a killed server had not kept by `keep_age` is not in it, but it is no less than that of any finished job.
        """
        return self._monotonic() - self._born

    def keep_age(self) -> None:
        """Write the age down, so that the next server goes on from there."""
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (_AGE, repr(self.age)))

    def shorten_log(self) -> None:
        """Move what is committed from SQLite's log into the file, and let a long log begin anew.

        Commits and readings go on meanwhile. To be called often, by a thread that may wait for the disk.

        Raises
        ------
        LedgerBusyError
            if the disk is full or refuses; nothing is lost.
        LedgerDamagedError
            if the file is damaged.
        """
        with self._noticing_damage(), self._noticing_refusal():
            self._file.shorten_log(_LONG_LOG, "RESTART")

    def give_back(self) -> bool:
        """Give a portion of what was forgotten back to the disk; return whether there is more. Raises as a commit."""
        with self._noticing_damage(), self._noticing_refusal():
            return self._file.give_back(_PORTION, spare=_SPARE_PAGES)

    def close(self) -> None:
        """Close the file; later calls raise `sqlite3.ProgrammingError`."""
        with self._file.closing() as connection:
            if not self._damaged:
                self._mark_as_closed(connection)

    def _mark_as_closed(self, connection: sqlite3.Connection) -> None:
        try:
            connection.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?)", [(_CLEAN, "1"), (_AGE, repr(self.age))])
        except sqlite3.Error as error:  # all that it costs is a longer look at the next start
            _log.warning("%s: it can't be marked as closed (%s)", self.path, error)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what is done in the block, all of it or nothing.

        Raises
        ------
        LedgerBusyError
            if the disk is full or refuses, or the file was moved, deleted or replaced.
        LedgerDamagedError
            if the file is damaged.
        """
        self._require_in_place()
        with self._noticing_damage(), self._noticing_refusal(), self._file.transaction() as connection:
            yield connection
            self._require_in_place()  # else what was accepted would be gone with a file that has no name any more

    @property
    def trouble(self) -> str:
        """Why nothing can be written although the disk would take it; empty: the file is where it was."""
        if _identity_of(self.path) == self._identity:
            return ""
        return (
            f"{self.path}: the ledger was moved, deleted or replaced while the server runs, so that nothing can be "
            "accepted. Put it back, or call Init to begin a new one."
        )

    def _require_in_place(self) -> None:
        if trouble := self.trouble:
            raise LedgerBusyError(trouble)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read what is committed when the block begins; raise `LedgerDamagedError` if the file is damaged."""
        with self._noticing_damage(), self._file.reading() as connection:
            yield connection

    @contextmanager
    def _noticing_refusal(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise LedgerBusyError(
                f"{self.path}: the ledger can't be written ({error}). Make room on its disk, or check the disk."
            ) from error

    @contextmanager
    def _noticing_damage(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._damaged = True
            raise LedgerDamagedError(
                f"{self.path}: the ledger is damaged ({error}). Check its disk, then call Init or start the server "
                "again: the file is put aside then, and a new one is begun."
            ) from error


def _identity_of(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one of the same name, None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _opened(path: Path) -> tuple[WalFile, float, Damaged | None]:
    """Return the file, the age of what is in the file (s), and what became of a damaged file."""
    age = 0.0

    def admit(connection: sqlite3.Connection) -> None:
        _require_known_version(connection, path)

    def prepare(connection: sqlite3.Connection) -> None:
        nonlocal age
        _bring_up_to_date(connection, version_of(connection), path)
        if not connection.execute("SELECT 1 FROM kept WHERE name=?", (_CLEAN,)).fetchone():
            check_for_damage(connection)  # the last server did not end in good order
        age = _age_of(connection)  # reading it may find damage, too
        connection.execute("DELETE FROM kept WHERE name=?", (_CLEAN,))

    file, damaged = open_alone(path, admit=admit, prepare=prepare, checkpoint_pages=_TOO_LONG_LOG)
    if damaged:
        _log.error(
            "%s: the ledger is damaged (%s) and was put aside as %s; a new one is begun. Jobs that were pending are "
            "not known any more: submit the folders again.",
            path,
            *damaged,
        )
    return file, age, damaged


def _require_known_version(connection: sqlite3.Connection, path: Path) -> None:
    found = version_of(connection)
    if found > VERSION:
        raise LedgerError(
            f"{path}: a ledger of version {found}; expected {VERSION} or an earlier one. "
            "Start the version of petif-bluesky that wrote it, or give another state directory."
        )


def _age_of(connection: sqlite3.Connection) -> float:
    """Return the age that was kept, or that of the last finished job: else later jobs would pass for older ones."""
    kept = connection.execute("SELECT value FROM kept WHERE name=?", (_AGE,)).fetchone()
    last = connection.execute("SELECT max(age) FROM jobs WHERE outcome IS NOT NULL").fetchone()
    return max(float(kept[0]) if kept else 0.0, last[0] or 0.0)


def _bring_up_to_date(connection: sqlite3.Connection, found: int, path: Path) -> None:
    if found not in {0, VERSION}:
        _keep_copy(connection, found, path)
    with transaction(connection):
        for statement in MIGRATIONS.get(found, SCHEMA):
            connection.execute(statement)
        if found != VERSION:
            connection.execute(f"PRAGMA user_version={VERSION}")
    if found not in {0, VERSION}:
        _log.warning("%s: brought from version %d to %d; an earlier program can't read it now", path, found, VERSION)


def _keep_copy(connection: sqlite3.Connection, found: int, path: Path) -> None:
    """Copy a file of an earlier version, for whoever has to go back to the program that wrote it."""
    kept = path.with_name(f"{path.name}.version-{found}")
    unfinished = path.with_name(f"{kept.name}.part")
    unfinished.unlink(missing_ok=True)
    copy = sqlite3.connect(unfinished)
    try:
        connection.backup(copy)
    finally:
        copy.close()
    unfinished.replace(kept)
    _log.warning("%s: kept as %s, as version %d of the ledger was", path, kept, found)
