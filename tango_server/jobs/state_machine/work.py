"""The jobs in memory that go on by themselves, and where each is."""

from collections.abc import Iterable

from tango_server.jobs.state_machine.job_state import JobState
from tango_server.jobs.state_machine.poll_schedule import PollSchedule
from tango_server.jobs.state_machine.readiness import ReadinessRule
from tango_server.jobs.state_machine.ready_queue import ReadyQueue
from tango_server.jobs.state_machine.rules import ServiceRules
from tango_server.messages import AwaitedFrame


class Work:
    """Jobs that are unchecked, awaited, ready or running, or blocked at their output."""

    def __init__(self, rules: ServiceRules) -> None:
        self._rules = rules
        self.jobs: dict[str, JobState] = {}
        self.unchecked: set[str] = set()
        self.blocked: set[str] = set()
        self.queue = ReadyQueue(rules.workers, rules.small_at_once)
        self.polls = PollSchedule()

    @property
    def in_window(self) -> int:
        """Number of jobs that count towards the limit on those in memory."""
        return len(self.unchecked) + len(self.queue) + len(self.blocked)

    def rule_of(self, progress: JobState) -> ReadinessRule:
        """Return when the files of a job count as complete."""
        return self._rules.run_readiness if progress.job.request.run_uid else self._rules.readiness

    def awaited(self, job_ids: Iterable[str], now: float) -> list[AwaitedFrame]:
        """Return those of these jobs whose files are not complete yet at `now` (monotonic s)."""
        known = (self.jobs[job_id] for job_id in job_ids if job_id in self.jobs)
        return [each.awaited(self.rule_of(each), now) for each in known if each.is_awaited]

    def forget(self, job_id: str) -> None:
        """Forget a job that has ended, or that only its group goes on with."""
        del self.jobs[job_id]
        self.polls.forget(job_id)
        self.unchecked.discard(job_id)
        self.blocked.discard(job_id)

    def forget_all(self, job_ids: Iterable[str]) -> list[JobState]:
        """Forget those of these jobs that are in memory, and return them."""
        found = [self.jobs[job_id] for job_id in job_ids if job_id in self.jobs]
        for progress in found:
            self.forget(progress.job.job_id)
        return found
