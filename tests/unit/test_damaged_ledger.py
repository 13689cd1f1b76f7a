"""A damaged ledger is put aside, with all that belongs to it, and never one that is only out of reach."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tango_server.jobs.database import Database, LedgerDamagedError
from tango_server.jobs.ledger import Ledger
from tests.unit.ledger_entries import accept, pending_ids
from tests.unit.ledger_files import PAGE, asides, close_files, drop, fill, left_behind, spoil


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
        close_files(database)


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
