"""A damaged ledger is put aside, with all that belongs to it, and never one that is only out of reach."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tango_server.jobs.ledger.database import Database, LedgerDamagedError
from tango_server.jobs.ledger.ledger import Ledger
from tests.unit.ledger_entries import accept, pending_ids
from tests.unit.ledger_files import PAGE, asides, drop, fill, left_behind, spoil


@pytest.mark.parametrize("damage", ["garbage", "truncated", "a page of zeros at its start"])
def test_damaged_ledger_is_put_aside_and_a_new_one_begun(
    damage: str, opened: Callable[[], Database], ledger_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = opened()
    fill(database)
    database.close()
    content = ledger_path.read_bytes()
    broken = {
        "garbage": b"someone's notes " * 1000,
        "truncated": content[: len(content) // 3],
        "a page of zeros at its start": bytes(PAGE) + content[PAGE:],
    }[damage]
    ledger_path.write_bytes(broken)
    successor = opened()
    assert [successor.set_aside] == asides(ledger_path)
    assert asides(ledger_path)[0].read_bytes() == broken
    for words in (str(ledger_path), str(successor.set_aside), "damaged", "submit their folders again"):
        assert words in caplog.text
    assert pending_ids(Ledger(successor)) == []
    accept(Ledger(successor), "a")
    successor.close()
    again = opened()
    assert again.set_aside is None
    assert pending_ids(Ledger(again)) == ["a"]


def test_the_log_of_a_damaged_ledger_is_put_aside_with_it(
    opened: Callable[[], Database], ledger_path: Path, tmp_path: Path
) -> None:
    database = opened()
    fill(database)
    database._file.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    accept(Ledger(database), "in the log")
    copy = left_behind(ledger_path, tmp_path / "killed")
    log_before = copy.with_name(copy.name + "-wal").read_bytes()
    assert b"in the log" in log_before
    copy.write_bytes(b"someone's notes " * 1000)
    with closing(Database(copy)) as successor:
        aside = successor.set_aside
        assert aside is not None
        assert aside.with_name(aside.name + "-wal").read_bytes() == log_before


def test_ledgers_damaged_in_one_second_are_all_kept(ledger_path: Path) -> None:
    ledger_path.parent.mkdir()
    for number in range(5):
        ledger_path.write_bytes(f"notes of someone, number {number} ".encode() * 1000)
        Database(ledger_path).close()
    assert len({aside.read_bytes() for aside in asides(ledger_path)}) == 5


@pytest.mark.parametrize("clean", [False, True], ids=["unclean end", "clean end"])
def test_damage_in_the_middle_is_searched_after_an_unclean_end(
    opened: Callable[[], Database], ledger_path: Path, clean: bool
) -> None:
    database = opened()
    fill(database)
    if clean:
        database.close()
    else:
        drop(database)
    spoil(ledger_path, ledger_path.stat().st_size // PAGE // 2)
    successor = opened()
    if clean:
        assert successor.set_aside is None
    else:
        assert [successor.set_aside] == asides(ledger_path)
        accept(Ledger(successor), "a")


def test_later_damage_is_an_error_and_put_aside_at_next_start(
    opened: Callable[[], Database], ledger_path: Path
) -> None:
    database = opened()
    fill(database, 2000)
    database.close()
    pages = ledger_path.stat().st_size // PAGE
    for page in range(pages // 4, pages * 3 // 4):
        spoil(ledger_path, page)
    database = opened()
    with pytest.raises(LedgerDamagedError, match=r"ledger is damaged: .* call Init") as caught:
        pending_ids(Ledger(database))
    assert str(ledger_path) in str(caught.value)
    database.close()
    assert opened().set_aside is not None
