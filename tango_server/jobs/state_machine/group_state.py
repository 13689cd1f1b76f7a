"""The state of one group: its members in memory, how it is put together, and its reports."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from tango_server.conversion.files.naming import named_by
from tango_server.jobs.job import Job, Part
from tango_server.jobs.state_machine.events import Finish, Instant, MemberEntry
from tango_server.messages import FrameReport, GroupMember, GroupReport, Outcome
from tango_server.recipe import NewFile
from tango_server.recipe.combine import Every

NO_PROBLEMS: Mapping[int, str] = {}
_NEVER_CAME = "no request came for it"


@dataclass(frozen=True, slots=True)
class Held:
    """A member that waits for the others: its file is complete, or it has failed for `problem`.

    `identity`: of its file, as in `Wait`. `missing`: the file never came.
    """

    identity: tuple[int, int, int] | None
    problem: str = ""
    missing: bool = False


@dataclass(slots=True)
class GroupState:
    """A group that is not written yet. Instants by the monotonic clock, in s.

    `number` of its members, 0 while that is unknown; `closed`: a client has said so. `awaited`, `held`: its members in
    memory. `settled`: how many of its members on the ledger have ended, such as cancelled ones. `last`: when the last
    member came. `expired`: no more members are awaited; `complete`: a client has said that none will come. `entries`:
    its members when it was assembled, `vacant`: the places of those that were superseded by frames elsewhere.
    """

    job: Job | None = None
    number: int = 0
    closed: bool = False
    awaited: set[str] = field(default_factory=set)
    held: dict[str, Held] = field(default_factory=dict)
    settled: int = 0
    last: float = 0.0
    expired: bool = False
    complete: bool = False
    recheck: bool = False
    phase: Literal["gathering", "assembling", "assembled"] = "gathering"
    entries: tuple[MemberEntry, ...] = ()
    vacant: frozenset[int] = frozenset()

    @property
    def is_due(self) -> bool:
        """Whether it may be complete, so that its members are to be read from the ledger."""
        if self.job is None or self.awaited or self.phase != "gathering":
            return False
        reached = 0 < self.number <= len(self.held) + self.settled
        return reached or self.expired or self.complete or self.recheck

    @property
    def has_changed(self) -> bool:
        """Whether a member has come or gone since it was assembled."""
        return bool(self.awaited) or self.held.keys() != {one.job.job_id for one in self.entries if one.outcome is None}

    def completed_by(self, entries: tuple[MemberEntry, ...]) -> bool:
        """Note the members on the ledger; return whether the group can be combined from them."""
        self.phase = "gathering"
        left = {each.job.request.member or 0 for each in entries if each.outcome == "superseded"}
        every = {each.job.request.member or 0 for each in entries}
        entries = tuple(each for each in entries if each.outcome != "superseded")
        self.settled = sum(each.outcome is not None for each in entries) + len(left)
        pending = {each.job.job_id for each in entries if each.outcome is None}
        if self.awaited or not pending <= self.held.keys():
            return False
        self.held = {job_id: held for job_id, held in self.held.items() if job_id in pending}
        if not (self.expired or self.complete) and not 0 < self.number <= len(every):
            return False
        self.phase, self.entries, self.vacant = "assembled", entries, frozenset(left)
        return True

    @property
    def expected(self) -> int:
        """The number of its members, 0 while unknown; n for every n frames that time ended: their session has gone."""
        combine = None if self.job is None else self.job.recipe.combine
        if self.number or not self.expired or combine is None or not isinstance(combine.of, Every):
            return self.number
        return combine.of.every

    @property
    def parts(self) -> tuple[Part, ...]:
        """Its members in their order, with gaps where none came."""
        places = {each.job.request.member or 0: each for each in self.entries}
        count = max(self.expected, *(place + 1 for place in places)) if places else self.expected
        return tuple(self._part(places.get(place)) for place in range(count) if place not in self.vacant)

    def _part(self, entry: MemberEntry | None) -> Part:
        if entry is None:
            return Part(None, _NEVER_CAME)
        held = self.held.get(entry.job.job_id)
        return Part(entry.job, entry.reason) if held is None else Part(entry.job, held.problem, held.identity)

    @property
    def never_came(self) -> str:
        """Why there is no file of any member; empty if there is one, or if one failed otherwise."""
        found = list(self.held.values())
        if not found or len(found) != len(self.entries) or not all(each.missing for each in found):
            return ""
        return found[0].problem

    @property
    def size(self) -> int:
        """Size of the files of its members in bytes."""
        return sum(each.identity[1] for each in self.held.values() if each.identity)

    def placed(self, job: Job) -> Job:
        """Return the job of the group with source, output and origin of its first member, if it has any left."""
        earlier = dict.fromkeys((*job.earlier, job.output))
        if not self.entries:
            return replace(job, earlier=tuple(earlier))
        first, last = self.entries[0].job, self.entries[-1].job
        output, place = first.output, first.recipe.output
        if isinstance(place, NewFile) and place.template is not None:
            fields = {**first.fields, **group_fields(first, last)}
            output = output.with_name(named_by(place.template, first.location, fields, first.recipe.format))
        request = first.request.model_copy(update={"member": None, "members": self.expected or None, "key": None})
        return replace(
            job, request=request, source=first.source, output=output, source_root=first.source_root,
            output_root=first.output_root, mask=first.mask, corrections=first.corrections,
            earlier=tuple(path for path in earlier if path != output),
        )  # fmt: skip

    def finish(self, report: FrameReport, problems: Mapping[int, str], now: Instant) -> Finish:
        """Return the reports of the group and its members; `problems` are of its members, by number."""
        listed, finished = [], []
        ended = {each.job.job_id: each.outcome for each in self.entries if each.outcome is not None}
        for number, part in enumerate(self.parts):
            problem, job = problems.get(number, part.problem), part.job
            outcome, reason = _outcome(report, problem)
            if job is None:
                listed.append(GroupMember(source=f"frame {number}", outcome="failed", reason=problem))
                continue
            outcome = ended.get(job.job_id) or outcome
            listed.append(
                GroupMember(source=job.location.path, frame=job.request.frame, outcome=outcome, reason=reason)
            )
            if job.job_id not in ended:
                held = self.held.get(job.job_id)
                identity = held.identity[1:] if held and held.identity else None
                finished.append(Finish(_member_report(job, outcome, reason, report, now), identity))
        whole = GroupReport.model_validate({**dict(report), "members": tuple(listed)})
        return Finish(whole, members=tuple(finished))


def group_fields(first: Job, last: Job) -> dict[str, object]:
    """Return the fields that a template of a group's name may have besides those of its first member."""
    return {"group": first.group, "first": first.location.stem, "last": last.location.stem}


def _outcome(report: FrameReport, problem: str) -> tuple[Outcome, str]:
    """Return the outcome of a member and the reason, from the report of its group."""
    if report.outcome == "placeholder":
        return "placeholder", problem
    if problem:
        return "failed", problem
    if report.outcome == "converted":
        return "grouped", ""
    return report.outcome, f"not combined: {report.reason}"


def _member_report(job: Job, outcome: Outcome, reason: str, whole: FrameReport, now: Instant) -> FrameReport:
    source = str(job.source)
    if outcome == "failed":
        return job.failed(reason if source in reason else f"{job.location}: {reason}", now.wall)
    return job.failed(reason, now.wall).model_copy(update={"outcome": outcome, "output": whole.output})


def problems_of(report: FrameReport) -> dict[int, str]:
    """Return why members are not part of a group's output, by number, from the report of a worker."""
    members = report.members if isinstance(report, GroupReport) else ()
    return {number: each.reason for number, each in enumerate(members) if each.outcome != "grouped"}
