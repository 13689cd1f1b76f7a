"""What an open or killed server leaves of its ledger, and what a failing disk makes of it."""

import shutil
from pathlib import Path

from tango_server.jobs.ledger.database import Database
from tango_server.jobs.ledger.ledger import Ledger
from tests.unit.ledger_entries import job

PAGE = 4096


def left_behind(path: Path, folder: Path, *, cut: int = 0) -> Path:
    """Return a copy of the files of an open ledger: what `kill -9` leaves, its log `cut` bytes short."""
    folder.mkdir()
    log = path.with_name(path.name + "-wal")
    content = log.read_bytes() if log.exists() else b""
    (folder / log.name).write_bytes(content[: len(content) - cut])
    return Path(shutil.copy(path, folder))


def drop(database: Database) -> None:
    """End as a killed server does: all is written, nothing is marked."""
    database._file.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    close_files(database)


def close_files(database: Database) -> None:
    """Close the files as they are."""
    with database._file.closing():
        pass


def fill(database: Database, jobs: int = 500) -> None:
    Ledger(database).accept([job(f"job-{number:05d}", metadata={"note": "x" * 100}) for number in range(jobs)])


def spoil(path: Path, page: int) -> None:
    """Overwrite one page of the file, as a failing disk does."""
    with path.open("r+b") as file:
        file.seek(page * PAGE)
        file.write(b"\xa5" * PAGE)


def asides(path: Path) -> list[Path]:
    return sorted(found for found in path.parent.iterdir() if ".damaged-" in found.name)
