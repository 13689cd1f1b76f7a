"""Groups in the state machine: what is awaited, when a group is combined, and what its reports say."""

from dataclasses import replace
from pathlib import Path

import pytest

from tango_server.jobs.job import Job
from tango_server.jobs.state_machine.events import (
    Accepted,
    Assemble,
    Assembled,
    AttemptDone,
    AttemptFailed,
    Cancelled,
    CancelWanted,
    Convert,
    Fetched,
    Finish,
    GroupsClosed,
    Instruction,
    MemberEntry,
    Observed,
    Refused,
    RunsAnnounced,
    Selection,
    Superseded,
    TimePassed,
    Written,
)
from tango_server.jobs.state_machine.groups import OPEN_FOR
from tango_server.jobs.state_machine.machine import JobStateMachine
from tango_server.jobs.state_machine.rules import ServiceRules
from tango_server.messages import FrameReport, GroupReport
from tango_server.recipe import Recipe
from tests.unit.service_events import COMPLETE, at, job, looks, starts

SUM = Recipe.model_validate({"combine": {"of": "event", "method": "sum", "timeout": 10.0}})
GROUP = "group-1"


def member(place: int, name: str = "", members: int | None = None) -> Job:
    one = job(name or f"m{place}", "run-1", recipe=SUM)
    return replace(one, request=one.request.model_copy(update={"group": "g", "member": place, "members": members}))


def whole(members: int | None = None, *, resumed: bool = False, settled: int = 0) -> Job:
    one = member(0, GROUP, members)
    request = one.request.model_copy(update={"member": None})
    return replace(one, request=request, resumed=resumed, settled=settled)


class Room:
    """A service, and what it was given."""

    def __init__(self, rules: ServiceRules | None = None) -> None:
        self.service = JobStateMachine(rules or ServiceRules(workers=1))
        self.entries: dict[str, MemberEntry] = {}

    def fetch(self, *jobs: Job, seconds: float = 0.0) -> list[Instruction]:
        self.entries |= {one.job_id: MemberEntry(one) for one in jobs if one.is_member}
        self.service.handle(Accepted(len(jobs)), at(seconds))
        return self.service.handle(Fetched(jobs, frozenset(), 0), at(seconds))

    def ready(self, *names: str, seconds: float = 0.0) -> list[Instruction]:
        return [step for name in names for step in self.service.handle(Observed(name, COMPLETE), at(seconds))]

    def assemble(self, *others: MemberEntry, seconds: float = 0.0) -> list[Instruction]:
        members = tuple(sorted((*self.entries.values(), *others), key=lambda one: one.job.request.member or 0))
        return self.service.handle(Assembled(GROUP, members), at(seconds))

    def convert(self, seconds: float = 0.0, **fields: object) -> list[Instruction]:
        report = FrameReport(source="x", output="/processed/m0.tif", outcome="converted", finished=0.0)
        return self.service.handle(AttemptDone(GROUP, report.model_copy(update=fields)), at(seconds))

    def passes(self, seconds: float) -> list[Instruction]:
        return self.service.handle(TimePassed(), at(seconds))


def assembles(steps: list[Instruction]) -> bool:
    return any(isinstance(step, Assemble) for step in steps)


def outcomes(steps: list[Instruction]) -> dict[str, str]:
    (step,) = (step for step in steps if isinstance(step, Finish))
    return {str(one.report.job_id): one.report.outcome for one in (step, *step.members)}


@pytest.fixture
def room() -> Room:
    return Room()


def test_members_are_observed_and_held_and_only_the_group_converts(room: Room) -> None:
    assert looks(room.fetch(whole(2), member(0), member(1))) == ["m0", "m1"]
    assert not assembles(room.ready("m0"))
    assert room.service.snapshot(at(0)).queue_length == 3
    assert assembles(room.ready("m1"))
    steps = room.assemble()
    assert starts(steps) == [GROUP]
    assert [part.job and part.job.job_id for step in steps if isinstance(step, Convert) for part in step.members] == [
        "m0", "m1",
    ]  # fmt: skip
    assert outcomes(room.convert()) == {GROUP: "converted", "m0": "grouped", "m1": "grouped"}


def test_a_member_that_the_ledger_knows_of_is_awaited_first(room: Room) -> None:
    room.fetch(whole(2), member(0), member(1))
    room.ready("m0", "m1")
    assert starts(room.assemble(MemberEntry(member(2)))) == []
    room.fetch(member(2))
    assert assembles(room.ready("m2"))
    assert starts(room.assemble()) == [GROUP]


