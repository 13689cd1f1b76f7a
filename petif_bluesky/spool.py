"""Requests on their way to the server, on disk: what was put here survives the end of the session.

SQLite in WAL mode with `synchronous=NORMAL`: a put costs a fraction of a millisecond and survives `kill -9`.
"""

import contextlib
import json
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)

_BUSY_TIMEOUT = 0.02  # s that a put may wait for another process; held in memory after that
_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    run_uid TEXT NOT NULL,
    request TEXT,
    rejected TEXT
);
"""


@dataclass(frozen=True, slots=True)
class Letter:
    """A request, or (without one) the announcement of a run."""

    number: int | None
    run_uid: str
    request: Mapping[str, Any] | None
    key: str = ""
    """For a letter that is only in memory (its number is None)."""


class Spool:
    """The SQLite file. Any thread may call."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = threading.Lock()
        self._warned = False
        self._held: deque[tuple[str, str, str | None]] = deque()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=_BUSY_TIMEOUT)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Write what is only in memory, if the disk takes it now, and close the file."""
        with self._lock:
            with contextlib.suppress(sqlite3.Error):
                self._write_held()
            if self._held:
                _log.error("%s takes nothing: %d frames that were to be converted are lost", self.path, len(self._held))
                self._held.clear()
            self._database.close()

    def announce(self, run_uid: str) -> None:
        """Put the announcement of a run."""
        self._put(f"{run_uid}/announced", run_uid, None)

    def put(self, request: Mapping[str, Any]) -> bool:
        """Put a request that has a key and a run uid; return False if one with its key is here already."""
        return self._put(str(request["key"]), str(request["run_uid"]), json.dumps(request))

    def first(self, count: int) -> list[Letter]:
        """Return the `count` oldest letters that were not rejected; raise `sqlite3.Error` if the file can't be read.

        Letters that the disk refuses come from memory, after those on disk.
        """
        with self._lock:
            self._try_to_write_held()
            rows = self._database.execute(
                "SELECT number, run_uid, request FROM outbox WHERE rejected IS NULL ORDER BY number LIMIT ?", (count,)
            ).fetchall()
            held = list(self._held)[: count - len(rows)]
        letters = [Letter(number, run_uid, json.loads(text) if text else None) for number, run_uid, text in rows]
        return letters + [Letter(None, run_uid, json.loads(text) if text else None, key) for key, run_uid, text in held]

    def remove(self, letters: Sequence[Letter]) -> None:
        """Remove letters that the server has."""
        numbers = [(letter.number,) for letter in letters if letter.number is not None]
        keys = {letter.key for letter in letters if letter.number is None}
        with self._lock, self._database:
            self._held = deque(held for held in self._held if held[0] not in keys)
            self._database.executemany("DELETE FROM outbox WHERE number=?", numbers)
            # What was handed out from memory may have reached the disk meanwhile.
            self._database.executemany("DELETE FROM outbox WHERE key=?", [(key,) for key in keys])

    def postpone(self, letter: Letter) -> None:
        """Put a letter behind all others."""
        with self._lock:
            self._database.execute(
                "UPDATE outbox SET number=(SELECT max(number) + 1 FROM outbox) WHERE number=?", (letter.number,)
            )

    def set_aside(self, letter: Letter, reason: str) -> None:
        """Keep a letter that the server will never take, with the reason; one that is only in memory is dropped."""
        if letter.number is None:
            self.remove([letter])
            return
        with self._lock:
            self._database.execute("UPDATE outbox SET rejected=? WHERE number=?", (reason, letter.number))

    def __len__(self) -> int:
        with self._lock:
            row = self._database.execute("SELECT count(*) FROM outbox WHERE rejected IS NULL").fetchone()
        return int(row[0])

    def _put(self, key: str, run_uid: str, text: str | None) -> bool:
        """Write a letter, or hold it in memory while another process has the file: the RunEngine must not wait."""
        with self._lock:
            self._held.append((key, run_uid, text))
            return self._try_to_write_held()

    def _try_to_write_held(self) -> bool:
        """Write what is held, if that works; return whether the last one was new."""
        try:
            return self._write_held()
        except sqlite3.OperationalError as error:
            if not self._warned:
                _log.warning("%s can't be written (%s): requests are kept in memory until it can", self.path, error)
            self._warned = True
            return True

    def _write_held(self) -> bool:
        """Write what is held, in order; return whether the last one was new."""
        new = True
        while self._held:
            cursor = self._database.execute(
                "INSERT OR IGNORE INTO outbox (key, run_uid, request) VALUES (?, ?, ?)", self._held[0]
            )
            self._held.popleft()
            new = cursor.rowcount == 1
        self._warned = False
        return new
