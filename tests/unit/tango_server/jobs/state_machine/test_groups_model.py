"""Groups on a real ledger, their world in any order: no member is lost, no group is written early or twice."""

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from tango_server.jobs.job import Job
from tango_server.jobs.ledger.booking import Booked
from tango_server.jobs.ledger.groups import is_group_id
from tango_server.jobs.ledger.history import History
from tango_server.jobs.state_machine.events import (
    Accepted,
    Assemble,
    AttemptDone,
    AttemptFailed,
    Cancel,
    Cancelled,
    CancelWanted,
    Convert,
    FailuresRetried,
    Fetch,
    Finish,
    GroupsClosed,
    Instant,
    Instruction,
    Observe,
    Observed,
    Requeued,
    Selection,
    Superseded,
    TimePassed,
    Written,
)
from tango_server.jobs.state_machine.rules import ServiceRules
from tango_server.messages import FrameReport, GroupReport, Outcome, ReportsQuery
from tango_server.recipe import Recipe
from tests.unit.ledger_entries import job
from tests.unit.service_events import COMPLETE, UNFINISHED
from tests.unit.service_world import ServiceWorld

GROUPS = ("g0", "g1", "g2")
TIMEOUT = 1000.0
KINDS_OF_MEMBERS = {"final", "not_ready"}
SUM = Recipe.model_validate({"combine": {"of": "event", "method": "sum", "timeout": TIMEOUT}})