def test_an_open_group_waits_until_it_is_closed(room: Room) -> None:
    room.fetch(whole(), member(0))
    assert not assembles(room.ready("m0"))
    assert assembles(room.service.handle(GroupsClosed({"g": 1}), at(1)))


def test_a_closing_that_comes_before_its_group_is_kept(room: Room) -> None:
    room.service.handle(GroupsClosed({"g": 1}), at(0))
    room.fetch(whole(), member(0))
    assert assembles(room.ready("m0"))


def test_the_time_out_counts_from_the_last_member(room: Room) -> None:
    room.fetch(whole(), member(0))
    room.ready("m0")
    room.fetch(member(1), seconds=8.0)
    room.ready("m1", seconds=8.0)
    assert not assembles(room.passes(17.9))
    assert assembles(room.passes(18.0))


def test_an_announced_run_keeps_its_groups_open(room: Room) -> None:
    room.fetch(whole(), member(0))
    room.ready("m0")
    for seconds in (0.0, 60.0, 120.0):
        room.service.handle(RunsAnnounced(frozenset({"run-1"})), at(seconds))
        assert not assembles(room.passes(seconds + 59.0))
    assert assembles(room.passes(120.0 + OPEN_FOR))


def test_after_a_restart_a_session_has_time_to_announce_its_run(room: Room) -> None:
    room.fetch(whole(resumed=True), member(0))
    room.ready("m0")
    assert not assembles(room.passes(OPEN_FOR - 0.1))
    assert assembles(room.passes(OPEN_FOR))


def test_a_closed_group_with_a_missing_member_ends_by_time(room: Room) -> None:
    room.fetch(whole(), member(0))
    room.ready("m0")
    room.service.handle(RunsAnnounced(frozenset({"run-1"})), at(0))
    assert not assembles(room.service.handle(GroupsClosed({"g": 3}), at(0)))
    assert assembles(room.passes(10.0)), "its session has said that no more come"
    (step,) = (step for step in room.assemble(seconds=10.0) if isinstance(step, Convert))
    assert [part.problem for part in step.members] == ["", "no request came for it", "no request came for it"]


def fetch_one_of_every(room: Room, number: int) -> None:
    """Have a group of this number of frames with its first one only."""
    every = Recipe.model_validate({"combine": {"of": {"every": number}, "method": "sum", "timeout": 10.0}})
    room.fetch(
        *(replace(one, request=one.request.model_copy(update={"recipe": every})) for one in (whole(), member(0)))
    )


def test_every_n_frames_that_end_by_time_lack_those_that_never_came(room: Room) -> None:
    """The session that would have said how many the last group has was killed."""
    fetch_one_of_every(room, 3)
    room.ready("m0")
    assert assembles(room.passes(10.0))
    (step,) = (step for step in room.assemble(seconds=10.0) if isinstance(step, Convert))
    assert [part.problem for part in step.members] == ["", "no request came for it", "no request came for it"]


def test_number_that_a_session_tells_after_the_time_is_the_true_one(room: Room) -> None:
    fetch_one_of_every(room, 5)
    room.passes(10.0)
    room.service.handle(GroupsClosed({"g": 1}), at(10.0))
    room.ready("m0")
    (step,) = (step for step in room.assemble(seconds=10.0) if isinstance(step, Convert))
    assert [part.problem for part in step.members] == [""]


def test_failed_members_are_held_with_their_problems(room: Room) -> None:
    room.fetch(whole(2), member(0), member(1))
    room.ready("m0")
    assert assembles(room.service.handle(AttemptFailed("m1", "final", "outside the roots"), at(0)))
    (step,) = (step for step in room.assemble() if isinstance(step, Convert))
    assert ["outside the roots" in part.problem for part in step.members] == [False, True]
    steps = room.service.handle(AttemptFailed(GROUP, "final", "1 of 2 failed", {1: "outside the roots"}), at(0))
    (finish,) = (step for step in steps if isinstance(step, Finish))
    assert isinstance(finish.report, GroupReport)
    healthy, failed = finish.report.members
    assert healthy.reason.startswith("not combined: ")
    assert healthy.reason.endswith("1 of 2 failed")
    assert failed.reason == "outside the roots"
    assert outcomes(steps) == {GROUP: "failed", "m0": "failed", "m1": "failed"}


