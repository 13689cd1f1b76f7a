"""A queue on disk for requests to the server; its contents survive the end of the session.

SQLite in WAL mode with `synchronous=NORMAL`: a put takes a fraction of a millisecond and survives `kill -9`. Only
`tidy`, called by the sending thread, waits for the disk (`fsync`). The files shrink again as requests are sent.
"""

import contextlib
import json
import logging
import shutil
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tango_server.sqlite.wal_file import WalFile, connect, make_shrinkable, transaction, use_log

_log = logging.getLogger(__name__)

_NEXT_TRY = 1.0  # s during which puts go straight to memory after a failed write
_BUSY_TIMEOUT = 0.02  # s that a put waits for another process before going to memory
_LONGEST_WAIT = 0.003  # s that a put waits for another thread before going to memory
_TIDY_AFTER = 500  # changes
_LONG_LOG = 2_000  # size of the WAL, in pages of 4 kB, at which it is reset
_PORTION = 100  # free pages returned to the disk at a time
_MOST_PORTIONS = 50
_REJECTED_KEPT = 30 * 86_400.0  # s
_MOST_REJECTED = 10_000
_LITTLE_SPACE = 200e6  # bytes
_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    run_uid TEXT NOT NULL,
    request TEXT,
    rejected TEXT,
    rejected_at REAL
);
"""
_INDEX = "CREATE INDEX IF NOT EXISTS outbox_rejected ON outbox (rejected_at) WHERE rejected IS NOT NULL"
_INSERT = "INSERT OR IGNORE INTO outbox (key, run_uid, request) VALUES (?, ?, ?)"
_FORGET = (
    "DELETE FROM outbox WHERE rejected IS NOT NULL AND (rejected_at < ? OR number IN "
    "(SELECT number FROM outbox WHERE rejected IS NOT NULL ORDER BY rejected_at DESC LIMIT -1 OFFSET ?))"
)

_CLOSED = "/closed/"
_Row = tuple[str, str, str | None]
"""Key, run uid and JSON of a request. Rows without a request announce a run; some close a group, named in their key:
for earlier versions these are announcements, too."""


@dataclass(frozen=True, slots=True)
class SpooledRequest:
    """A request; if `request` is None, the end of a group, or the announcement of a run."""

    number: int | None
    run_uid: str
    request: Mapping[str, Any] | None
    key: str = ""

    @property
    def closing(self) -> tuple[str, int] | None:
        """The group that is closed, and its number of members; None if this is something else."""
        group, closed, members = self.key.rpartition(_CLOSED)
        return (group, int(members)) if closed and self.request is None else None


class SpoolError(Exception):
    """The file cannot be used as a spool."""


class Spool:
    """The spool file; thread-safe. A request without a number is only in memory, because it could not be written.

    Rejected requests are kept for 30 days, at most the last 10,000.

    Raises
    ------
    SpoolError
        if the file cannot be opened, or is not a spool.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._warned = False
        self._little_space = False
        self._held: deque[_Row] = deque()
        self._holding = threading.Lock()
        self._next_try = 0.0
        self._changes = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = WalFile(path, _opened(path), timeout=_BUSY_TIMEOUT)
        except (OSError, sqlite3.Error) as error:
            raise SpoolError(
                f"{path}: cannot open the spool: {error}. Use a file on a local disk that this user "
                "may write: ConversionCallback(converter, spool=PATH). If the file is damaged, move it "
                "away; its requests were not sent, so submit those files to the server again."
            ) from error

    def close(self) -> None:
        """Write requests held in memory, if possible, and close the file."""
        with self._file.closing():
            lost = [entry for entry in self._take_held() if not self._could_write(entry)]
            if lost:
                _log.error(
                    "%s: cannot write the spool: %d frames will not be converted. Submit them again with AddFiles.",
                    self.path,
                    len(lost),
                )

    def announce(self, run_uid: str) -> None:
        """Add the announcement of a run."""
        self._put([(f"{run_uid}/announced", run_uid, None)])

    def put(self, request: Mapping[str, Any]) -> bool:
        """Add a request with a key and a run uid; return False if its key is already in the spool."""
        return self.put_all([request])

    def put_all(self, requests: Sequence[Mapping[str, Any]], closings: Mapping[str, int] | None = None) -> bool:
        """Add requests in one transaction; return False if the last key is already in the spool.

        `closings` are the numbers of members of groups, by id, sent after the requests.
        """
        rows: list[_Row] = [(_storable(each["key"]), str(each["run_uid"]), json.dumps(each)) for each in requests]
        for group, members in (closings or {}).items():
            rows.append((f"{group}{_CLOSED}{members}", group.partition("/")[0], None))
        return self._put(rows)

    def first(self, count: int) -> list[SpooledRequest]:
        """Return the `count` oldest requests that were not rejected; raise `sqlite3.Error` if the file cannot be read.

        Requests held in memory come after those on disk.
        """
        with self._file.lock:
            self._try_to_write_held()
        rows = self._read(
            "SELECT number, run_uid, request, key FROM outbox WHERE rejected IS NULL ORDER BY number LIMIT ?", count
        )
        with self._holding:
            held = list(self._held)[: count - len(rows)]
        entries = [_entry(*row) for row in rows]
        return entries + [_entry(None, run_uid, text, key) for key, run_uid, text in held]

    def remove(self, entries: Sequence[SpooledRequest]) -> None:
        """Remove requests that the server has accepted."""
        numbers = [(entry.number,) for entry in entries if entry.number is not None]
        keys = {entry.key for entry in entries if entry.number is None}
        with self._file.lock:
            with self._holding:
                self._held = deque(held for held in self._held if held[0] not in keys)
            with transaction(self._file.writer):
                self._file.writer.executemany("DELETE FROM outbox WHERE number=?", numbers)
                # A request returned from memory may have been written to disk since.
                self._file.writer.executemany("DELETE FROM outbox WHERE key=?", [(key,) for key in keys])
            self._changes += len(entries)

    def tidy(self) -> None:
        """Free disk space from time to time: the WAL, sent requests and old rejected requests.

        Puts are not blocked meanwhile.
        """
        if self._changes < _TIDY_AFTER:
            return
        self._changes = 0
        self._look_at_the_disk()
        with contextlib.suppress(sqlite3.OperationalError):  # another process is doing it
            with self._file.lock:
                self._file.writer.execute(_FORGET, (time.time() - _REJECTED_KEPT, _MOST_REJECTED))
            for _ in range(_MOST_PORTIONS):
                if not self._file.give_back(_PORTION):
                    break
            self._file.shorten_log(_LONG_LOG, "TRUNCATE")

    def postpone(self, entry: SpooledRequest) -> None:
        """Move a request behind all others."""
        with self._file.lock:
            self._file.writer.execute(
                "UPDATE outbox SET number=(SELECT max(number) + 1 FROM outbox) WHERE number=?", (entry.number,)
            )

    def set_aside(self, entry: SpooledRequest, reason: str) -> None:
        """Keep a rejected request with the reason; one that is only in memory is dropped."""
        if entry.number is None:
            self.remove([entry])
            return
        with self._file.lock:
            self._file.writer.execute(
                "UPDATE outbox SET rejected=?, rejected_at=? WHERE number=?", (reason, time.time(), entry.number)
            )
            self._changes += 1

    def __len__(self) -> int:
        return int(self._read("SELECT count(*) FROM outbox WHERE rejected IS NULL")[0][0])

    @property
    def frames(self) -> int:
        """Number of frames in the spool; counting a million takes a second but blocks no put."""
        on_disk = self._read("SELECT count(*) FROM outbox WHERE rejected IS NULL AND request IS NOT NULL")[0][0]
        with self._holding:
            return int(on_disk) + sum(text is not None for _, _, text in self._held)

    def _read(self, query: str, *parameters: int) -> list[Any]:
        with self._file.reading() as connection:
            return connection.execute(query, parameters).fetchall()

    def _look_at_the_disk(self) -> None:
        """Warn once when disk space is low."""
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(self.path.parent).free
            if free < _LITTLE_SPACE and not self._little_space:
                _log.warning(
                    "%s: the disk has only %.0f MB left, and %d frames are waiting for the server. Free disk space or "
                    "start the server: on a full disk, frames are kept in memory and lost when this session ends.",
                    self.path,
                    free / 1e6,
                    self.frames,
                )
            self._little_space = free < _LITTLE_SPACE

    def _put(self, entries: Sequence[_Row]) -> bool:
        """Write requests, or hold them in memory while the file cannot be written: the RunEngine must not wait."""
        with self._holding:
            self._held.extend(entries)
            self._changes += len(entries)
        if not self._file.lock.acquire(timeout=_LONGEST_WAIT):
            return True
        try:
            return time.monotonic() < self._next_try or self._try_to_write_held()
        finally:
            self._file.lock.release()

    def _take_held(self) -> deque[_Row]:
        with self._holding:
            held, self._held = self._held, deque()
        return held

    def _try_to_write_held(self) -> bool:
        """Write the requests held in memory, if possible; return whether the last one was new."""
        held = self._take_held()
        try:
            new = self._write(held)
        except sqlite3.ProgrammingError:  # the spool is closed
            raise
        except sqlite3.Error as error:
            with self._holding:
                self._held.extendleft(reversed(held))
            if not self._warned:
                _log.warning(
                    "%s: cannot write the spool: %s. Requests are kept in memory until it can be written.",
                    self.path,
                    error,
                )
            self._warned = True
            self._next_try = time.monotonic() + _NEXT_TRY
            return True
        self._warned = False
        self._next_try = 0.0
        return new

    def _could_write(self, entry: _Row) -> bool:
        try:
            self._write([entry])
        except sqlite3.Error:
            return False
        return True

    def _write(self, entries: Collection[_Row]) -> bool:
        """Write requests in one transaction, in order; return whether the last one was new."""
        if len(entries) == 1:  # the usual case: a single statement is its own transaction and saves two GIL switches
            return self._insert(*entries)
        new = True
        if entries:
            with transaction(self._file.writer):
                for entry in entries:
                    new = self._insert(entry)
        return new

    def _insert(self, entry: _Row) -> bool:
        return self._file.writer.execute(_INSERT, entry).rowcount == 1


