"""What is known of the files in watched folders, kept over restarts: an SQLite file with one owner.

It is not the ledger: a name that was left or taken is remembered for as long as it is in the folder, a report only for
as long as the history goes.
"""

import logging
import os
import secrets
import sqlite3
from pathlib import Path

from tango_server.jobs.watch.folder_state import Changes, Identity, Known, Past
from tango_server.sqlite.sole_owner import Damaged, check_for_damage, open_alone
from tango_server.sqlite.wal_file import WalFile, version_of

_log = logging.getLogger(__name__)

VERSION = 1
KEPT_FOLDERS = 1_000
"""How many folders are remembered: those that were watched last. No clock tells, so that none can make us forget."""

_LOG_PAGES = 1_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS book (token TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS folders (
    number INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, floor INTEGER NOT NULL, opened REAL NOT NULL
    -- opened: the order in which watching began last; in earlier books Unix seconds, which are in order, too
);
CREATE TABLE IF NOT EXISTS due (
    folder INTEGER NOT NULL REFERENCES folders ON DELETE CASCADE, name BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS files (
    folder INTEGER NOT NULL REFERENCES folders ON DELETE CASCADE, name BLOB NOT NULL, generation INTEGER NOT NULL,
    size INTEGER, mtime_ns INTEGER, job_id TEXT, gone_since REAL, PRIMARY KEY (folder, name)
) WITHOUT ROWID;
"""
_LAST = "(SELECT coalesce(max(opened), 0) + 1 FROM folders)"
_FORGET = "DELETE FROM folders WHERE number NOT IN (SELECT number FROM folders ORDER BY opened DESC LIMIT ?)"


class WatchStore:
    """The book of one server; its methods may be called from any thread.

    Names are kept as the bytes that the file system has, which need not be text.

    Raises
    ------
    OSError
        if it can't be opened, or another process has it open.

    """

    def __init__(self, path: Path) -> None:
        """Open or make the book. A damaged one is set aside: see `damage`."""
        try:
            self._file, damaged = _opened(path)
        except sqlite3.DatabaseError as error:
            raise OSError(
                f"{path}: the book of watched folders can't be opened ({error}); expected one that nobody else uses. "
                "End the other server or petif watch if there is one, or give this one another state directory."
            ) from error
        self.damage = ""
        """What to tell people of a book that had to be set aside."""
        if damaged:
            self.damage = (
                f"{path}: the book of watched folders was damaged ({damaged.reason}) and lies at {damaged.aside} now. "
                "The folders are watched as if for the first time: add frames that came while nobody watched by hand "
                "(petif add, AddFolder)."
            )
            _log.error("%s", self.damage)
        with self._file.transaction() as database:
            database.execute(_FORGET, (KEPT_FOLDERS,))
            self.token: str = database.execute("SELECT token FROM book").fetchone()[0]
        """What tells this book's keys from those of another one."""

    def close(self) -> None:
        """Close the file; later calls raise `sqlite3.ProgrammingError`."""
        with self._file.closing():
            pass

    def read(self, folder: Path) -> tuple[dict[str, Known], Past]:
        """Return what is known of a folder; it is being watched from now on."""
        with self._file.transaction() as database:
            row = database.execute("SELECT number, floor FROM folders WHERE path=?", (os.fsencode(folder),)).fetchone()
            if row is None:
                return {}, Past()
            number, floor = row
            database.execute(f"UPDATE folders SET opened={_LAST} WHERE number=?", (number,))  # noqa: S608 - our own
            due = database.execute("SELECT name FROM due WHERE folder=?", (number,)).fetchall()
            rows = database.execute(
                "SELECT name, generation, size, mtime_ns, job_id, gone_since FROM files WHERE folder=?", (number,)
            ).fetchall()
        known = {
            os.fsdecode(name): Known(generation, None if size is None else Identity(size, mtime_ns), job_id, gone_since)
            for name, generation, size, mtime_ns, job_id, gone_since in rows
        }
        return known, Past(watched_before=True, floor=floor, due=frozenset(os.fsdecode(name) for (name,) in due))

    def write(self, folder: Path, changes: Changes) -> None:
        """Write changes of a folder in one transaction."""
        with self._file.transaction() as database:
            number = _number_of(database, folder)
            if changes.past is not None:
                database.execute("UPDATE folders SET floor=? WHERE number=?", (changes.past.floor, number))
                database.execute("DELETE FROM due WHERE folder=?", (number,))
                due = [(number, os.fsencode(name)) for name in changes.past.due]
                database.executemany("INSERT INTO due VALUES (?, ?)", due)
            database.executemany(
                "DELETE FROM files WHERE folder=? AND name=?",
                [(number, os.fsencode(name)) for name in changes.forgotten],
            )
            database.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (number, os.fsencode(name), file.generation, *(file.identity or (None, None)), file.job_id,
                     file.gone_since)
                    for name, file in changes.files.items()
                ],
            )  # fmt: skip


def _number_of(database: sqlite3.Connection, folder: Path) -> int:
    path = os.fsencode(folder)
    database.execute(
        f"INSERT OR IGNORE INTO folders (path, floor, opened) VALUES (?, 0, {_LAST})",  # noqa: S608 - our own words
        (path,),
    )
    number: int = database.execute("SELECT number FROM folders WHERE path=?", (path,)).fetchone()[0]
    return number


def _opened(path: Path) -> tuple[WalFile, Damaged | None]:
    return open_alone(
        path, admit=lambda connection: _admit(connection, path), prepare=_prepare, checkpoint_pages=_LOG_PAGES
    )


def _admit(connection: sqlite3.Connection, path: Path) -> None:
    found = version_of(connection)
    if found not in {0, VERSION}:
        raise OSError(
            f"{path}: a book of version {found}; expected {VERSION}. "
            "Start the version of petif-bluesky that wrote it, or give another state directory."
        )


def _prepare(connection: sqlite3.Connection) -> None:
    check_for_damage(connection)
    connection.execute("PRAGMA foreign_keys=ON")
    found = version_of(connection)
    connection.executescript(_SCHEMA)
    if found == 0:
        connection.execute("INSERT INTO book VALUES (?)", (secrets.token_hex(4),))
        connection.execute(f"PRAGMA user_version={VERSION}")