def test_a_member_that_was_not_ready_is_polled_again(room: Room) -> None:
    room.fetch(whole(2), member(0), member(1))
    room.ready("m0", "m1")
    room.assemble()
    steps = room.service.handle(AttemptFailed(GROUP, "not_ready", "it shrank", {1: "it shrank"}), at(1))
    assert looks(steps) == ["m1"]
    assert not assembles(room.ready("m1", seconds=2.0)), "the file is the one that was not complete"
    newer = replace(COMPLETE, mtime_ns=COMPLETE.mtime_ns + 1)
    assert assembles(room.service.handle(Observed("m1", newer), at(3.0)))


def test_a_member_that_comes_during_the_conversion_has_it_repeated(room: Room) -> None:
    room.fetch(whole(1), member(0))
    room.ready("m0")
    assert starts(room.assemble()) == [GROUP]
    room.fetch(member(1))
    assert not any(isinstance(step, Finish) for step in room.convert())
    assert assembles(room.ready("m1"))
    assert starts(room.assemble()) == [GROUP]
    assert outcomes(room.convert()) == {GROUP: "converted", "m0": "grouped", "m1": "grouped"}


def test_a_cancelled_member_is_not_waited_for(room: Room) -> None:
    room.fetch(whole(2), member(0), member(1))
    room.ready("m0")
    room.service.handle(CancelWanted("t", Selection(("m1",))), at(0))
    assert assembles(room.service.handle(Cancelled(1, frozenset({"m1"})), at(0)))
    del room.entries["m1"]
    (step,) = (
        step
        for step in room.assemble(MemberEntry(member(1), "skipped", "cancelled on request"))
        if isinstance(step, Convert)
    )
    assert [part.problem for part in step.members] == ["", "cancelled on request"]


def test_a_refused_member_is_not_waited_for(room: Room) -> None:
    room.fetch(whole(2), member(0))
    room.ready("m0")
    refusal = FrameReport(source="x", outcome="failed", reason="outside", finished=0.0, group="g", member=1)
    assert assembles(room.service.handle(Refused(refusal), at(0)))


def test_a_superseded_member_gives_way_to_the_later_one(room: Room) -> None:
    room.fetch(whole(2), member(0), member(1))
    room.ready("m0", "m1")
    room.assemble()
    room.service.handle(Superseded(frozenset({"m1"})), at(0))
    del room.entries["m1"]
    room.fetch(member(1, "again"))
    room.convert()
    assert assembles(room.ready("again"))
    room.assemble()
    assert outcomes(room.convert()) == {GROUP: "converted", "m0": "grouped", "again": "grouped"}


def test_a_superseded_member_that_was_not_read_yet_is_never_awaited(room: Room) -> None:
    room.service.handle(Superseded(frozenset({"m1"})), at(0))
    assert looks(room.fetch(whole(1), member(1))) == []
    assert room.service.snapshot(at(0)).superseded == 1


def vacated(place: int) -> MemberEntry:
    """A member that was superseded by a frame of another group."""
    return MemberEntry(member(place), "superseded", "a later frame took its place")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_place_of_a_frame_that_was_superseded_is_not_missing(room: Room, place: int) -> None:
    others = [number for number in range(3) if number != place]
    steps = room.fetch(whole(3, settled=1), *map(member, others))
    steps = room.ready(*(f"m{number}" for number in others))
    assert assembles(steps)
    (step,) = (step for step in room.assemble(vacated(place)) if isinstance(step, Convert))
    assert [(part.job and part.job.job_id, part.problem) for part in step.members] == [
        (f"m{number}", "") for number in others
    ]
    (finish,) = (step for step in room.convert() if isinstance(step, Finish))
    assert isinstance(finish.report, GroupReport)
    assert [each.outcome for each in finish.report.members] == ["grouped", "grouped"]
    assert step.job.source == Path(f"/raw/m{others[0]}.tif")


def test_another_place_may_be_missing_beside_it(room: Room) -> None:
    room.fetch(whole(3, settled=1), member(2))
    assert not assembles(room.ready("m2"))
    assert assembles(room.passes(10.0))
    (step,) = (step for step in room.assemble(vacated(0), seconds=10.0) if isinstance(step, Convert))
    assert [part.problem for part in step.members] == ["no request came for it", ""]


def test_problems_are_of_the_members_that_are_left(room: Room) -> None:
    room.fetch(whole(3, settled=1), member(1), member(2))
    room.ready("m1", "m2")
    room.assemble(vacated(0))
    steps = room.service.handle(AttemptFailed(GROUP, "final", "1 of 2 failed", {1: "cut off"}), at(1))
    (finish,) = (step for step in steps if isinstance(step, Finish))
    assert isinstance(finish.report, GroupReport)
    assert [(each.source, "cut off" in each.reason) for each in finish.report.members] == [
        ("/raw/m1.tif", False), ("/raw/m2.tif", True),
    ]  # fmt: skip


