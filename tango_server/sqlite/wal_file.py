"""An SQLite file in WAL mode: one connection writes, one reads, one checkpoints, and none waits long for another.

Imports the standard library only, since sessions lack the server's packages.
"""

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

_log = logging.getLogger(__name__)

_INCREMENTAL = 2  # of PRAGMA auto_vacuum
_LARGE = 50_000_000  # bytes
_LARGEST_INTEGER = 2**63 - 1


class WalFile:
    """Three connections to one file: for writing, for reading, and for checkpoints (moving the log into the file).

    Reading does not wait for the disk of a commit, and no commit waits for a checkpoint. Thread-safe; `lock` protects
    the `writer` when it is used outside a `transaction`.
    """

    def __init__(
        self, path: Path, writer: sqlite3.Connection, *, timeout: float, closed: Callable[[], object] = lambda: None
    ) -> None:
        """`writer` is open; the others wait `timeout` s for other processes. `closed` is called at the end.

        If one cannot be opened, all are closed.
        """
        with ExitStack() as opened:
            opened.callback(writer.close)
            self._reader = connect(path, timeout)
            opened.callback(self._reader.close)
            self._mover = connect(path, timeout)
            opened.pop_all()
        self.writer = writer
        self._closed = closed
        self.lock = threading.Lock()
        self._reader_lock = threading.Lock()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit the block as a whole, or roll it back."""
        with self.lock, transaction(self.writer):
            yield self.writer

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read the state committed at the start of the block."""
        with self._reader_lock:
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                self._reader.rollback()

    def shorten_log(self, longest: int, restart: Literal["RESTART", "TRUNCATE"]) -> None:
        """Move committed pages from SQLite's log into the file; restart a log of more than `longest` pages.

        Commits and readings continue meanwhile. Call it often, from a thread that may wait for the disk. `RESTART`
        keeps the log's size, so that later commits need not grow it again.
        """
        _, length, _ = self._mover.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if length > longest:
            with self.lock, self._reader_lock:  # what was committed meanwhile must be moved too
                self.writer.execute(f"PRAGMA wal_checkpoint({restart})").fetchall()

    def give_back(self, pages: int, *, spare: int = 0) -> bool:
        """Return `pages` unused pages to the disk if more than `spare` are unused; return whether that was so.

        It is one commit, a few milliseconds for some hundred pages.
        """
        with self.lock:
            if self.writer.execute("PRAGMA freelist_count").fetchone()[0] <= spare:
                return False
            self.writer.executescript(f"PRAGMA incremental_vacuum({pages})")  # `execute` would only do the first step
        return True

    @contextmanager
    def closing(self) -> Iterator[sqlite3.Connection]:
        """Close the file after the block; no other thread uses it meanwhile.

        Later calls raise `sqlite3.ProgrammingError`.
        """
        with self.lock, self._reader_lock:
            try:
                yield self.writer
            finally:
                for connection in (self._mover, self._reader, self.writer):
                    connection.close()
                self._closed()


def connect(path: Path, timeout: float) -> sqlite3.Connection:
    """Return a connection for any thread, without implicit transactions; it waits `timeout` s for other processes."""
    return sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=timeout)


def use_log(connection: sqlite3.Connection, *, synchronous: str, checkpoint_pages: int) -> None:
    """Set WAL mode, how commits are flushed (`synchronous`), and from how many pages on they checkpoint (0: never)."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute(f"PRAGMA wal_autocheckpoint={checkpoint_pages}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit the block as a whole, or roll it back."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:  # SQLite rolls back by itself if the disk is full
            connection.execute("ROLLBACK")


def make_shrinkable(connection: sqlite3.Connection, path: Path) -> None:
    """Enable a file to shrink after deletions; an older file is rewritten for that, if there is room.

    SQLite needs this before the first table, or VACUUM.
    """
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0] == _INCREMENTAL:
        return
    if path.stat().st_size > _LARGE:
        _log.warning("%s: rewriting the file once, so that it can shrink from now on; this takes a while", path)
    try:
        connection.execute(f"PRAGMA auto_vacuum={_INCREMENTAL}")
        connection.execute("VACUUM")
    except sqlite3.OperationalError as error:  # no room, or used by another process: it stays as it is
        _log.warning("%s: cannot rewrite the file to let it shrink (%s). The next start retries.", path, error)


def version_of(connection: sqlite3.Connection) -> int:
    """Return the version of the file's schema, 0 for a new file."""
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return found


def sqlite_integer(number: int) -> int:
    """Return the nearest integer that SQLite can store: modification times may exceed them on some file systems.

    >>> sqlite_integer(7), sqlite_integer(2**64) == 2**63 - 1
    (7, True)
    """
    return max(-_LARGEST_INTEGER - 1, min(number, _LARGEST_INTEGER))
