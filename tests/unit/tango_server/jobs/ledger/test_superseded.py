"""Points that are taken again: the earlier frame leaves its group, wherever it is; and members with other darks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tango_server.jobs.job import NO_OUTPUT, Job
from tango_server.jobs.ledger.history import History
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.state_machine.events import Finish, Selection
from tango_server.messages import FrameReport, GroupReport, Outcome, ReportsQuery
from tango_server.recipe import Recipe
from tango_server.recipe.corrections import DARK_FACTS
from tests.unit.ledger_entries import job, pending_ids

COMBINE = {"of": "event", "method": "sum"}
SUM = Recipe.model_validate({"combine": COMBINE})


def member(name: str, group: str, place: int, members: int | None = None, **fields: Any) -> Job:
    """A member whose key is its job id."""
    one = job(name, "run", key=name, recipe=fields.pop("recipe", SUM), metadata=fields.pop("metadata", None))
    update = {"group": group, "member": place, "members": members, **fields}
    return replace(one, request=one.request.model_copy(update=update))


def without_group(name: str, **fields: Any) -> Job:
    """The job of a frame that is in no group, and is refused for that."""
    one = job(name, "run", key=name, recipe=SUM)
    request = one.request.model_copy(update=fields)
    return replace(one, request=request, output=NO_OUTPUT, refused="it is in no group: 'x' is NaN")


def whole(ledger: Ledger, group: str) -> Job:
    (found,) = (one for one in ledger.fetch(0, 100).jobs if one.is_group and one.group == group)
    return found


def combine(ledger: Ledger, group: str, outcome: Outcome = "converted") -> None:
    """Write the reports of a group and its pending members."""
    assert ledger.finish([finished(ledger, group, outcome)]) == frozenset()


def finished(ledger: Ledger, group: str, outcome: Outcome = "converted") -> Finish:
    """The reports of a group and its pending members."""
    of = whole(ledger, group)
    pending = [each.job for each in ledger.members_of(of).members if each.outcome is None]
    listed = tuple({"source": str(one.source), "outcome": "grouped"} for one in pending)
    report = GroupReport(
        job_id=of.job_id, source="x", output="/processed/a.tif", outcome=outcome, finished=2e9, run_uid="run",
        group=group, members=listed,
    )  # fmt: skip
    ending: Outcome = "grouped" if outcome == "converted" else "failed"
    members = tuple(
        Finish(FrameReport(job_id=one.job_id, source="x", outcome=ending, finished=2e9, **one.request.origin))
        for one in pending
    )
    return Finish(report, members=members)


def outcome_of(history: History, name: str) -> str:
    (report,), _ = history.reports(ReportsQuery(job_ids=[name]))
    return report.outcome


def in_groups(ledger: Ledger, group: str) -> list[tuple[str, str | None]]:
    return [(each.job.job_id, each.outcome) for each in ledger.members_of(whole(ledger, group)).members]


def numbers(history: History) -> dict[str, int]:
    found = history.run_statistics("run")
    names = ("submitted", "pending", "grouped", "superseded", "failed", "groups")
    return {name: count for name in names if (count := getattr(found, name))}


def test_a_pending_frame_leaves_the_group_of_its_point(ledger: Ledger, history: History) -> None:
    ledger.accept([member("a", "g", 0), member("b", "g", 1)])
    (booked,) = ledger.accept([member("again", "h", 0, supersedes="b")])
    assert (booked.superseded, booked.pending) == ({"b"}, 2)
    assert in_groups(ledger, "g") == [("a", None), ("b", "superseded")]
    assert in_groups(ledger, "h") == [("again", None)]
    assert numbers(history) == {"submitted": 3, "pending": 2, "superseded": 1}


def test_a_written_group_is_made_anew_without_the_frame(ledger: Ledger, history: History) -> None:
    ledger.accept([member("a", "g", 0, 2), member("b", "g", 1)])
    combine(ledger, "g")
    (booked,) = ledger.accept([member("again", "h", 0, 1, supersedes="a")])
    assert (booked.superseded, booked.pending) == (frozenset(), 4), "g with b, and h with its member"
    assert in_groups(ledger, "g") == [("a", "superseded"), ("b", None)]
    assert numbers(history) == {"submitted": 3, "pending": 2, "superseded": 1}
    assert whole(ledger, "g").settled == 1, "its place is not awaited"


def test_a_group_of_superseded_frames_alone_awaits_none(ledger: Ledger, history: History) -> None:
    ledger.accept([member("a", "g", 0, 1)])
    combine(ledger, "g")
    (booked,) = ledger.accept([member("again", "h", 0, 1, supersedes="a")])
    assert booked.pending == 3
    assert (whole(ledger, "g").settled, in_groups(ledger, "g")) == (1, [("a", "superseded")])
    assert outcome_of(history, "a") == "superseded"


def test_a_group_that_lost_a_frame_is_written_once(ledger: Ledger, history: History) -> None:
    ledger.accept([member("a", "g", 0, 3), member("b", "g", 1), member("c", "g", 2)])
    ledger.accept([member("again", "h", 0, 1, supersedes="b")])
    combine(ledger, "g")
    assert numbers(history) == {"submitted": 4, "pending": 1, "grouped": 2, "superseded": 1, "groups": 1}


def test_a_larger_number_is_noticed_beside_a_place_that_was_left(ledger: Ledger) -> None:
    ledger.accept([member("a", "g", 0, 2), member("b", "g", 1), member("again", "h", 0, 1, supersedes="b")])
    step = finished(ledger, "g")
    ledger.close_groups({"g": 3})
    assert ledger.finish([step]) == {step.report.job_id, "a"}


def test_a_frame_superseded_while_its_report_is_written_has_its_group_repeated(
    ledger: Ledger, history: History
) -> None:
    ledger.accept([member("a", "g", 0, 2), member("b", "g", 1)])
    step = finished(ledger, "g")
    (booked,) = ledger.accept([member("again", "h", 0, 1, supersedes="b")])
    assert booked.superseded == {"b"}
    assert ledger.finish([step]) == {step.report.job_id, "a", "b"}, "none of these reports is written"
    assert outcome_of(history, "b") == "superseded"
    combine(ledger, "g")
    assert numbers(history) == {"submitted": 3, "pending": 1, "grouped": 1, "superseded": 1, "groups": 1}


def test_a_group_that_is_made_anew_knows_its_earlier_output(ledger: Ledger) -> None:
    ledger.accept([member("b", "g", 1, 2), member("a", "g", 0)])
    assert whole(ledger, "g").output == Path("/processed/b.tif")
    combine(ledger, "g")
    ledger.accept([member("again", "h", 0, 1, supersedes="a")])
    assert whole(ledger, "g").output == Path("/processed/a.tif")
    assert [each.job.output.name for each in ledger.members_of(whole(ledger, "g")).members] == ["a.tif", "b.tif"]


def test_an_output_that_was_not_reported_is_known_too(ledger: Ledger) -> None:
    ledger.accept([member("a", "g", 0, 2), member("b", "g", 1)])
    step = finished(ledger, "g")
    other = replace(step, report=step.report.model_copy(update={"output": "/processed/other.tif"}))
    ledger.accept([member("again", "g", 0, supersedes="a")])
    assert ledger.finish([other]) == {step.report.job_id, "a", "b"}
    assert whole(ledger, "g").output == Path("/processed/other.tif")


def test_an_emptied_group_may_get_frames_again(ledger: Ledger, history: History) -> None:
    ledger.accept([member("a", "g", 0, 1), member("b", "h", 0, 1, supersedes="a")])
    combine(ledger, "g", "superseded")
    assert numbers(history) == {"submitted": 2, "pending": 1, "superseded": 1}
    (booked,) = ledger.accept([member("c", "g", 1, 2)])
    assert booked.pending == 2
    assert (whole(ledger, "g").settled, in_groups(ledger, "g")) == (1, [("a", "superseded"), ("c", None)])


def test_a_failed_frame_without_a_group_is_superseded(ledger: Ledger, history: History) -> None:
    ledger.accept([without_group("a")])
    (booked,) = ledger.accept([member("again", "g", 0, supersedes="a")])
    assert (booked.superseded, booked.pending) == (frozenset(), 2)
    assert numbers(history) == {"submitted": 2, "pending": 1, "superseded": 1}
    assert ledger.retry_failed().jobs == 0


def test_a_later_frame_without_a_group_supersedes_too(ledger: Ledger, history: History) -> None:
    ledger.accept([member("a", "g", 0, 1), without_group("c")])
    combine(ledger, "g")
    booked = ledger.accept([without_group("again", supersedes="a"), without_group("d", supersedes="c")])
    assert [each.pending for each in booked] == [1, 0], "the group is made anew"
    assert [outcome_of(history, name) for name in "ac"] == ["superseded"] * 2
    assert numbers(history) == {"submitted": 4, "superseded": 2, "failed": 2, "pending": 1}


def test_a_failed_group_is_made_anew_without_the_frame(ledger: Ledger, history: History) -> None:
    ledger.accept([member("a", "g", 0, 2), member("b", "g", 1)])
    combine(ledger, "g", "failed")
    (booked,) = ledger.accept([member("again", "h", 0, 1, supersedes="b")])
    assert booked.pending == 4
    assert in_groups(ledger, "g") == [("a", None), ("b", "superseded")]
    assert numbers(history) == {"submitted": 3, "pending": 2, "superseded": 1}


@pytest.mark.parametrize("is_written", [False, True])
def test_the_same_place_is_taken_over(ledger: Ledger, history: History, is_written: bool) -> None:
    ledger.accept([member("a", "g", 0, 1)])
    if is_written:
        combine(ledger, "g")
    (booked,) = ledger.accept([member("again", "g", 0, 1, supersedes="a")])
    assert booked.superseded == (frozenset() if is_written else {"a"})
    assert in_groups(ledger, "g") == [("again", None)]
    assert (whole(ledger, "g").settled, ledger.pending()) == (0, 2)
    assert numbers(history) == {"submitted": 2, "pending": 1, "superseded": 1}


def test_a_place_within_the_group_may_change(ledger: Ledger) -> None:
    ledger.accept([member("a", "g", 0), member("b", "g", 1)])
    ledger.accept([member("again", "g", 2, supersedes="a")])
    assert in_groups(ledger, "g") == [("a", "superseded"), ("b", None), ("again", None)]


def test_a_request_that_comes_twice_supersedes_once(ledger: Ledger, history: History) -> None:
    ledger.accept([member("a", "g", 0, 1)])
    again = member("again", "h", 0, 1, supersedes="a")
    ledger.accept([again])
    combine(ledger, "h")
    assert [each.new for each in ledger.accept([again])] == [False]
    assert numbers(history) == {"submitted": 2, "grouped": 1, "superseded": 1, "groups": 1, "pending": 1}
    assert pending_ids(ledger) == [whole(ledger, "g").job_id]


def test_an_unknown_frame_supersedes_nothing(ledger: Ledger) -> None:
    (booked,) = ledger.accept([member("again", "g", 0, supersedes="never came")])
    assert (booked.superseded, booked.pending) == (frozenset(), 2)


def test_a_superseded_frame_is_neither_cancelled_nor_retried(ledger: Ledger, history: History) -> None:
    ledger.accept([member("a", "g", 0, 1), member("again", "h", 0, 1, supersedes="a")])
    ledger.cancel(Selection(run_uid="run"), (), 2e9)
    assert ledger.retry_failed().jobs == 0
    assert (outcome_of(history, "a"), outcome_of(history, "again")) == ("superseded", "skipped")


def dark_recipe(*paths: str, **fields: Any) -> Recipe:
    corrections = {"dark": list(paths), **fields}
    return Recipe.model_validate({"combine": COMBINE, "corrections": corrections})


@pytest.mark.parametrize(
    ("recipe", "facts", "refused"),
    [
        (dark_recipe("/raw/dark2.tif"), True, False),
        (dark_recipe("/raw/dark1.tif", "/raw/dark2.tif"), True, False),
        (dark_recipe("/raw/dark2.tif"), False, True),
        (dark_recipe("/raw/dark2.tif", saturation=9), True, True),
        (SUM, True, True),
        (Recipe.model_validate({"combine": {"of": "event", "method": "mean"}}), True, True),
    ],
)
def test_members_of_a_run_may_have_other_darks(ledger: Ledger, recipe: Recipe, facts: bool, refused: bool) -> None:
    known: dict[str, object] = {DARK_FACTS: {}}
    first = member("a", "g", 0, recipe=dark_recipe("/raw/dark1.tif"), metadata=known)
    ledger.accept([first])
    (booked,) = ledger.accept([member("b", "g", 1, recipe=recipe, metadata=known if facts else {})])
    assert ("another recipe" in booked.refused) == refused
    if not refused:
        found = [each.job.recipe for each in ledger.members_of(whole(ledger, "g")).members]
        assert found == [first.recipe, recipe], "each keeps its own"


def test_a_superseded_frame_has_no_output_to_flush(ledger: Ledger, history: History) -> None:
    """Its report as a placeholder had one."""
    ledger.accept([member("a", "g", 0, 1)])
    step = finished(ledger, "g", "placeholder")
    (one,) = step.members
    told = one.report.model_copy(update={"outcome": "placeholder", "output": "/processed/a.tif"})
    ledger.finish([replace(step, members=(replace(one, report=told),))])
    assert {job_id for job_id, _ in history.unsynced(10)} == {"a", step.report.job_id}
    ledger.accept([member("again", "g", 0, supersedes="a")])
    assert history.unsynced(10) == []
