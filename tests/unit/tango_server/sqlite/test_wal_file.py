"""What all SQLite files have in common; their own promises are tested with the ledger, the watch and the spool."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tango_server.sqlite.wal_file import WalFile, connect, make_shrinkable, use_log


@pytest.fixture
def file(tmp_path: Path) -> Iterator[WalFile]:
    path = tmp_path / "file.sqlite"
    writer = connect(path, 0.1)
    use_log(writer, synchronous="NORMAL", checkpoint_pages=0)
    make_shrinkable(writer, path)
    writer.execute("CREATE TABLE notes (text TEXT)")
    file = WalFile(path, writer, timeout=0.1)
    yield file
    with file.closing():
        pass


def fill(file: WalFile) -> None:
    with file.transaction() as connection:
        connection.executemany("INSERT INTO notes VALUES (?)", [("x" * 4_000,)] * 300)


def count(file: WalFile) -> int:
    with file.reading() as connection:
        return int(connection.execute("SELECT count(*) FROM notes").fetchone()[0])


def test_transaction_is_all_or_nothing_and_the_next_one_works(file: WalFile) -> None:
    def fail_midway() -> None:
        with file.transaction() as connection:
            connection.execute("INSERT INTO notes VALUES ('half')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_midway()
    assert count(file) == 0
    fill(file)
    assert count(file) == 300


@pytest.mark.parametrize(("restart", "stays"), [("RESTART", True), ("TRUNCATE", False)])
def test_long_log_begins_anew_and_is_cut_if_asked_for(file: WalFile, tmp_path: Path, restart: str, stays: bool) -> None:
    log = tmp_path / "file.sqlite-wal"
    fill(file)
    before = log.stat().st_size
    file.shorten_log(10**6, restart)  # type: ignore[arg-type]
    assert log.stat().st_size == before, "it is not long"
    file.shorten_log(10, restart)  # type: ignore[arg-type]
    assert log.stat().st_size == (before if stays else 0)
    fill(file)
    assert log.stat().st_size < 1.5 * before


def test_unused_pages_are_given_back_but_for_the_spare_ones(file: WalFile, tmp_path: Path) -> None:
    fill(file)
    with file.transaction() as connection:
        connection.execute("DELETE FROM notes")
    while file.give_back(50, spare=60):
        pass
    assert 10 <= file.writer.execute("PRAGMA freelist_count").fetchone()[0] <= 60
    assert file.give_back(50)
    while file.give_back(50):
        pass
    file.shorten_log(0, "TRUNCATE")
    assert (tmp_path / "file.sqlite").stat().st_size < 50_000


def test_closed_file_is_an_error_and_is_given_free(tmp_path: Path) -> None:
    closed: list[str] = []
    file = WalFile(tmp_path / "a", connect(tmp_path / "a", 0.1), timeout=0.1, closed=lambda: closed.append("now"))
    with file.closing() as connection:
        connection.execute("CREATE TABLE kept (text TEXT)")
        assert closed == []
    assert closed == ["now"]
    for use in (file.transaction, file.reading):
        with pytest.raises(sqlite3.ProgrammingError), use():
            pass


def test_session_needs_no_package_of_a_server_for_its_spool() -> None:
    program = "import sys, petif_bluesky.spool; print('filelock' in sys.modules, 'tango' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "False False\n"


def test_all_connections_are_closed_if_one_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = tmp_path / "file.sqlite", []

    def connect_once(path: Path, timeout: float) -> sqlite3.Connection:
        if opened:
            raise sqlite3.OperationalError("unable to open database file")
        opened.append(connect(path, timeout))
        return opened[0]

    writer = connect(path, 0.1)
    monkeypatch.setattr("tango_server.sqlite.wal_file.connect", connect_once)
    with pytest.raises(sqlite3.OperationalError):
        WalFile(path, writer, timeout=0.1)
    for connection in (writer, *opened):
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
