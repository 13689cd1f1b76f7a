"""The SQLite file of a spool: how it is opened, brought to this version, and written."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

BUSY_TIMEOUT = 0.02
"""How long a put may wait for another process, s; it is held in memory after that."""
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


def connected(path: Path, timeout: float = BUSY_TIMEOUT) -> sqlite3.Connection:
    """Return a connection for any thread, which waits for other processes for so many seconds."""
    return sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=timeout)


def opened(path: Path) -> sqlite3.Connection:
    """Return the connection that writes; the file is made if there is none.

    `synchronous=NORMAL` in WAL mode: nothing is flushed but by a checkpoint, and none is made but when it is asked for.
    """
    database = connected(path)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    database.execute("PRAGMA wal_autocheckpoint=0")
    _make_shrinkable(database)
    database.executescript(_SCHEMA)
    if not any(column == "rejected_at" for _, column, *_ in database.execute("PRAGMA table_info(outbox)")):
        database.execute("ALTER TABLE outbox ADD COLUMN rejected_at REAL")
        database.execute("UPDATE outbox SET rejected_at=? WHERE rejected IS NOT NULL", (time.time(),))
    database.execute(_INDEX)
    return database


def _make_shrinkable(database: sqlite3.Connection) -> None:
    """Have the file give back what is deleted from it; one of before can do so once nothing waits in it."""
    if database.execute("PRAGMA auto_vacuum").fetchone()[0]:
        return
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    if "outbox" in tables and database.execute("SELECT 1 FROM outbox LIMIT 1").fetchone():
        return
    with contextlib.suppress(sqlite3.OperationalError):  # another process has it open
        database.execute("PRAGMA auto_vacuum=INCREMENTAL")
        database.execute("VACUUM")


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done in the block, all of it or nothing."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    finally:
        if database.in_transaction:
            database.execute("ROLLBACK")
