"""Requests on their way to the server, on disk: what was put here survives the end of the session.

SQLite in WAL mode with `synchronous=NORMAL`: a put costs a fraction of a millisecond and survives `kill -9`. The disk
is waited for (`fsync`) only in `tidy`, which the sending thread calls. Its files are as large as what waits in them.
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

_NEXT_TRY = 1.0  # s for which puts go to memory at once after the file took nothing
_BUSY_TIMEOUT = 0.02  # s that a put may wait for another process; held in memory after that
_LONGEST_WAIT = 0.003  # s that a put may wait for another thread; held in memory after that, until the next one
_TIDY_AFTER = 500  # changes
_LONG_LOG = 2_000  # pages of SQLite's log, 4 kB each, with which it is to begin anew
_PORTION = 100  # free pages that are given back to the disk at once
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

_Row = tuple[str, str, str | None]
"""Key, run uid and request of a request."""


@dataclass(frozen=True, slots=True)
class SpooledRequest:
    """A request, or (without one) the announcement of a run."""

    number: int | None
    run_uid: str
    request: Mapping[str, Any] | None
    key: str = ""


class SpoolError(Exception):
    """The file can't be used as a spool."""


class Spool:
    """The SQLite file. Any thread may call. A request without a number is only in memory, because the disk refuses it.

    What a server has rejected is kept for 30 days, the last 10,000 of it.

    Raises
    ------
    SpoolError
        if the file can't be opened, or is no spool.

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
                f"{path}: found a spool that can't be opened ({error}); expected a file on a local disk that this user "
                "may write. Name another one: ConversionCallback(converter, spool=PATH). If it is damaged, move it "
                "away: what it holds was never sent, and the server converts these files when it is told of them again."
            ) from error

    def close(self) -> None:
        """Write what is only in memory, if the disk takes it now, and close the file."""
        with self._file.closing():
            lost = [entry for entry in self._take_held() if not self._could_write(entry)]
            if lost:
                _log.error("%s takes nothing: %d frames that were to be converted are lost", self.path, len(lost))

    def announce(self, run_uid: str) -> None:
        """Put the announcement of a run."""
        self._put([(f"{run_uid}/announced", run_uid, None)])

    def put(self, request: Mapping[str, Any]) -> bool:
        """Put a request that has a key and a run uid; return False if one with its key is here already."""
        return self.put_all([request])

    def put_all(self, requests: Sequence[Mapping[str, Any]]) -> bool:
        """Put requests in one transaction; return False if the last one's key is here already."""
        return self._put([(str(fields["key"]), str(fields["run_uid"]), json.dumps(fields)) for fields in requests])

    def first(self, count: int) -> list[SpooledRequest]:
        """Return the `count` oldest requests that were not rejected; raise `sqlite3.Error` if the file can't be read.

        Those that the disk refuses come from memory, after those on disk.
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
        """Remove requests that the server has."""
        numbers = [(entry.number,) for entry in entries if entry.number is not None]
        keys = {entry.key for entry in entries if entry.number is None}
        with self._file.lock:
            with self._holding:
                self._held = deque(held for held in self._held if held[0] not in keys)
            with transaction(self._file.writer):
                self._file.writer.executemany("DELETE FROM outbox WHERE number=?", numbers)
                # What was handed out from memory may have reached the disk meanwhile.
                self._file.writer.executemany("DELETE FROM outbox WHERE key=?", [(key,) for key in keys])
            self._changes += len(entries)

    def tidy(self) -> None:
        """Now and then give room back: that of the database's log, of what was sent, of what was rejected long ago.

        Puts go on meanwhile.
        """
        if self._changes < _TIDY_AFTER:
            return
        self._changes = 0
        self._look_at_the_disk()
        with contextlib.suppress(sqlite3.OperationalError):  # another process does it
            with self._file.lock:
                self._file.writer.execute(_FORGET, (time.time() - _REJECTED_KEPT, _MOST_REJECTED))
            for _ in range(_MOST_PORTIONS):
                if not self._file.give_back(_PORTION):
                    break
            self._file.shorten_log(_LONG_LOG, "TRUNCATE")

    def postpone(self, entry: SpooledRequest) -> None:
        """Put a request behind all others."""
        with self._file.lock:
            self._file.writer.execute(
                "UPDATE outbox SET number=(SELECT max(number) + 1 FROM outbox) WHERE number=?", (entry.number,)
            )

    def set_aside(self, entry: SpooledRequest, reason: str) -> None:
        """Keep a request that the server will never take, with the reason; one that is only in memory is dropped."""
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
        """How many frames wait; counting a million of them takes a second, but keeps no put waiting."""
        on_disk = self._read("SELECT count(*) FROM outbox WHERE rejected IS NULL AND request IS NOT NULL")[0][0]
        with self._holding:
            return int(on_disk) + sum(text is not None for _, _, text in self._held)

    def _read(self, query: str, *parameters: int) -> list[Any]:
        with self._file.reading() as connection:
            return connection.execute(query, parameters).fetchall()

    def _look_at_the_disk(self) -> None:
        """Tell once that little room is left."""
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(self.path.parent).free
            if free < _LITTLE_SPACE and not self._little_space:
                _log.warning(
                    "%s: its disk has %.0f MB left, and %d frames wait there for the server. Make room or start the "
                    "server: on a full disk they wait in memory, and end with this session.",
                    self.path,
                    free / 1e6,
                    self.frames,
                )
            self._little_space = free < _LITTLE_SPACE

    def _put(self, entries: Sequence[_Row]) -> bool:
        """Write requests, or hold them in memory while the file takes nothing: the RunEngine must not wait."""
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
        """Write what is held, if that works; return whether the last one was new."""
        held = self._take_held()
        try:
            new = self._write(held)
        except sqlite3.ProgrammingError:  # the spool was closed
            raise
        except sqlite3.Error as error:
            with self._holding:
                self._held.extendleft(reversed(held))
            if not self._warned:
                _log.warning("%s can't be written (%s): requests are kept in memory until it can", self.path, error)
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
        if len(entries) == 1:  # as most are: a statement of its own is a transaction, and spares two turns of the GIL
            return self._insert(*entries)
        new = True
        if entries:
            with transaction(self._file.writer):
                for entry in entries:
                    new = self._insert(entry)
        return new

    def _insert(self, entry: _Row) -> bool:
        return self._file.writer.execute(_INSERT, entry).rowcount == 1


def _entry(number: int | None, run_uid: str, text: str | None, key: str) -> SpooledRequest:
    return SpooledRequest(number, run_uid, json.loads(text) if text else None, key)


def _opened(path: Path) -> sqlite3.Connection:
    """Return the connection that writes, with this version's table; the file is made if there is none."""
    database = connect(path, _BUSY_TIMEOUT)
    use_log(database, synchronous="NORMAL", checkpoint_pages=0)  # nothing is flushed, but by `tidy`
    if not _waits(database):  # else the start of a session would wait for all of it
        make_shrinkable(database, path)
    database.executescript(_SCHEMA)
    if not any(column == "rejected_at" for _, column, *_ in database.execute("PRAGMA table_info(outbox)")):
        database.execute("ALTER TABLE outbox ADD COLUMN rejected_at REAL")
        database.execute("UPDATE outbox SET rejected_at=? WHERE rejected IS NOT NULL", (time.time(),))
    database.execute(_INDEX)
    return database


def _waits(database: sqlite3.Connection) -> bool:
    """Whether anything is in the file."""
    table = database.execute("SELECT 1 FROM sqlite_master WHERE type='table' AND name='outbox'").fetchone()
    return table is not None and database.execute("SELECT 1 FROM outbox LIMIT 1").fetchone() is not None