def _storable(key: object) -> str:
    """Return a key that SQLite can store: one with lone surrogates would cost all requests written with it."""
    return str(key).encode("utf-8", "backslashreplace").decode()


def _entry(number: int | None, run_uid: str, text: str | None, key: str) -> SpooledRequest:
    return SpooledRequest(number, run_uid, json.loads(text) if text else None, key)


def _opened(path: Path) -> sqlite3.Connection:
    """Return the writing connection, with this version's table; the file is created if needed."""
    with contextlib.ExitStack() as opened:
        database = connect(path, _BUSY_TIMEOUT)
        opened.callback(database.close)
        use_log(database, synchronous="NORMAL", checkpoint_pages=0)  # only `tidy` flushes
        if not _has_entries(database):  # otherwise the start of a session would wait for a full rewrite
            make_shrinkable(database, path)
        database.executescript(_SCHEMA)
        if not any(column == "rejected_at" for _, column, *_ in database.execute("PRAGMA table_info(outbox)")):
            database.execute("ALTER TABLE outbox ADD COLUMN rejected_at REAL")
            database.execute("UPDATE outbox SET rejected_at=? WHERE rejected IS NOT NULL", (time.time(),))
        database.execute(_INDEX)
        opened.pop_all()
    return database


def _has_entries(database: sqlite3.Connection) -> bool:
    """Whether the spool has any entries."""
    table = database.execute("SELECT 1 FROM sqlite_master WHERE type='table' AND name='outbox'").fetchone()
    return table is not None and database.execute("SELECT 1 FROM outbox LIMIT 1").fetchone() is not None
