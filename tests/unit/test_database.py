"""The file of the ledger: one server, this version, nothing damaged, and nothing lost with an unclean end."""

import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tango_server.jobs.database import Database, LedgerBusyError, LedgerDamagedError, LedgerError
from tango_server.jobs.ledger import Ledger
from tests.unit.full_disk import no_file_grows_beyond
from tests.unit.ledger_entries import accept, entry, finish, pending_ids, report

PAGE = 4096
WITH_LIMITS = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of file sizes")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[[], Database]]:
    """Open the ledger; closed in the end."""
    databases: list[Database] = []

    def open_() -> Database:
        databases.append(Database(path))
        return databases[-1]

    yield open_
    for database in databases:
        database._connection.close()


def left_behind(path: Path, folder: Path, *, cut: int = 0) -> Path:
    """Return a copy of the files of an open ledger: what `kill -9` leaves, its log `cut` bytes short."""
    folder.mkdir()
    log = path.with_name(path.name + "-wal")
    content = log.read_bytes() if log.exists() else b""
    (folder / log.name).write_bytes(content[: len(content) - cut])
    return Path(shutil.copy(path, folder))


def drop(database: Database) -> None:
    """End as a killed server does: all is written, nothing is marked."""
    database._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database._connection.close()


def fill(database: Database, jobs: int = 2000) -> None:
    Ledger(database).accept([entry(f"job-{number:05d}", metadata={"note": "x" * 100}) for number in range(jobs)])


def spoil(path: Path, page: int) -> None:
    """Overwrite one page of the file, as a failing disk does."""
    with path.open("r+b") as file:
        file.seek(page * PAGE)
        file.write(b"\xa5" * PAGE)


def asides(path: Path) -> list[Path]:
    return sorted(found for found in path.parent.iterdir() if ".damaged-" in found.name)


def test_the_folder_of_the_ledger_is_made(opened: Callable[[], Database], path: Path) -> None:
    assert opened().set_aside is None
    assert path.is_file()


def test_what_was_accepted_is_in_the_files_before_accept_returns(
    opened: Callable[[], Database], path: Path, tmp_path: Path
) -> None:
    accept(Ledger(opened()), "a", "b")
    copy = left_behind(path, tmp_path / "killed")
    with closing(sqlite3.connect(copy)) as plain:
        assert plain.execute("SELECT job_id FROM jobs ORDER BY number").fetchall() == [("a",), ("b",)]


def test_a_half_written_transaction_costs_only_itself(
    opened: Callable[[], Database], path: Path, tmp_path: Path
) -> None:
    ledger = Ledger(opened())
    accept(ledger, "a")
    accept(ledger, "b")
    with closing(Database(left_behind(path, tmp_path / "killed", cut=100))) as survivor:
        assert survivor.set_aside is None
        assert pending_ids(Ledger(survivor)) == ["a"]


def test_what_stands_before_a_damaged_place_of_the_log_is_kept(
    opened: Callable[[], Database], path: Path, tmp_path: Path
) -> None:
    ledger = Ledger(opened())
    for number in range(20):
        accept(ledger, f"{number:02d}")
    copy = left_behind(path, tmp_path / "killed")
    log = copy.with_name(copy.name + "-wal")
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 0xFF
    log.write_bytes(content)
    with closing(Database(copy)) as survivor:
        kept = pending_ids(Ledger(survivor))
        assert 0 < len(kept) < 20
        assert kept == [f"{number:02d}" for number in range(len(kept))]
        accept(Ledger(survivor), "new")


def test_all_of_a_transaction_is_written_or_nothing(opened: Callable[[], Database]) -> None:
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


def test_a_full_disk_refuses_in_words_and_writes_nothing_until_there_is_room(opened: Callable[[], Database]) -> None:
    database = opened()
    ledger = Ledger(database)
    accept(ledger, "a")
    pages = database._connection.execute("PRAGMA page_count").fetchone()[0]
    database._connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(LedgerBusyError, match=r"can't be written .*full.* Make room"):
        fill(database)
    with pytest.raises(LedgerBusyError):
        finish(ledger, report("a", reason="long " * 1_000))
    assert pending_ids(ledger) == ["a"]
    database._connection.execute("PRAGMA max_page_count=1000000")
    accept(ledger, "b")
    finish(ledger, report("a"))
    assert pending_ids(ledger) == ["b"]


@WITH_LIMITS
def test_a_disk_that_refuses_to_write_refuses_in_words_and_costs_nothing(opened: Callable[[], Database]) -> None:
    database = opened()
    accept(Ledger(database), "a")
    with no_file_grows_beyond(200_000), pytest.raises(LedgerBusyError, match="can't be written"):
        fill(database)
    accept(Ledger(database), "b")
    assert pending_ids(Ledger(database)) == ["a", "b"]


def test_a_closed_ledger_accepts_nothing(opened: Callable[[], Database]) -> None:
    database = opened()
    database.close()
    with pytest.raises(sqlite3.ProgrammingError):
        accept(Ledger(database), "a")


