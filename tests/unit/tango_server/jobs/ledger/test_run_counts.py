"""What was announced of a run's documents, on the ledger."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tango_server.jobs.ledger.database import Database
from tango_server.jobs.ledger.history import History, UnknownIdError
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.messages import RunStatistics
from tests.unit.ledger_entries import finish, job, prune, report

LARGEST = 2**63 - 1


def rows_of_counts(database: Database) -> int:
    with database.reading() as connection:
        count: int = connection.execute("SELECT count(*) FROM run_counts").fetchone()[0]
    return count


def test_counts_announce_a_run_and_never_decrease(ledger: Ledger, history: History) -> None:
    ledger.accept([], run_counts={"run-1": {"primary": (3, 2), "dark": (0, LARGEST)}, "run-2": {}})
    assert history.run_statistics("run-1").run_counts == {"primary": (3, 2), "dark": (0, LARGEST)}
    assert history.run_statistics("run-2") == RunStatistics(run_uid="run-2")
    ledger.accept([job("a", "run-1")], run_counts={"run-1": {"primary": (2, 4), "fly": (7, 7)}})
    found = history.run_statistics("run-1")
    assert found.run_counts == {"primary": (3, 4), "dark": (0, LARGEST), "fly": (7, 7)}
    assert found.submitted == 1


def test_counts_are_written_together_with_the_jobs(ledger: Ledger, history: History) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        ledger.accept([job("a", "run-1"), job("a", "run-1")], run_counts={"run-1": {"primary": (1, 1)}})
    with pytest.raises(UnknownIdError):
        history.run_statistics("run-1")


def test_counts_go_with_their_run(database: Database, ledger: Ledger, history: History) -> None:
    counts = {uid: {"primary": (1, 1), "dark": (1, 1)} for uid in ("frames", "empty", "pending")}
    ledger.accept([job("a", "frames"), job("b", "pending")], run_counts=counts)
    finish(ledger, report("a"))
    prune(history, -1.0)
    with pytest.raises(UnknownIdError):
        history.run_statistics("frames")
    assert history.run_statistics("pending").run_counts == counts["pending"]
    assert rows_of_counts(database) == 2


def test_counts_survive_a_restart(ledger: Ledger, database: Database, tmp_path: Path) -> None:
    ledger.accept([], run_counts={"run": {"primary": (1, 2)}})
    copy = tmp_path / "killed.sqlite"
    for suffix in ("", "-wal"):
        Path(f"{copy}{suffix}").write_bytes(Path(f"{database.path}{suffix}").read_bytes())
    with closing(Database(copy)) as again:
        assert History(again).run_statistics("run").run_counts == {"primary": (1, 2)}


def test_ledger_of_an_earlier_program_gets_its_table(tmp_path: Path) -> None:
    path = tmp_path / "earlier.sqlite"
    with closing(Database(path)) as database:
        Ledger(database).accept([job("a", "run")])
    with closing(sqlite3.connect(path)) as earlier, earlier:
        earlier.execute("DROP TRIGGER run_counts_pruned")
        earlier.execute("DROP TABLE run_counts")
    with closing(Database(path)) as database:
        Ledger(database).accept([], run_counts={"run": {"primary": (1, 1)}})
        found = History(database).run_statistics("run")
    assert (found.submitted, found.run_counts) == (1, {"primary": (1, 1)})
