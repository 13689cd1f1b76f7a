"""An SQLite file in WAL mode: one thread writes, one reads, one moves its log, and none waits long for another.

Imports the standard library only, since sessions do without the packages of a server.
"""

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

_log = logging.getLogger(__name__)

_INCREMENTAL = 2  # of PRAGMA auto_vacuum
_LARGE = 50_000_000  # bytes
_LARGEST_INTEGER = 2**63 - 1


class WalFile:
    """Three connections to one file: to write, to read, and to move the log.

    Reading does not wait for a commit's disk, and no commit waits for the move of the log into the file. Any thread may
    call; `lock` is that of the `writer`, for those who use it without a `transaction`.
    """

    def __init__(
        self, path: Path, writer: sqlite3.Connection, *, timeout: float, closed: Callable[[], object] = lambda: None
    ) -> None:
        """`writer` is open; the others wait `timeout` s for other processes. `closed` is called at last."""
        self.writer = writer
        self._closed = closed
        self.lock = threading.Lock()
        self._reader, self._mover = connect(path, timeout), connect(path, timeout)
        self._reader_lock = threading.Lock()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what is done in the block, all of it or nothing."""
        with self.lock, transaction(self.writer):
            yield self.writer

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read what is committed when the block begins."""
        with self._reader_lock:
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                self._reader.rollback()

    def shorten_log(self, longest: int, restart: Literal["RESTART", "TRUNCATE"]) -> None:
        """Move what is committed from SQLite's log into the file; let a log of more than `longest` pages begin anew.

        Commits and readings go on meanwhile. To be called often, by a thread that may wait for the disk. `RESTART`
        leaves the log its size, so that later commits need not make it grow again.
        """
        _, length, _ = self._mover.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if length > longest:
            with self.lock, self._reader_lock:  # little has come meanwhile, and none of it may be missing
                self.writer.execute(f"PRAGMA wal_checkpoint({restart})").fetchall()

    def give_back(self, pages: int, *, spare: int = 0) -> bool:
        """Give so many unused pages back to the disk if more than `spare` are unused; return whether they were.

        It is one commit, of a few milliseconds for some hundred pages.
        """
        with self.lock:
            if self.writer.execute("PRAGMA freelist_count").fetchone()[0] <= spare:
                return False
            self.writer.executescript(f"PRAGMA incremental_vacuum({pages})")  # `execute` would take the first step only
        return True

    @contextmanager
    def closing(self) -> Iterator[sqlite3.Connection]:
        """Close the file after the block, in which no other thread uses it.

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
    """Set WAL mode, how commits are flushed (`synchronous`), and when one moves the log itself (0 pages: never)."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute(f"PRAGMA wal_autocheckpoint={checkpoint_pages}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done in the block, all of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:  # SQLite has gone back itself if the disk is full
            connection.execute("ROLLBACK")


def make_shrinkable(connection: sqlite3.Connection, path: Path) -> None:
    """Have a file give back what is deleted from it; one that can't is written anew, if there is room.

    SQLite decides that by the first table of a file, or by VACUUM.
    """
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0] == _INCREMENTAL:
        return
    if path.stat().st_size > _LARGE:
        _log.warning("%s: is written anew once, so that it can shrink from now on; this takes its time", path)
    try:
        connection.execute(f"PRAGMA auto_vacuum={_INCREMENTAL}")
        connection.execute("VACUUM")
    except sqlite3.OperationalError as error:  # no room beside it, or another process uses it: it goes on as it is
        _log.warning("%s: can't shrink (%s); tried again at the next start", path, error)


def version_of(connection: sqlite3.Connection) -> int:
    """Return the version that the file says it has, 0 if it is new."""
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return found


def sqlite_integer(number: int) -> int:
    """Return the nearest integer that SQLite holds: some file systems give times of modification beyond.

    >>> sqlite_integer(7), sqlite_integer(2**64) == 2**63 - 1
    (7, True)
    """
    return max(-_LARGEST_INTEGER - 1, min(number, _LARGEST_INTEGER))
