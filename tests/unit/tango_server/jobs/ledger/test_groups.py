"""Groups on the ledger: a row of their own, numbers, members that are late, retried or superseded, and reports."""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

from tango_server.jobs.job import Job
from tango_server.jobs.ledger.database import Database
from tango_server.jobs.ledger.groups import is_group_id
from tango_server.jobs.ledger.history import History
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.state_machine.events import Finish, Selection
from tango_server.messages import FrameReport, GroupReport, Outcome, ReportsQuery
from tango_server.recipe import Recipe
from tests.unit.ledger_entries import Stopwatch, job, pending_ids, prune, refused_job

SUM = Recipe.model_validate({"combine": {"of": "event", "method": "sum"}})
MEAN = Recipe.model_validate({"combine": {"of": "event", "method": "mean"}})


def member(
    job_id: str, place: int, members: int | None = None, *, run: str = "run", recipe: Recipe = SUM, group: str = "g"
) -> Job:
    one = job(job_id, run, recipe=recipe)
    request = one.request.model_copy(update={"group": group, "member": place, "members": members})
    return replace(one, request=request)


def group_of(ledger: Ledger) -> Job:
    (found,) = (one for one in ledger.fetch(0, 100).jobs if one.is_group)
    return found


def combine(ledger: Ledger, outcome: Outcome = "converted", member_outcome: Outcome = "grouped") -> frozenset[str]:
    """Write the reports of the group and its pending members."""
    whole = group_of(ledger)
    entries = [each for each in ledger.members_of(whole).members if each.outcome is None]
    report = GroupReport(
        job_id=whole.job_id, source=str(whole.source), output="/processed/a.tif", outcome=outcome, finished=2e9,
        run_uid="run", group="g", members=tuple({"source": "x", "outcome": "grouped"} for _ in entries),
    )  # fmt: skip
    members = tuple(
        Finish(
            FrameReport(job_id=each.job.job_id, source="x", outcome=member_outcome, finished=2e9, **origin(each.job))
        )
        for each in entries
    )
    return ledger.finish([Finish(report, members=members)])


def origin(one: Job) -> dict[str, object]:
    return one.request.origin


def test_a_group_is_made_with_its_first_member(ledger: Ledger) -> None:
    first, second = ledger.accept([member("a", 0, 2), member("b", 1)])
    assert (first.pending, second.pending) == (2, 1)
    whole = group_of(ledger)
    assert is_group_id(whole.job_id)
    assert (whole.request.members, whole.source, whole.settled) == (2, Path("/raw/a.tif"), 0)
    assert [each.job.job_id for each in ledger.members_of(whole).members] == ["a", "b"]
    assert pending_ids(ledger) == [whole.job_id, "a", "b"]


def test_the_number_of_members_only_grows_and_is_durable(ledger: Ledger, database: Database) -> None:
    ledger.accept([member("a", 0, 3)])
    for number in (5, 2):
        ledger.close_groups({"g": number})
    assert group_of(Ledger(database)).request.members == 5


def test_members_with_another_recipe_run_or_stream_are_refused(ledger: Ledger, history: History) -> None:
    (_, other, elsewhere) = ledger.accept([
        member("a", 0), member("b", 1, recipe=MEAN), member("c", 1, run="another"),
    ])  # fmt: skip
    assert "another recipe than" in other.refused
    assert "another run than" in elsewhere.refused
    assert [each.job.job_id for each in ledger.members_of(group_of(ledger)).members] == ["a"]
    (report,), _ = history.reports(ReportsQuery(job_ids=["b"]))
    assert report.outcome == "failed"


def test_the_reports_of_group_and_members_come_at_once(ledger: Ledger, history: History) -> None:
    ledger.accept([member("a", 0, 2), member("b", 1)])
    whole = group_of(ledger).job_id
    assert combine(ledger) == frozenset()
    reports, pending = history.reports(ReportsQuery(run_uid="run"))
    assert ([report.job_id for report in reports], pending) == ([whole, "a", "b"], 0)
    assert isinstance(reports[0], GroupReport)
    assert len(reports[0].members) == 2
    found = history.run_statistics("run")
    assert (found.submitted, found.grouped, found.groups, found.converted, found.pending) == (2, 2, 1, 0, 0)


def test_a_group_that_has_changed_is_not_written(ledger: Ledger, history: History) -> None:
    ledger.accept([member("a", 0, 1)])
    whole = group_of(ledger)
    report = GroupReport(
        job_id=whole.job_id, source="x", outcome="converted", finished=2e9, group="g",
        members=({"source": "x", "outcome": "grouped"},),
    )  # fmt: skip
    step = Finish(report, members=(Finish(FrameReport(job_id="a", source="x", outcome="grouped", finished=2e9)),))
    ledger.accept([member("b", 1)])
    assert ledger.finish([step]) == {whole.job_id, "a"}
    assert history.run_statistics("run").pending == 2
    assert pending_ids(ledger) == ["b", whole.job_id, "a"], "what was read is at the end of the queue again"
    ledger.accept([member("c", 2)])
    ledger.close_groups({"g": 9})
    assert combine(ledger) == {whole.job_id, "a", "b", "c"}, "the number has grown"


