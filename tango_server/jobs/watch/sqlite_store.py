"""The persistent state of watched folders: an SQLite file with one owner.

Separate from the ledger: a file name is remembered for as long as it is in the folder, a report only as long as the
history.
"""

import logging
import os
import secrets
import sqlite3
from collections.abc import ItemsView, Iterator, MutableMapping
from pathlib import Path
from typing import Any

from tango_server.jobs.watch.known import Identity, Known, Past
from tango_server.sqlite.sole_owner import Damaged, check_for_damage, open_alone
from tango_server.sqlite.wal_file import WalFile, version_of

_log = logging.getLogger(__name__)

VERSION = 1
KEPT_FOLDERS = 1_000
"""Number of folders remembered: those watched last, independently of the clock."""

_LOG_PAGES = 1_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS book (token TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS folders (
    number INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, floor INTEGER NOT NULL, opened REAL NOT NULL
    -- opened: counts up whenever watching starts; in earlier files Unix seconds, which sort before
);
CREATE TABLE IF NOT EXISTS due (
    folder INTEGER NOT NULL REFERENCES folders ON DELETE CASCADE, name BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS files (
    folder INTEGER NOT NULL REFERENCES folders ON DELETE CASCADE, name BLOB NOT NULL, generation INTEGER NOT NULL,
    size INTEGER, mtime_ns INTEGER, job_id TEXT, gone_since REAL, PRIMARY KEY (folder, name)
) WITHOUT ROWID;
"""
_VALUES = "name, generation, size, mtime_ns, job_id, gone_since"
_ONE = f"SELECT {_VALUES} FROM files WHERE folder=? AND name=?"  # noqa: S608 - our own constants
_AFTER = f"SELECT {_VALUES} FROM files WHERE folder=? AND name>? ORDER BY name LIMIT 1000"  # noqa: S608
_LAST = "(SELECT coalesce(max(opened), 0) + 1 FROM folders)"
_DELETE_OLDEST = "DELETE FROM folders WHERE number NOT IN (SELECT number FROM folders ORDER BY opened DESC LIMIT ?)"


class WatchStore:
    """The store of one server; its methods may be called from any thread.

    Names are stored as the bytes of the file system, which need not be valid text.

    Raises
    ------
    OSError
        if it can't be opened, or another process has it open.

    """

    def __init__(self, path: Path) -> None:
        """Open or create the store. A damaged one is set aside: see `damage`."""
        try:
            self._file, damaged = _opened(path)
        except sqlite3.DatabaseError as error:
            raise OSError(
                f"{path}: cannot open the state of watched folders: {error}. Stop any other server or petif watch that "
                "uses it, or choose another state directory."
            ) from error
        self.damage = ""
        """Message about a damaged store that was set aside; empty if there was none."""
        if damaged:
            self.damage = (
                f"{path}: the state of watched folders was damaged ({damaged.reason}) and moved to {damaged.aside}. "
                "Folders are watched as if for the first time: add frames that arrived in the meantime by hand "
                "(petif add, AddFolder)."
            )
            _log.error("%s", self.damage)
        with self._file.transaction() as database:
            database.execute(_DELETE_OLDEST, (KEPT_FOLDERS,))
            self.token: str = database.execute("SELECT token FROM book").fetchone()[0]
        """Distinguishes the keys of this store from those of another one."""

    def close(self) -> None:
        """Close the file; later calls raise `sqlite3.ProgrammingError`."""
        with self._file.closing():
            pass

    def open_folder(self, folder: Path) -> "KnownFiles":
        """Return the known files of a folder, and record that it is being watched."""
        return KnownFiles(self._file, folder)


class KnownFiles(MutableMapping[str, Known]):
    """The files of one folder by name: those in the store, and changes not written yet.

    An iteration may miss names that are added or removed meanwhile.
    """

    def __init__(self, file: WalFile, folder: Path) -> None:
        self._file = file
        self._folder = os.fsencode(folder)
        self._changed: dict[str, Known | None] = {}
        """None: to be deleted."""
        self._number = 0  # not a valid number
        self.past = Past()
        """The state of the folder itself in the store."""
        self.failed = False
        """Whether reading the store failed: the state in memory is incomplete and must be loaded again."""
        with file.transaction() as database:
            row = database.execute("SELECT number, floor FROM folders WHERE path=?", (self._folder,)).fetchone()
            if row is not None:
                self._number, floor = row
                database.execute(f"UPDATE folders SET opened={_LAST} WHERE number=?", (self._number,))  # noqa: S608
                due = database.execute("SELECT name FROM due WHERE folder=?", (self._number,)).fetchall()
                self.past = Past(watched_before=True, floor=floor, due=frozenset(os.fsdecode(name) for (name,) in due))

    def write(self, past: Past) -> None:
        """Write the changes, and the state of the folder itself, in one transaction."""
        if not self._changed and past == self.past:
            return
        with self._file.transaction() as database:
            number = _number_of(database, self._folder)
            if past != self.past:
                database.execute("UPDATE folders SET floor=? WHERE number=?", (past.floor, number))
                database.execute("DELETE FROM due WHERE folder=?", (number,))
                due = [(number, os.fsencode(name)) for name in past.due]
                database.executemany("INSERT INTO due VALUES (?, ?)", due)
            changed = [(os.fsencode(name), file) for name, file in self._changed.items()]
            database.executemany(
                "DELETE FROM files WHERE folder=? AND name=?",
                [(number, name) for name, file in changed if file is None],
            )
            database.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (number, name, file.generation, *(file.identity or (None, None)), file.job_id, file.gone_since)
                    for name, file in changed
                    if file is not None
                ],
            )
        self._number, self.past = number, past
        self._changed.clear()

    def __getitem__(self, name: str) -> Known:
        file = self._changed.get(name) if name in self._changed else self._stored(name)
        if file is None:
            raise KeyError(name)
        return file

    def __setitem__(self, name: str, file: Known) -> None:
        self._changed[name] = file

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self._changed[name] = None

    def __iter__(self) -> Iterator[str]:
        """Yield all names."""
        return (name for name, _ in self.items())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def items(self) -> ItemsView[str, Known]:
        """Return all names and files, read in portions."""
        return _Items(self)

    def scan(self) -> Iterator[tuple[str, Known]]:
        """Yield all names and files."""
        last = b""
        while rows := self._rows(_AFTER, last):
            for in_bytes, *values in rows:
                name = os.fsdecode(in_bytes)
                if name not in self._changed:
                    yield name, _known(*values)
            last = rows[-1][0]
        yield from [(name, file) for name, file in self._changed.items() if file is not None]

    def _stored(self, name: str) -> Known | None:
        for _, *values in self._rows(_ONE, os.fsencode(name)):
            return _known(*values)
        return None

    def _rows(self, query: str, name: bytes) -> list[Any]:
        try:
            with self._file.reading() as database:
                return database.execute(query, (self._number, name)).fetchall()
        except sqlite3.Error:
            self.failed = True
            raise


class _Items(ItemsView[str, Known]):
    def __init__(self, files: KnownFiles) -> None:
        super().__init__(files)
        self._files = files

    def __iter__(self) -> Iterator[tuple[str, Known]]:
        return self._files.scan()


def _known(
    generation: int, size: int | None, mtime_ns: int | None, job_id: str | None, gone_since: float | None
) -> Known:
    identity = None if size is None or mtime_ns is None else Identity(size, mtime_ns)
    return Known(generation, identity, job_id, gone_since)


def _number_of(database: sqlite3.Connection, path: bytes) -> int:
    database.execute(
        f"INSERT OR IGNORE INTO folders (path, floor, opened) VALUES (?, 0, {_LAST})",  # noqa: S608 - our own constants
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
            f"{path}: cannot open the state of watched folders: it has version {found}, not {VERSION}. "
            "Start the version of petif-bluesky that wrote it, or choose another state directory."
        )


def _prepare(connection: sqlite3.Connection) -> None:
    check_for_damage(connection)
    connection.execute("PRAGMA foreign_keys=ON")
    found = version_of(connection)
    connection.executescript(_SCHEMA)
    if found == 0:
        connection.execute("INSERT INTO book VALUES (?)", (secrets.token_hex(4),))
        connection.execute(f"PRAGMA user_version={VERSION}")