class GroupWorld(ServiceWorld):
    """Members of a few groups, whose points are taken again."""

    def __init__(self) -> None:
        super().__init__()
        self.accepted: dict[str, tuple[str, int]] = {}
        """The groups and places of members, by job id."""
        self.left: set[str] = set()
        """Members whose points were taken again elsewhere."""
        self.numbers: dict[str, int] = {}
        self.changed: set[str] = set()
        """Groups in which something has happened since they were last converted."""
        self.cancelled: set[str] = set()

    @initialize(workers=st.integers(1, 2), placeholders=st.booleans())
    def start(self, workers: int, placeholders: bool) -> None:
        self.rules = ServiceRules(workers=workers, placeholders=placeholders, attempts=2)
        self.open()

    def open(self) -> None:
        self.conversions: list[Convert] = []
        self.changed = set(GROUPS)
        super().open()

    def do(self, step: Instruction) -> None:
        match step:
            case Fetch(after, limit):
                self.inbox.append(self.ledger.fetch(after, limit))
            case Assemble(one):
                self.inbox.append(self.ledger.members_of(one))
            case Observe(one):
                assert one.job_id not in {other.job_id for other in self.looks}
                self.looks.append(one)
            case Convert(one):
                assert one.is_group, "a member is never converted by itself"
                assert one.group in self.changed, "nothing has happened since it was converted"
                self.changed.discard(one.group)  # what comes during the conversion counts for the next one
                self.conversions.append(step)
            case Finish(report):
                self.finish(step, report)
            case Cancel(_, selection, spared):
                gone = self.ledger.cancel(selection, spared, self.now)
                self.cancelled |= gone
                self.changed |= {self.accepted[job_id][0] for job_id in gone if job_id in self.accepted}
                self.inbox.append(Cancelled(len(gone), gone, sum(map(is_group_id, gone))))

    def finish(self, step: Finish, report: FrameReport) -> None:
        assert isinstance(report, GroupReport)
        group = str(report.group)
        requeued = self.ledger.finish([step])
        job_ids = frozenset(str(one.report.job_id) for one in (step, *step.members))
        self.inbox.append(Written(job_ids - requeued))
        if requeued:
            self.inbox.append(Requeued(requeued))
            self.changed.add(group)
            return
        on_ledger = self.ledger.members_of(job_of_group(group)).members
        assert all(each.outcome is not None for each in on_ledger), "a member is still pending"
        vacant = [each for each in on_ledger if each.outcome == "superseded"]
        on_ledger = tuple(each for each in on_ledger if each.outcome != "superseded")
        assert {each.job.job_id for each in on_ledger} == self.current(group), "a member was lost"
        known = [each.source for each in report.members if not each.source.startswith("frame ")]
        assert known == [str(each.job.source) for each in on_ledger]
        assert len(report.members) + len(vacant) >= self.numbers.get(group, 0), "it was written early"

    def current(self, group: str) -> set[str]:
        """The members that no later one has taken the place of, here or elsewhere."""
        latest = {place: job_id for job_id, (named, place) in self.accepted.items() if named == group}
        return set(latest.values()) - self.left

    @rule(
        group=st.sampled_from(GROUPS), places=st.lists(st.integers(0, 3), min_size=1, max_size=4), known=st.booleans()
    )
    def accept(self, group: str, places: list[int], known: bool) -> None:
        members = 4 if known else None
        jobs = [member(f"m{len(self.accepted) + number}", group, place, members) for number, place in enumerate(places)]
        booked = self.ledger.accept(jobs)
        self.accepted |= {one.job_id: (group, place) for one, place in zip(jobs, places, strict=True)}
        self.changed.add(group)
        if known:
            self.numbers[group] = 4
        self.note(booked)

    @precondition(lambda self: self.accepted)
    @rule(data=st.data(), group=st.sampled_from(GROUPS), place=st.integers(0, 3))
    def take_again(self, data: st.DataObject, group: str, place: int) -> None:
        earlier = data.draw(st.sampled_from(sorted(self.accepted)))
        one = member(f"m{len(self.accepted)}", group, place, None, supersedes=earlier)
        if self.accepted[earlier] != (group, place):
            self.left.add(earlier)
        booked = self.ledger.accept([one])
        self.changed |= {group, self.accepted[earlier][0]}
        self.accepted[one.job_id] = group, place
        self.note(booked)

    def note(self, booked: list[Booked]) -> None:
        for superseded in [each.superseded for each in booked if each.superseded]:
            self.inbox.append(Superseded(superseded))
        self.inbox.append(Accepted(sum(each.pending for each in booked)))

    @rule(group=st.sampled_from(GROUPS), number=st.integers(1, 5))
    def close(self, group: str, number: int) -> None:
        closed = self.ledger.close_groups({group: number})
        assert (group in closed.unknown) == (group not in {named for named, _ in self.accepted.values()})
        if closed.unknown:
            return
        self.numbers[group] = max(number, self.numbers.get(group, 0))
        self.changed.add(group)
        if closed.reopened:
            self.inbox.append(Accepted(closed.reopened))
        if closed.pending:
            self.inbox.append(GroupsClosed(closed.pending))

    def hear(self) -> None:
        event = self.inbox[0]
        if isinstance(event, Cancelled | Superseded):
            self.looks = [one for one in self.looks if one.job_id not in event.job_ids]
        super().hear()

    @precondition(lambda self: self.looks)
    @rule(data=st.data(), found=st.lists(st.sampled_from(["new", "new", "same", "unfinished", "none"]), min_size=1))
    def look(self, data: st.DataObject, found: list[str]) -> None:
        for finding in found[: len(self.looks)]:
            self.looked(self.looks.pop(data.draw(st.integers(0, len(self.looks) - 1))), finding)

    def looked(self, one: Job, found: str) -> None:
        self.mtime += found == "new"
        state = {"unfinished": UNFINISHED, "none": None}.get(found, replace(COMPLETE, mtime_ns=self.mtime))
        self.send(Observed(one.job_id, state))

    @precondition(lambda self: self.conversions)
    @rule(data=st.data())
    def convert(self, data: st.DataObject) -> None:
        self.converted(self.conversions.pop(data.draw(st.integers(0, len(self.conversions) - 1))))

    def converted(self, step: Convert) -> None:
        outcome: Outcome = "converted" if step.members else "superseded"
        report = FrameReport(source=str(step.job.source), output="/processed/x.tif", outcome=outcome, finished=0.0)
        self.send(AttemptDone(step.job.job_id, report))

    @precondition(lambda self: self.conversions)
    @rule(data=st.data(), kind=st.sampled_from(["final", "not_ready", "blocked", "crashed", "unavailable", "away"]))
    def fail(self, data: st.DataObject, kind: Any) -> None:
        step = self.conversions.pop(data.draw(st.integers(0, len(self.conversions) - 1)))
        there = [number for number, part in enumerate(step.members) if part.job is not None]
        if not there and kind == "not_ready":  # of a group that has lost all its frames, nothing is awaited
            kind = "crashed"
        chosen = data.draw(st.sets(st.sampled_from(there), min_size=1)) if there and kind in KINDS_OF_MEMBERS else set()
        self.changed.add(step.job.group)
        self.send(AttemptFailed(step.job.job_id, kind, "it went wrong", dict.fromkeys(chosen, "damaged")))

    @rule(data=st.data(), what=st.sampled_from(["cancel", "cancel all", "retry", "retry", "die"]))
    def intervene(self, data: st.DataObject, what: str) -> None:
        match what:
            case "cancel" if self.accepted:
                chosen = data.draw(st.sets(st.sampled_from(sorted(self.accepted)), max_size=3))
                self.send(CancelWanted("ticket", Selection(tuple(chosen))))
            case "cancel all":
                self.send(CancelWanted("ticket", Selection()))
            case "retry" if self.accepted:
                query = ReportsQuery(job_ids=sorted(self.accepted), outcome="failed")
                failed = History(self.database).reports(query)[0]
                retried = self.ledger.retry_failed()
                assert retried.frames == len(failed)
                self.changed |= {str(each.group) for each in failed}
                self.inbox.append(FailuresRetried(retried.jobs))
            case "die":
                self.open()

    @invariant()
    def what_is_converted_is_what_the_service_started(self) -> None:
        if not hasattr(self, "service") or self.inbox:
            return
        assert {one.job_id for one in self.service.running_jobs()} == {step.job.job_id for step in self.conversions}

    def come_to_an_end(self) -> None:
        """All files are there, every conversion goes well: every group is written, with all its members."""
        for _ in range(40 + 12 * len(self.accepted)):
            while self.inbox:
                self.hear()
            for one in self.looks[:]:
                self.looks.remove(one)
                self.looked(one, "new")
            for step in self.conversions[:]:
                self.conversions.remove(step)
                self.converted(step)
            self.now = max(self.now, self.service.next_poll or 0.0)
            self.send(TimePassed())
        assert self.ledger.pending() == 0
        assert self.service.snapshot(Instant(self.now, 0.0)).queue_length == 0
        assert len(self.service._groups.groups) == 0


def member(job_id: str, group: str, place: int, members: int | None, supersedes: str | None = None) -> Job:
    one = job(job_id, "run", recipe=SUM, key=job_id)
    update = {"group": group, "member": place, "members": members, "supersedes": supersedes}
    return replace(one, request=one.request.model_copy(update=update))


def job_of_group(group: str) -> Job:
    one = member("any", group, 0, None)
    return replace(one, request=one.request.model_copy(update={"member": None}))


GroupWorld.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestGroupsInTheirWorld = GroupWorld.TestCase
