"""Reports, statistics of runs, and what is on disk for sure."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tango_server.jobs.ledger.database import Database
from tango_server.jobs.ledger.history import _LATEST, _LATEST_OF, _REPORTS_AFTER, History, UnknownIdError
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.state_machine.events import Finish
from tango_server.messages import FrameReport, Outcome, PixelCounts, ReportsQuery, RunStatistics
from tests.unit.ledger_entries import ACCEPTED, XDI, Stopwatch, accept, finish, job, pending_ids, report


def test_a_report_comes_back_as_it_was_written(ledger: Ledger, history: History) -> None:
    written = FrameReport(
        job_id="a", source="/raw/a.tif", output="/processed/a.tif", outcome="converted", reason="\u00b5m \u03a9",
        shape=(2048, 1024), pixel_type="int32", pixels=PixelCounts(nan=1, saturated_high=2, minimum=-0.5, maximum=7.25),
        sidecar="carried", conversion_time=0.1, latency=0.3, accepted=1.7e9, finished=1.7e9 + 0.3, recipe_hash=XDI.hash,
        run_uid="run-1", stream="primary", seq_num=3, bytes_in=16_777_354, bytes_out=8_388_746, pages=2,
    )  # fmt: skip
    ledger.accept([job("a", "run-1")])
    finish(ledger, written)
    assert history.reports(ReportsQuery(job_ids=["a"])) == ([written], 0)


@pytest.fixture
def mixed(ledger: Ledger, history: History, stopwatch: Stopwatch) -> History:
    """Of run-1: a converted, b failed, c pending, d converted, e skipped; of run-2: f converted."""
    ledger.accept([job(name, "run-1") for name in "abcde"])
    ledger.accept([job("f", "run-2")], ["run-3"])
    finish(ledger, report("e", "skipped"), report("d"), report("f"))
    stopwatch.now += 1
    finish(ledger, report("a"), report("b", "failed", reason="broken"))
    return history


QUERIES = {
    "run": (ReportsQuery(run_uid="run-1"), "abde"),
    "outcome": (ReportsQuery(run_uid="run-1", outcome="converted"), "ad"),
    "no such outcome": (ReportsQuery(run_uid="run-1", outcome="placeholder"), ""),
    "limit": (ReportsQuery(run_uid="run-1", limit=2), "ab"),
    "outcome and limit": (ReportsQuery(run_uid="run-1", outcome="converted", limit=1), "a"),
    "as finished": (ReportsQuery(run_uid="run-1", after=""), "deab"),
    "first finished": (ReportsQuery(run_uid="run-1", after="", limit=2), "de"),
    "after one": (ReportsQuery(run_uid="run-1", after="e"), "ab"),
    "after the last": (ReportsQuery(run_uid="run-1", after="b"), ""),
    "outcome after one": (ReportsQuery(run_uid="run-1", after="e", outcome="failed"), "b"),
    "after one that has none": (ReportsQuery(run_uid="run-1", after="c"), "deab"),
    "jobs": (ReportsQuery(job_ids=["f", "a", "b", "c"]), "fab"),
    "outcome of jobs": (ReportsQuery(job_ids=["a", "b", "c"], outcome="failed"), "b"),
    "limit of jobs": (ReportsQuery(job_ids=["a", "c", "b"], limit=1), "a"),
    "latest": (ReportsQuery(latest=True), "defab"),
    "limit of latest": (ReportsQuery(latest=True, limit=2), "ab"),
    "outcome of latest": (ReportsQuery(latest=True, outcome="converted", limit=2), "fa"),
}


def test_reports_come_in_order_with_the_number_still_pending(mixed: History) -> None:
    for name, (query, expected) in QUERIES.items():
        found, pending = mixed.reports(query)
        assert ([one.job_id for one in found], pending) == (list(expected), 1), name
    assert mixed.reports(ReportsQuery(job_ids=[])) == ([], 0)
    assert mixed.reports(ReportsQuery(run_uid="run-3")) == ([], 0)
    assert mixed.run_statistics("run-3") == RunStatistics(run_uid="run-3")


def test_unknown_ids_are_errors_that_name_them(mixed: History) -> None:
    with pytest.raises(UnknownIdError, match=r"'x' \(2 of 4 are unknown\).*pruned"):
        mixed.reports(ReportsQuery(job_ids=["a", "x", "b", "y"]))
    with pytest.raises(UnknownIdError, match=r"'run-4'.*not announced.*pruned"):
        mixed.run_statistics("run-4")
    with pytest.raises(UnknownIdError, match="'run-4'"):
        mixed.reports(ReportsQuery(run_uid="run-4"))
    for foreign in ("x", "f"):
        with pytest.raises(UnknownIdError, match=f"after: unknown job id '{foreign}' in run 'run-1'.*pruned"):
            mixed.reports(ReportsQuery(run_uid="run-1", after=foreign))


def test_new_reports_of_a_long_run_are_found_by_index(database: Database) -> None:
    with database.reading() as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {_REPORTS_AFTER}", ("run", None, None, 1.0, 1, 10)).fetchall()
    assert [row[3] for row in plan] == ["SEARCH jobs USING INDEX jobs_finished_of_run (run_uid=? AND age>?)"]


def test_reports_of_more_jobs_than_a_statement_has_variables(ledger: Ledger, history: History) -> None:
    names = [f"j{number:04d}" for number in range(1201)]
    accept(ledger, *names)
    finish(ledger, *(report(name) for name in names[:-1]))
    found, pending = history.reports(ReportsQuery(job_ids=names, limit=5000))
    assert [one.job_id for one in found] == names[:-1]
    assert pending == 1


@pytest.mark.parametrize("frames", [0, 1, 2, 19, 20, 21, 150, 1500])
def test_run_statistics_match_an_independent_calculation(frames: int, ledger: Ledger, history: History) -> None:
    random = np.random.default_rng(frames)
    choices: list[Outcome | None] = ["converted", "skipped", "placeholder", "failed", None]
    outcomes = [choices[choice] for choice in random.choice(5, frames, p=[0.6, 0.1, 0.1, 0.1, 0.1])]
    times, latencies = random.exponential(0.1, frames), random.exponential(1.0, frames)
    finished, sizes = ACCEPTED + random.uniform(1, 99, frames), random.integers(0, 2**40, (frames, 2))
    timed = random.random(frames) < 0.9
    names = [f"j{number}" for number in range(frames)]
    ledger.accept([job(name, "run-1") for name in names] + [job("other", "run-2")], ["run-1"])
    ledger.finish(
        [
            Finish(
                report(
                    name, outcome, conversion_time=float(times[number]), finished=float(finished[number]),
                    latency=float(latencies[number]) if timed[number] else None,
                    bytes_in=int(sizes[number, 0]), bytes_out=int(sizes[number, 1]),
                ),
                None,
            )
            for number, (name, outcome) in enumerate(zip(names, outcomes, strict=True))
            if outcome is not None
        ]
    )  # fmt: skip
    found = history.run_statistics("run-1")
    done = np.array([outcome == "converted" for outcome in outcomes], dtype=bool)
    assert (found.submitted, found.pending) == (frames, outcomes.count(None))
    assert (found.converted, found.skipped) == (done.sum(), outcomes.count("skipped"))
    assert (found.placeholders, found.failed) == (outcomes.count("placeholder"), outcomes.count("failed"))
    assert found.conversion_time_total == pytest.approx(times[done].sum())
    assert found.conversion_time_mean == pytest.approx(times[done].mean() if done.any() else 0.0)
    told = latencies[done & timed]
    for value, percent in ((found.latency_median, 50), (found.latency_p95, 95)):
        assert value == (np.percentile(told, percent, method="inverted_cdf") if told.size else 0.0)
    assert (found.bytes_in, found.bytes_out) == tuple(sizes[done].sum(axis=0))
    rate = sizes[done, 0].sum() / (finished[done].max() - ACCEPTED) if done.any() else 0.0
    assert found.bytes_per_second == pytest.approx(rate)


def test_only_new_outputs_are_unsynced_until_marked(ledger: Ledger, history: History) -> None:
    accept(ledger, *"abcdefg")
    in_place = report("c", output="/raw/c.tif")
    nowhere = report("g", output=None)
    finish(ledger, report("b"), report("a", "placeholder"), in_place, report("d", "failed"), report("e", "skipped"))
    finish(ledger, nowhere)
    assert history.unsynced(10) == [("a", Path("/processed/a.tif")), ("b", Path("/processed/b.tif"))]
    assert history.unsynced(1) == [("a", Path("/processed/a.tif"))]
    history.mark_synced(["a"])
    assert history.unsynced(10) == [("b", Path("/processed/b.tif"))]


def test_unsynced_outputs_are_pending_after_a_power_loss(ledger: Ledger, history: History) -> None:
    ledger.accept([job(name, "run-1") for name in "abcd"])
    finish(ledger, report("b"), report("c"), report("a"))
    history.mark_synced(["b"])
    history.mark_doubtful(["c"])
    assert [job_id for job_id, _ in history.unsynced(10)] == ["a"]
    assert history.reopen_unsynced() == 2
    assert pending_ids(ledger) == ["a", "c", "d"]
    assert history.run_statistics("run-1").converted == 1
    finish(ledger, report("a"), report("c"))
    assert [job_id for job_id, _ in history.unsynced(10)] == ["a", "c"]


@pytest.mark.parametrize("statement", [_LATEST, _LATEST_OF], ids=["of all", "of an outcome"])
def test_latest_reports_are_found_without_sorting_all(database: Database, statement: str) -> None:
    with database.reading() as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", (1,) * statement.count("?")).fetchall()
    assert "INDEX jobs_" in str(plan)
    assert "B-TREE" not in str(plan)


def test_a_missing_index_is_made_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "earlier.sqlite"
    first = Database(path)
    ledger = Ledger(first)
    accept(ledger, "a", "b")
    finish(ledger, report("a"), report("b", "failed"))
    first.close()
    with closing(sqlite3.connect(path)) as earlier, earlier:
        earlier.execute("DROP INDEX jobs_of_outcome")
    second = Database(path)
    with second.reading() as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='index'")}
    found, _ = History(second).reports(ReportsQuery(latest=True, outcome="failed"))
    second.close()
    assert "jobs_of_outcome" in names
    assert [each.job_id for each in found] == ["b"]