def test_a_late_member_makes_all_pending_again(ledger: Ledger, history: History) -> None:
    ledger.accept([member("a", 0, 2), member("b", 1)])
    combine(ledger)
    (booked,) = ledger.accept([member("c", 2)])
    assert booked.pending == 4
    assert history.run_statistics("run").pending == 3
    assert [each.outcome for each in ledger.members_of(group_of(ledger)).members] == [None] * 3


def test_a_retried_member_makes_its_group_and_others_pending(ledger: Ledger) -> None:
    ledger.accept([member("a", 0, 2), member("b", 1), job("alone", "run")])
    combine(ledger, "failed", "failed")
    retried = ledger.retry_failed()
    assert (retried.frames, retried.jobs) == (2, 3)
    assert ledger.pending() == 4
    assert ledger.retry_failed().jobs == 0


def test_a_later_member_of_a_place_supersedes_the_earlier(ledger: Ledger, history: History) -> None:
    ledger.accept([member("a", 0, 1)])
    (booked,) = ledger.accept([member("again", 0)])
    assert booked.superseded == {"a"}
    assert [each.job.job_id for each in ledger.members_of(group_of(ledger)).members] == ["again"]
    combine(ledger)
    (last,) = ledger.accept([member("last", 0)])
    assert (last.superseded, last.pending) == (frozenset(), 2)
    found = history.run_statistics("run")
    assert (found.submitted, found.superseded, found.pending) == (3, 2, 1)


def test_closing_groups_names_unknown_ones_and_reopens_grown_ones(ledger: Ledger) -> None:
    ledger.accept([member("a", 0, 1)])
    assert ledger.close_groups({"nobody": 1}).unknown == ["nobody"]
    assert ledger.close_groups({"g": 1}).pending == {"g": 1}
    combine(ledger)
    same, larger = ledger.close_groups({"g": 1}), ledger.close_groups({"g": 2})
    assert (same.pending, same.reopened) == ({}, 0)
    assert (larger.pending, larger.reopened) == ({"g": 2}, 2)


def test_a_cancelled_group_takes_its_members_with_it(ledger: Ledger) -> None:
    ledger.accept([member("a", 0, 2), member("b", 1), job("other")])
    whole = group_of(ledger).job_id
    assert ledger.cancel(Selection((whole,)), (), 2e9) == {whole, "a", "b"}
    assert pending_ids(ledger) == ["other"]


def test_a_group_without_members_left_is_cancelled_too(ledger: Ledger) -> None:
    ledger.accept([member("a", 0, 2), member("b", 1)])
    whole = group_of(ledger).job_id
    assert ledger.cancel(Selection(("a",)), (), 2e9) == {"a"}
    assert ledger.cancel(Selection(("b",)), (), 2e9) == {"b", whole}


def test_a_refused_member_counts_in_its_group(ledger: Ledger) -> None:
    refused = refused_job("b", "run")
    request = refused.request.model_copy(update={"group": "g", "member": 1, "recipe": SUM})
    ledger.accept([member("a", 0, 2), replace(refused, request=request)])
    whole = group_of(ledger)
    assert whole.settled == 1
    assert [each.outcome for each in ledger.members_of(whole).members] == [None, "failed"]


def test_a_group_whose_report_cannot_be_written_ends_with_its_members(ledger: Ledger, history: History) -> None:
    ledger.accept([member("a", 0, 2), member("b", 1)])
    ledger.set_aside(group_of(ledger).job_id, "cannot write the report", 2e9)
    found = history.run_statistics("run")
    assert (found.failed, found.groups_failed, found.pending) == (2, 1, 0)


def test_a_group_is_pruned_with_its_members(ledger: Ledger, history: History, stopwatch: Stopwatch) -> None:
    ledger.accept([member("a", 0, 2), member("b", 1)])
    combine(ledger)
    stopwatch.now += 100.0
    ledger.accept([member("c", 0, group="h")])
    prune(history, kept_for=1e9, limit=2)
    found = history.run_statistics("run")
    assert (found.submitted, found.groups) == (1, 0)


def test_lost_outputs_of_groups_are_made_again_from_all_members(ledger: Ledger, history: History) -> None:
    ledger.accept([member("a", 0, 2), member("b", 1)])
    combine(ledger)
    assert history.reopen_unsynced() == 1
    ledger.reopen_lost_groups()
    assert sorted(pending_ids(ledger))[:2] == ["a", "b"]
    assert ledger.pending() == 3


def test_a_ledger_without_the_columns_of_groups_gets_them(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    Database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP INDEX jobs_of_group")
        connection.execute("DROP INDEX jobs_groups")
        for column in ("group_id", "member"):
            connection.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
    connection.close()
    database = Database(path)
    ledger = Ledger(database)
    ledger.accept([job("plain"), member("a", 0, 1)])
    assert ledger.pending() == 3
    with database.reading() as opened:
        (text,) = opened.execute("SELECT request FROM jobs WHERE job_id='plain'").fetchone()
    assert "group" not in json.loads(text)
    database.close()
