"""Moves members to their groups, and groups to the queue, as the events of their jobs say."""

from collections.abc import Collection, Iterable, Mapping

from tango_server.jobs.job import Job
from tango_server.jobs.state_machine.events import Assembled, AttemptFailed, Finish, Instant
from tango_server.jobs.state_machine.group_state import Held
from tango_server.jobs.state_machine.groups import Groups
from tango_server.jobs.state_machine.job_state import SMALL, JobState
from tango_server.jobs.state_machine.rules import ServiceRules
from tango_server.jobs.state_machine.work import Work
from tango_server.messages import FrameReport


class GroupScheduler:
    """The groups of the jobs in memory."""

    def __init__(self, work: Work, rules: ServiceRules) -> None:
        self._work = work
        self._rules = rules
        self.groups = Groups()

    def came(self, job: Job, now: Instant) -> None:
        """Note a member, or a group, that was read from the ledger."""
        self.groups.came(job, now.monotonic)
        self._regather(job.group)

    def hold(self, progress: JobState, problem: str = "", *, missing: bool = False) -> None:
        """Keep a member that is ready, or has failed for `problem`, until its group is combined."""
        self._work.forget(progress.job.job_id)
        self.groups.hold(progress.job, Held(progress.wait.identity, problem, missing))

    def assembled(self, event: Assembled, now: Instant) -> None:
        """Have a group converted that is complete."""
        self._work.polls.returned(event.job_id)
        self._work.blocked.discard(event.job_id)
        progress = self._work.jobs.get(event.job_id)
        group = None if progress is None else self.groups.assembled(event, progress.job.group)
        if progress is None or group is None:
            return
        progress.job = group.placed(progress.job)
        progress.complete_seen = now.monotonic
        progress.gave_up = group.never_came if self._rules.placeholders else ""
        self._work.queue.add(progress.job, small=group.size <= SMALL)

    def not_ready(self, event: AttemptFailed, group: str, now: Instant) -> list[Job]:
        """Have members awaited again whose files turned out to be incomplete; return them."""
        found = self.groups.not_ready(group, event.members)
        for job, held, reason in found:
            self._work.jobs[job.job_id] = JobState(
                job, now.monotonic, incomplete=held.identity, incomplete_reason=reason
            )
        return [job for job, _, _ in found]

    def report(self, job: Job, report: FrameReport, problems: Mapping[int, str], now: Instant) -> Finish | None:
        """Return the reports of a group and its members, None if it has changed since it was assembled.

        `problems` are those of its members, by number.
        """
        state = self.groups[job.group]
        if state.phase == "assembled" and state.has_changed:
            self._work.queue.free({job.job_id})
            self.groups.regather(job.group)
            return None
        step = state.finish(report, problems, now)
        self.groups.forget(job.group)
        return step

    def withdraw(self, ended: Iterable[JobState], job_ids: Collection[str]) -> frozenset[str]:
        """Have groups go on without the jobs `ended`, and without those of `job_ids` that are held; return these."""
        released = self.groups.release(job_ids)
        for progress in ended:
            job = progress.job
            if job.is_group:
                self.groups.forget(job.group)
            elif job.is_member:
                self.groups.gone(job)
                self._regather(job.group)
        for group in dict.fromkeys(released.values()):
            self._regather(group)
        return frozenset(released)

    def superseded(self, job_ids: frozenset[str]) -> int:
        """Forget members whose places others have taken; return how many are still to be read from the ledger."""
        ended = self._work.forget_all(job_ids)
        rest = job_ids - {each.job.job_id for each in ended} - self.withdraw(ended, job_ids)
        self.groups.supersede(rest)
        return len(rest)

    def converting(self) -> list[str]:
        """Return the members of the groups that are being converted."""
        running = [job.group for job in self._work.queue.running_jobs() if job.is_group]
        return [job_id for group in running for job_id in self.groups[group].held]

    def _regather(self, group: str) -> None:
        """Have a group wait for a member that came or went, unless it is being converted."""
        state = self.groups.get(group)
        if state is None or state.job is None or state.phase != "assembled":
            return
        job_id = state.job.job_id
        if job_id not in self._work.queue.running:
            self._work.queue.drop({job_id})
            self._work.polls.forget(job_id)
            self._work.blocked.discard(job_id)
            self.groups.regather(group)
