"""The reports of all runs in the order of finishing."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tango_server.jobs.ledger import finish_order as module
from tango_server.jobs.ledger.database import Database
from tango_server.jobs.ledger.finish_order import FinishOrder
from tango_server.jobs.ledger.history import History, UnknownIdError
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.state_machine.events import Selection
from tango_server.messages import Outcome, ReportsQuery
from tests.unit.ledger_entries import ACCEPTED, Stopwatch, accept, finish, job, refused_job, report


class Follower:
    """A client that asks for what is new."""

    def __init__(self, database: Database, position: str = "now", limit: int = 1000) -> None:
        self._order = FinishOrder(database)
        self._limit = limit
        self.position = position
        self.new()

    def new(self, outcome: Outcome | None = None) -> list[tuple[str | None, str]]:
        """Return the job ids and outcomes of the next reports."""
        query = ReportsQuery(latest=True, after=self.position, limit=self._limit, outcome=outcome)
        answer = self._order.reports_after(query)
        self.position = answer.position
        return [(each.job_id, each.outcome) for each in answer.reports]

    def all_new(self, outcome: Outcome | None = None) -> Iterator[tuple[str | None, str]]:
        """Yield them page by page."""
        while page := self.new(outcome):
            yield from page


@pytest.fixture
def follower(database: Database, ledger: Ledger, stopwatch: Stopwatch) -> Follower:
    """One that has read all so far: a failed, then b and c converted; d is pending."""
    ledger.accept([job(name, f"run-{name}") for name in "abcd"])
    finish(ledger, report("a", "failed"))
    stopwatch.now += 1
    finish(ledger, report("c"), report("b"))
    return Follower(database)


def test_only_new_reports_of_all_runs_are_given(follower: Follower, ledger: Ledger, stopwatch: Stopwatch) -> None:
    assert follower.new() == []
    stopwatch.now += 1
    finish(ledger, report("d"))
    assert follower.new() == [("d", "converted")]
    assert follower.new() == []


@pytest.mark.parametrize("job_id", ["a", "b"])
def test_retried_jobs_are_given_again(job_id: str, database: Database, ledger: Ledger, stopwatch: Stopwatch) -> None:
    """Also the job whose report was read last."""
    ledger.accept([job(name, f"run-{name}") for name in "abcd"])
    for name in "ab":
        stopwatch.now += 1
        finish(ledger, report(name, "failed"))
    follower = Follower(database)
    ledger.retry_failed()
    assert follower.new() == []
    stopwatch.now += 1
    finish(ledger, report("c"))
    stopwatch.now += 1
    finish(ledger, report(job_id))
    assert follower.new() == [("c", "converted"), (job_id, "converted")]


def test_cancelled_refused_and_set_aside_jobs_are_given(
    follower: Follower, ledger: Ledger, stopwatch: Stopwatch
) -> None:
    for finishing in (
        lambda: ledger.cancel(Selection(), (), ACCEPTED),
        lambda: ledger.accept([refused_job("refused", "run-r"), job("e")]),
        lambda: ledger.set_aside("e", "why", ACCEPTED),
    ):
        stopwatch.now += 1
        finishing()
    assert follower.new() == [("d", "skipped"), ("refused", "failed"), ("e", "failed")]


def test_outputs_lost_with_the_power_are_given_again(
    follower: Follower, history: History, ledger: Ledger, stopwatch: Stopwatch
) -> None:
    assert history.reopen_unsynced() == 2
    stopwatch.now += 1
    finish(ledger, report("b"))
    assert follower.new() == [("b", "converted")]


@pytest.mark.parametrize("outcome", [None, "converted"])
def test_pages_give_each_report_once(outcome: Outcome | None, database: Database, ledger: Ledger) -> None:
    """Although many have finished at the same time."""
    names = [f"{number:03d}" for number in range(100)]
    accept(ledger, *names)
    for start in range(0, 100, 50):
        finish(ledger, *(report(name, finished=ACCEPTED + 1 - start) for name in names[start : start + 50]))
    follower = Follower(database, "", limit=7)
    follower.position = ""
    assert [job_id for job_id, _ in follower.all_new(outcome)] == [*names[50:], *names[:50]]


def test_position_of_an_empty_ledger_is_before_the_first_report(database: Database, ledger: Ledger) -> None:
    follower = Follower(database)
    assert follower.position == ""
    accept(ledger, "a")
    finish(ledger, report("a"))
    assert follower.new() == [("a", "converted")]


def test_position_survives_pruning_and_a_restart(
    follower: Follower, database: Database, history: History, tmp_path: Path
) -> None:
    assert history.prune(-1.0, 10**9) == 3
    assert follower.new() == []
    copy = tmp_path / "killed.sqlite"
    database.keep_age()
    for suffix in ("", "-wal"):
        Path(f"{copy}{suffix}").write_bytes(Path(f"{database.path}{suffix}").read_bytes())
    with closing(Database(copy)) as again:
        accept(Ledger(again), "later")
        finish(Ledger(again), report("later"))
        assert Follower(again, follower.position).position != follower.position


@pytest.mark.parametrize("position", ["a", "1,2", "x,1.0,1", "nan,1.0,1", "inf,1.0,1", "1e9,1.0,1", "1.0,1.0,x"])
def test_position_of_another_ledger_is_unknown(position: str, database: Database) -> None:
    with pytest.raises(UnknownIdError, match=f"after: '{position}'"):
        Follower(database, position)


@pytest.mark.parametrize("statement", ["_AFTER", "_AFTER_OF", "_NEWEST"])
def test_reports_are_found_without_reading_or_sorting_all(database: Database, statement: str) -> None:
    text = getattr(module, statement)
    with database.reading() as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {text}", (1,) * text.count("?")).fetchall()
    assert "INDEX jobs_" in str(plan)
    assert "B-TREE" not in str(plan)
    assert statement == "_NEWEST" or "(age,finished)>(?,?)" in str(plan)


def test_age_is_taken_within_the_transaction(tmp_path: Path) -> None:
    """Else a report might get an earlier place than one that was committed, and read, before it."""
    within: list[bool] = []

    def clock() -> float:
        within.append(bool(databases) and databases[0]._file.writer.in_transaction)
        return 1.0

    databases: list[Database] = []
    with closing(Database(tmp_path / "ledger.sqlite", clock)) as database:
        ledger = Ledger(database)
        accept(ledger, "a")
        databases.append(database)
        within.clear()
        finish(ledger, report("a"))
        assert within == [True]