def test_a_second_server_is_refused_in_words_and_takes_over_when_the_first_one_has_ended(
    opened: Callable[[], Database], path: Path
) -> None:
    first = opened()
    accept(Ledger(first), "a")
    with pytest.raises(LedgerError, match=r"no other server uses.*End the other server") as caught:
        Database(path)
    assert str(path) in str(caught.value)
    accept(Ledger(first), "b")
    first.close()
    assert pending_ids(Ledger(opened())) == ["a", "b"]
    assert asides(path) == []


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_ledger_of_a_later_version_is_refused_and_left_as_it_is(path: Path, mode: str) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as plain:
        plain.execute(f"PRAGMA journal_mode={mode}")
        plain.execute("CREATE TABLE jobs (number INTEGER PRIMARY KEY, of_tomorrow TEXT)")
        plain.execute("PRAGMA user_version=3")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"version 3; expected 2 or an earlier.*Start the version") as caught:
        Database(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert [found.name for found in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("damage", ["garbage", "truncated", "a page of zeros at its start"])
def test_a_damaged_ledger_is_put_aside_and_a_new_one_is_begun(
    damage: str, opened: Callable[[], Database], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = opened()
    fill(database)
    database.close()
    content = path.read_bytes()
    broken = {
        "garbage": b"someone's notes " * 1000,
        "truncated": content[: len(content) // 3],
        "a page of zeros at its start": bytes(PAGE) + content[PAGE:],
    }[damage]
    path.write_bytes(broken)
    successor = opened()
    assert [successor.set_aside] == asides(path)
    assert asides(path)[0].read_bytes() == broken
    for words in (str(path), str(successor.set_aside), "damaged", "submit the folders again"):
        assert words in caplog.text
    assert pending_ids(Ledger(successor)) == []
    accept(Ledger(successor), "a")
    successor.close()
    again = opened()
    assert again.set_aside is None
    assert pending_ids(Ledger(again)) == ["a"]


def test_the_log_of_a_damaged_ledger_is_put_aside_with_it(
    opened: Callable[[], Database], path: Path, tmp_path: Path
) -> None:
    database = opened()
    fill(database)
    database._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    accept(Ledger(database), "in the log")
    copy = left_behind(path, tmp_path / "killed")
    log_before = copy.with_name(copy.name + "-wal").read_bytes()
    assert b"in the log" in log_before
    copy.write_bytes(b"someone's notes " * 1000)
    with closing(Database(copy)) as successor:
        aside = successor.set_aside
        assert aside is not None
        assert aside.with_name(aside.name + "-wal").read_bytes() == log_before


def test_two_ledgers_that_are_damaged_in_one_second_are_both_kept(path: Path) -> None:
    path.parent.mkdir()
    for number in range(5):
        path.write_bytes(f"notes of someone, number {number} ".encode() * 1000)
        Database(path).close()
    assert len({aside.read_bytes() for aside in asides(path)}) == 5


def test_damage_in_the_middle_is_found_at_the_start_after_an_unclean_end(
    opened: Callable[[], Database], path: Path
) -> None:
    database = opened()
    fill(database)
    drop(database)
    spoil(path, path.stat().st_size // PAGE // 2)
    successor = opened()
    assert [successor.set_aside] == asides(path)
    accept(Ledger(successor), "a")


def test_a_ledger_that_was_closed_cleanly_is_not_searched_for_damage_at_the_start(
    opened: Callable[[], Database], path: Path
) -> None:
    database = opened()
    fill(database)
    database.close()
    spoil(path, path.stat().st_size // PAGE // 2)
    assert opened().set_aside is None


def test_damage_that_shows_later_is_told_in_words_and_put_aside_at_the_next_start(
    opened: Callable[[], Database], path: Path
) -> None:
    database = opened()
    fill(database)
    database.close()
    pages = path.stat().st_size // PAGE
    for page in range(pages // 4, pages * 3 // 4):
        spoil(path, page)
    database = opened()
    with pytest.raises(LedgerDamagedError, match=r"ledger is damaged .* call Init") as caught:
        pending_ids(Ledger(database))
    assert str(path) in str(caught.value)
    database.close()
    assert opened().set_aside is not None


def test_what_can_not_be_opened_is_told_in_words_and_never_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.mkdir()
    with pytest.raises(LedgerError, match="can't be opened") as caught:
        Database(path)
    assert str(path) in str(caught.value)
    assert asides(path) == []


@WITH_LIMITS
def test_a_ledger_on_a_full_disk_is_told_in_words_and_never_put_aside(
    opened: Callable[[], Database], path: Path
) -> None:
    database = opened()
    accept(Ledger(database), "a")
    database.close()
    before = path.read_bytes()
    with no_file_grows_beyond(10), pytest.raises(LedgerError, match=r"can't be opened .*free space"):
        Database(path)
    assert asides(path) == []
    assert path.read_bytes() == before
    assert pending_ids(Ledger(opened())) == ["a"]
