"""The file of the ledger: one server, this version, and nothing lost with an unclean end or a full disk."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tango_server.jobs.ledger import database as database_module
from tango_server.jobs.ledger.database import Database, LedgerBusyError, LedgerError
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.sqlite import sole_owner
from tests.unit.full_disk import no_file_grows_beyond
from tests.unit.ledger_entries import accept, finish, pending_ids, report
from tests.unit.ledger_files import asides, fill, left_behind

WITH_LIMITS = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of file sizes")


def test_accepted_jobs_are_in_the_files_before_accept_returns(
    opened: Callable[[], Database], ledger_path: Path, tmp_path: Path
) -> None:
    database = opened()
    assert database.set_aside is None
    assert ledger_path.is_file(), "its folder is made"
    accept(Ledger(database), "a")
    accept(Ledger(database), "b")
    with closing(sqlite3.connect(left_behind(ledger_path, tmp_path / "killed"))) as plain:
        assert plain.execute("SELECT job_id FROM jobs ORDER BY number").fetchall() == [("a",), ("b",)]
    with closing(Database(left_behind(ledger_path, tmp_path / "torn", cut=100))) as survivor:
        assert survivor.set_aside is None
        assert pending_ids(Ledger(survivor)) == ["a"], "a half-written transaction costs only itself"


def test_log_before_its_damaged_place_is_kept(
    opened: Callable[[], Database], ledger_path: Path, tmp_path: Path
) -> None:
    ledger = Ledger(opened())
    for number in range(20):
        accept(ledger, f"{number:02d}")
    copy = left_behind(ledger_path, tmp_path / "killed")
    log = copy.with_name(copy.name + "-wal")
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 0xFF
    log.write_bytes(content)
    with closing(Database(copy)) as survivor:
        kept = pending_ids(Ledger(survivor))
        assert 0 < len(kept) < 20
        assert kept == [f"{number:02d}" for number in range(len(kept))]
        accept(Ledger(survivor), "new")


def test_transactions_are_atomic(opened: Callable[[], Database]) -> None:
    database = opened()

    def fail_midway() -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO kept VALUES ('name', 'value')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_midway()
    assert Ledger(database).kept("name") is None
    Ledger(database).keep("name", "later")
    assert Ledger(database).kept("name") == "later"


def test_full_disk_is_an_error_until_there_is_room(opened: Callable[[], Database]) -> None:
    database = opened()
    ledger = Ledger(database)
    accept(ledger, "a")
    pages = database._file.writer.execute("PRAGMA page_count").fetchone()[0]
    database._file.writer.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(LedgerBusyError, match=r"cannot write the ledger: .*full.* free space"):
        fill(database)
    with pytest.raises(LedgerBusyError):
        finish(ledger, report("a", reason="long " * 1_000))
    assert pending_ids(ledger) == ["a"]
    database._file.writer.execute("PRAGMA max_page_count=1000000")
    accept(ledger, "b")
    finish(ledger, report("a"))
    assert pending_ids(ledger) == ["b"]


@WITH_LIMITS
def test_disk_that_refuses_to_write_is_an_error_and_costs_nothing(opened: Callable[[], Database]) -> None:
    database = opened()
    accept(Ledger(database), "a")
    with no_file_grows_beyond(200_000), pytest.raises(LedgerBusyError, match="cannot write the ledger"):
        fill(database)
    accept(Ledger(database), "b")
    assert pending_ids(Ledger(database)) == ["a", "b"]


def test_readers_see_one_committed_state(opened: Callable[[], Database]) -> None:
    database, count = opened(), "SELECT count(*) FROM jobs"
    ledger = Ledger(database)
    accept(ledger, "a")
    with database.reading() as connection:
        assert connection.execute(count).fetchone() == (1,)
        accept(ledger, "b")
        assert connection.execute(count).fetchone() == (1,)
    with database.reading() as connection:
        assert connection.execute(count).fetchone() == (2,)
    with database.transaction() as connection:
        connection.execute("DELETE FROM jobs")
        assert pending_ids(ledger) == ["a", "b"]
    assert pending_ids(ledger) == []


def test_the_log_moves_into_the_file_while_others_read_and_write(
    opened: Callable[[], Database], ledger_path: Path, tmp_path: Path
) -> None:
    database = opened()
    accept(Ledger(database), "moved")
    with database.reading(), database.transaction() as connection:
        connection.execute("INSERT INTO kept VALUES ('later', 'not committed')")
        database.shorten_log()
    copy = Path(shutil.copy(ledger_path, tmp_path / "alone.sqlite"))
    with closing(sqlite3.connect(copy)) as plain:
        assert plain.execute("SELECT job_id FROM jobs").fetchall() == [("moved",)]


def write_and_delete(database: Database) -> None:
    """Leave a log that is longer by some 100 pages, and nothing in the file."""
    fill(database)
    with database.transaction() as connection:
        connection.execute("DELETE FROM jobs")


def test_the_ledger_can_be_copied_while_the_server_runs(
    opened: Callable[[], Database], ledger_path: Path, tmp_path: Path
) -> None:
    ledger = Ledger(opened())
    accept(ledger, "a")
    copy = tmp_path / "copy.sqlite"
    with closing(sqlite3.connect(ledger_path)) as other:
        other.execute(f"VACUUM INTO '{copy}'")
    accept(ledger, "b")
    with closing(Database(copy)) as copied:
        assert pending_ids(Ledger(copied)) == ["a"]


def test_long_log_begins_anew_though_much_is_written_meanwhile(
    opened: Callable[[], Database], ledger_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_LONG_LOG", 25)
    database, log = opened(), ledger_path.with_name(ledger_path.name + "-wal")
    mover = database._file._mover

    class WritesMeanwhile:
        def execute(self, statement: str) -> sqlite3.Cursor:
            moved = mover.execute(statement)
            write_and_delete(database)
            return moved

    monkeypatch.setattr(database._file, "_mover", WritesMeanwhile())
    write_and_delete(database)
    once = log.stat().st_size
    for _ in range(4):
        database.shorten_log()
    assert log.stat().st_size < 2.5 * once
    monkeypatch.undo()


def test_neglected_log_is_shortened_by_a_commit(
    opened: Callable[[], Database], ledger_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_TOO_LONG_LOG", 25)
    database, log = opened(), ledger_path.with_name(ledger_path.name + "-wal")
    write_and_delete(database)
    once = log.stat().st_size
    for _ in range(3):
        write_and_delete(database)
    assert log.stat().st_size < 1.5 * once


def test_a_commit_is_on_the_disk_when_it_returns(ledger_path: Path) -> None:
    program = (
        "import pathlib, sys; from tango_server.jobs.ledger.database import Database; "
        "print(*Database(pathlib.Path(sys.argv[1]))._file.writer.execute('PRAGMA synchronous').fetchone())"
    )
    told = subprocess.run([sys.executable, "-c", program, ledger_path], capture_output=True, text=True, check=True)
    assert told.stdout == "2\n", "FULL, as SQLite counts"


def test_second_server_is_refused_until_the_first_has_ended(
    opened: Callable[[], Database], ledger_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened()
    accept(Ledger(first), "a")
    program = (
        "import pathlib, sys; from tango_server.jobs.ledger import database; "
        "from tango_server.sqlite import sole_owner; sole_owner.LOCK_TIMEOUT = 0.05; "
        "database.Database(pathlib.Path(sys.argv[1]))"
    )
    other = subprocess.run([sys.executable, "-c", program, ledger_path], capture_output=True, text=True, check=False)
    assert other.returncode == 1
    assert f"{ledger_path}: cannot open the ledger" in other.stderr
    assert "another process has it open" in other.stderr
    monkeypatch.setattr("tango_server.sqlite.sole_owner.LOCK_TIMEOUT", 0.05)
    with pytest.raises(LedgerError, match=r"another process has it open.*Stop any other server") as caught:
        Database(ledger_path)
    assert str(ledger_path) in str(caught.value)
    accept(Ledger(first), "b")
    first.close()
    with pytest.raises(sqlite3.ProgrammingError):
        accept(Ledger(first), "c")
    assert pending_ids(Ledger(opened())) == ["a", "b"]
    assert asides(ledger_path) == []


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_ledger_of_a_later_version_is_refused_and_left(ledger_path: Path, mode: str) -> None:
    ledger_path.parent.mkdir()
    with closing(sqlite3.connect(ledger_path)) as plain:
        plain.execute(f"PRAGMA journal_mode={mode}")
        plain.execute("CREATE TABLE jobs (number INTEGER PRIMARY KEY, of_tomorrow TEXT)")
        plain.execute("PRAGMA user_version=5")
    before = ledger_path.read_bytes()
    with pytest.raises(LedgerError, match=r"version 5, newer than 4.*Start the version") as caught:
        Database(ledger_path)
    assert str(ledger_path) in str(caught.value)
    assert ledger_path.read_bytes() == before
    assert {found.name for found in ledger_path.parent.iterdir()} == {ledger_path.name, f"{ledger_path.name}.lock"}


def test_what_cannot_be_opened_is_never_put_aside(tmp_path: Path) -> None:
    ledger_path = tmp_path / "ledger.sqlite"
    ledger_path.mkdir()
    with pytest.raises(LedgerError, match="cannot open the ledger") as caught:
        Database(ledger_path)
    assert str(ledger_path) in str(caught.value)
    assert asides(ledger_path) == []


@WITH_LIMITS
def test_ledger_on_a_full_disk_is_never_put_aside(opened: Callable[[], Database], ledger_path: Path) -> None:
    database = opened()
    accept(Ledger(database), "a")
    database.close()
    before = ledger_path.read_bytes()
    with no_file_grows_beyond(10), pytest.raises(LedgerError, match=r"cannot open the ledger: .*free space"):
        Database(ledger_path)
    assert asides(ledger_path) == []
    assert ledger_path.read_bytes() == before
    assert pending_ids(Ledger(opened())) == ["a"]


def test_a_ledger_of_before_is_made_to_shrink(ledger_path: Path, opened: Callable[[], Database]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sole_owner, "make_shrinkable", lambda *_: None)
        before = opened()
    assert before._file.writer.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    accept(Ledger(before), "a")
    before.close()
    now = opened()
    assert now._file.writer.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    assert pending_ids(Ledger(now)) == ["a"]
    assert asides(ledger_path) == []
