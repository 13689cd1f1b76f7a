"""The groups that are not written yet: which members are there, and when each group is combined.

    gathering --(all members are held)--> assembling --(the ledger knows no others)--> assembled --> a report
        ^------------------------------------- a member came, or went ---------------------|

A member is awaited like any frame; once it is ready or has failed, it is held, and only its group goes on. A group is
complete when its number of members is reached, or none has come for the time-out of its recipe. That does not run out
while the run is open: its session announces it from time to time.
"""

import heapq
from collections.abc import Iterable, Mapping

from tango_server.jobs.job import Job
from tango_server.jobs.state_machine.events import Assembled, GroupsClosed, RunsAnnounced
from tango_server.jobs.state_machine.group_state import GroupState, Held

OPEN_FOR = 150.0
"""Time (s) for which an announced run counts as open; sessions announce their runs every 60 s."""


class Groups:
    """All groups with members in memory, or that are pending themselves."""

    def __init__(self) -> None:
        self._groups: dict[str, GroupState] = {}
        self._held: dict[str, str] = {}
        """The groups of all held members, by their job ids."""
        self._touched: dict[str, None] = {}
        self._deadlines: list[tuple[float, str]] = []
        self._open_until: dict[str, float] = {}
        self._superseded: set[str] = set()

    def __len__(self) -> int:
        """The number of held members."""
        return len(self._held)

    def __getitem__(self, group: str) -> GroupState:
        return self._groups[group]

    def get(self, group: str) -> GroupState | None:
        """Return a group, None if it is not in memory."""
        return self._groups.get(group)

    def came(self, job: Job, now: float) -> None:
        """Note a member, or the job of a group, that was read from the ledger."""
        state = self._groups.setdefault(job.group, GroupState())
        state.number = max(state.number, job.request.members or 0)
        state.last, state.expired = now, False
        if job.is_group:
            state.job, state.settled = job, job.settled
            if job.resumed and job.request.run_uid:  # its session had no time to announce it yet
                self._open_until[job.request.run_uid] = max(
                    self._open_until.get(job.request.run_uid, 0), now + OPEN_FOR
                )
        else:
            state.awaited.add(job.job_id)
            state.number = max(state.number, (job.request.member or 0) + 1) if state.number else 0
        if state.job is not None:
            heapq.heappush(self._deadlines, (self._deadline_of(state.job, state), job.group))
        self._touched[job.group] = None

    def hold(self, job: Job, held: Held) -> None:
        """Keep a member until its group is combined."""
        state = self._groups[job.group]
        state.awaited.discard(job.job_id)
        state.held[job.job_id] = held
        self._held[job.job_id] = job.group
        self._touched[job.group] = None

    def gone(self, job: Job) -> None:
        """Forget a member that was awaited; its group may be complete without it."""
        if (state := self._groups.get(job.group)) is not None:
            state.awaited.discard(job.job_id)
            self._check_rest(job.group)

    def release(self, job_ids: Iterable[str]) -> dict[str, str]:
        """Forget those of these members that are held; return the groups of these by their ids."""
        released = {job_id: self._held.pop(job_id) for job_id in job_ids if job_id in self._held}
        for job_id, group in released.items():
            self._groups[group].held.pop(job_id, None)
            self._check_rest(group)
        return released

    def check(self, group: str) -> None:
        """Have a group checked, which may be complete now."""
        if (state := self._groups.get(group)) is not None:
            state.recheck = True
            self._touched[group] = None

    def _check_rest(self, group: str) -> None:
        state = self._groups[group]
        if state.job is None and not state.awaited and not state.held:
            del self._groups[group]
        self.check(group)

    def supersede(self, job_ids: Iterable[str]) -> None:
        """Remember members that are still to be read from the ledger, perhaps, and are not to be awaited then."""
        self._superseded.update(job_ids)

    def is_superseded(self, job: Job) -> bool:
        """Return, once, whether a member that was read from the ledger has ended there meanwhile."""
        found = job.job_id in self._superseded
        self._superseded.discard(job.job_id)
        return found

    def note(self, event: GroupsClosed | RunsAnnounced, now: float) -> None:
        """Note what sessions have said about groups and runs."""
        match event:
            case RunsAnnounced(run_uids):
                self._open_until = {run: until for run, until in self._open_until.items() if until > now}
                self._open_until |= dict.fromkeys(run_uids, now + OPEN_FOR)
            case GroupsClosed(members, complete):
                for group, number in members.items():
                    state = self._groups.setdefault(group, GroupState(last=now))
                    state.number, state.closed = max(state.number, number), True
                    state.complete = state.complete or complete
                    if state.job is not None:
                        heapq.heappush(self._deadlines, (self._deadline_of(state.job, state), group))
                    self._touched[group] = None

    def take_due(self, now: float) -> list[Job]:
        """Return the jobs of the groups that are to be assembled now."""
        while self._deadlines and self._deadlines[0][0] <= now:
            self._expire(heapq.heappop(self._deadlines)[1], now)
        touched, self._touched = self._touched, {}
        return [job for group in touched if (job := self._take(group)) is not None]

    def _take(self, group: str) -> Job | None:
        state = self._groups.get(group)
        if state is None or not state.is_due:
            return None
        state.phase, state.recheck = "assembling", False
        return state.job

    def assembled(self, event: Assembled, group: str) -> GroupState | None:
        """Note the members on the ledger; return the group if it can be combined."""
        state = self._groups.get(group)
        if state is None or state.phase != "assembling":
            return None
        before = state.held
        complete = state.completed_by(event.members)
        for job_id in before.keys() - state.held.keys():
            del self._held[job_id]
        if state.awaited or state.recheck:  # set while it was being read
            self._touched[group] = None
        return state if complete else None

    def reassemble(self, group: str) -> None:
        """Read the members of an assembled group from the ledger again."""
        self._groups[group].phase = "assembling"

    def regather(self, group: str) -> None:
        """Have an assembled group wait for its members again."""
        state = self._groups[group]
        state.phase = "gathering"
        self._touched[group] = None

    def not_ready(self, group: str, members: Mapping[int, str]) -> list[tuple[Job, Held, str]]:
        """Have these members of an assembled group awaited again; return them with the reasons."""
        state, found = self._groups[group], []
        for number, part in enumerate(state.parts):
            job = part.job
            if number in members and job is not None and job.job_id in state.held:
                found.append((job, state.held.pop(job.job_id), members[number]))
                del self._held[job.job_id]
                state.awaited.add(job.job_id)
        self.regather(group)
        return found

    def forget(self, group: str) -> None:
        """Forget a group that has a report, or was cancelled; members that are awaited stay."""
        state = self._groups.pop(group, None)
        if state is None:
            return
        for job_id in state.held:
            del self._held[job_id]
        if state.awaited:
            self._groups[group] = GroupState(awaited=state.awaited, last=state.last)

    @property
    def next(self) -> float | None:
        """The monotonic instant at which a group may expire, None if there is none."""
        return self._deadlines[0][0] if self._deadlines else None

    def _expire(self, group: str, now: float) -> None:
        state = self._groups.get(group)
        if state is None or state.job is None or state.expired:
            return
        deadline = self._deadline_of(state.job, state)
        if deadline > now:
            heapq.heappush(self._deadlines, (deadline, group))
            return
        state.expired = True
        self._touched[group] = None

    def _deadline_of(self, job: Job, state: GroupState) -> float:
        timeout = job.recipe.combine.timeout if job.recipe.combine else 0.0
        is_open = 0.0 if state.closed else self._open_until.get(job.request.run_uid or "", 0.0)
        return max(state.last + timeout, is_open)