def test_a_group_of_superseded_frames_alone_ends_at_once(room: Room) -> None:
    assert assembles(room.fetch(whole(1, settled=1)))
    (step,) = (step for step in room.assemble(vacated(0)) if isinstance(step, Convert))
    assert (step.members, step.job.earlier) == ((), (Path(f"/processed/{GROUP}.tif"),)), "its output is to be removed"
    assert outcomes(room.convert(outcome="superseded")) == {GROUP: "superseded"}
    room.service.handle(Written(frozenset({GROUP})), at(0))
    snapshot = room.service.snapshot(at(0))
    assert (snapshot.queue_length, snapshot.groups, snapshot.groups_failed, snapshot.failed) == (0, 0, 0, 0)
    assert (snapshot.superseded, snapshot.processed) == (0, 0), "the frame was counted when it was superseded"


@pytest.mark.parametrize("held", [False, True])
def test_a_frame_in_memory_is_superseded_by_one_elsewhere(room: Room, held: bool) -> None:
    room.fetch(whole(2), member(0), member(1))
    room.ready("m0", *["m1"] * held)
    steps = room.service.handle(Superseded(frozenset({"m1"})), at(0))
    assert assembles(steps) != held, "it is read again, if it is not being read"
    del room.entries["m1"]
    steps = room.assemble(vacated(1))
    if held:
        assert starts(steps) == [GROUP]
    assert outcomes(room.convert()) == {GROUP: "converted", "m0": "grouped"}
    room.service.handle(Written(frozenset({GROUP, "m0"})), at(0))
    snapshot = room.service.snapshot(at(0))
    assert (snapshot.grouped, snapshot.superseded, snapshot.groups, snapshot.queue_length) == (1, 1, 1, 0)


def test_a_frame_that_is_superseded_while_its_group_is_read_is_not_awaited(room: Room) -> None:
    room.fetch(whole(2), member(0), member(1))
    assert assembles(room.ready("m0", "m1"))
    assert not assembles(room.service.handle(Superseded(frozenset({"m1"})), at(0)))
    assert assembles(room.assemble()), "it was read before"
    del room.entries["m1"]
    assert starts(room.assemble(vacated(1))) == [GROUP]


def test_a_frame_that_is_superseded_meanwhile_has_its_group_repeated(room: Room) -> None:
    room.fetch(whole(2), member(0), member(1))
    room.ready("m0", "m1")
    assert starts(room.assemble()) == [GROUP]
    room.service.handle(Superseded(frozenset({"m1"})), at(0))
    del room.entries["m1"]
    steps = room.convert()
    assert not any(isinstance(step, Finish) for step in steps)
    assert assembles(steps)
    assert starts(room.assemble(vacated(1))) == [GROUP]
    assert outcomes(room.convert()) == {GROUP: "converted", "m0": "grouped"}


def test_members_that_never_came_become_one_placeholder() -> None:
    room = Room(ServiceRules(workers=1, placeholders=True))
    room.fetch(whole(2), member(0), member(1))
    for name in ("m0", "m1"):
        room.service.handle(Observed(name, None), at(0))
    steps = [step for name in ("m0", "m1") for step in room.service.handle(Observed(name, None), at(400.0))]
    assert assembles(steps)
    (step,) = (step for step in room.assemble() if isinstance(step, Convert))
    assert step.placeholder == (2048, 2048)
    assert outcomes(room.convert(outcome="placeholder")) == dict.fromkeys((GROUP, "m0", "m1"), "placeholder")


def test_a_missing_member_beside_one_that_came_is_no_placeholder() -> None:
    room = Room(ServiceRules(workers=1, placeholders=True))
    room.fetch(whole(2), member(0), member(1))
    room.ready("m0")
    room.service.handle(Observed("m1", None), at(0))
    assert assembles(room.service.handle(Observed("m1", None), at(400.0)))
    (step,) = (step for step in room.assemble() if isinstance(step, Convert))
    assert step.placeholder is None


def test_groups_are_counted_apart_from_frames(room: Room) -> None:
    room.fetch(whole(2), member(0), member(1))
    room.ready("m0", "m1")
    room.assemble()
    (finish,) = (step for step in room.convert(conversion_time=0.5) if isinstance(step, Finish))
    assert finish.identity is None
    assert finish.members[0].identity == (COMPLETE.size, COMPLETE.mtime_ns)
    snapshot = room.service.snapshot(at(0))
    assert (snapshot.processed, snapshot.groups, snapshot.queue_length) == (0, 0, 3), "they count when they are written"
