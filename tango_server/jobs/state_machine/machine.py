r"""The state machine of all jobs between accepted and reported: events and clock readings in, instructions out.

::

    ledger --(fetched)--> waiting --(ready)--> queued --> running --> (sidecar) --> reported
                             ^  \--(timeout: failed, or queued as a placeholder)-----^
                             |  \                            |
                             |   (several frames)--> expanded into one job each --> reported
                             +---(the file was replaced, or the output is blocked)

Only a window of the ledger's jobs is in memory: few are unchecked or ready, so that memory does not grow with the
backlog. Files that are awaited leave the window, so that they don't delay others.
The image is visible from the end of `running`; only the report waits for an expected sidecar.

It has no threads, does no I/O and never sleeps; `engine` carries out its instructions.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from tango_server.jobs.job import Job
from tango_server.jobs.state_machine.backlog import Backlog
from tango_server.jobs.state_machine.cancellations import Cancellations
from tango_server.jobs.state_machine.companion_schedule import CompanionSchedule
from tango_server.jobs.state_machine.dark_waits import ReadyDarks
from tango_server.jobs.state_machine.events import (
    Accepted,
    Assemble,
    Assembled,
    AttemptDone,
    AttemptFailed,
    Cancelled,
    CancelWanted,
    CarrySidecar,
    Convert,
    Ending,
    Event,
    Expanded,
    FailuresRetried,
    Fetched,
    Finish,
    GroupsClosed,
    Instant,
    Instruction,
    Observe,
    Observed,
    PauseWanted,
    Refused,
    Requeued,
    RunsAnnounced,
    SidecarObserved,
    Superseded,
    TimePassed,
    Written,
)
from tango_server.jobs.state_machine.group_scheduler import GroupScheduler
from tango_server.jobs.state_machine.group_state import NO_PROBLEMS, problems_of
from tango_server.jobs.state_machine.job_state import JobState
from tango_server.jobs.state_machine.results import Results
from tango_server.jobs.state_machine.rules import ServiceRules
from tango_server.jobs.state_machine.snapshot import Snapshot
from tango_server.jobs.state_machine.work import Work
from tango_server.messages import AwaitedFrame, FrameReport
from tango_server.recipe import InPlace


class JobStateMachine:
    """Owns all jobs without a report on the ledger, and the counters, which count only reports on the ledger."""

    def __init__(self, rules: ServiceRules, *, paused: bool = False) -> None:
        self._rules = rules
        self._work = work = Work(rules)
        self._jobs, self._queue, self._polls = work.jobs, work.queue, work.polls
        self._backlog = Backlog()
        self._scans = CompanionSchedule()
        self._paused = paused
        self._results = Results()
        self._groups = GroupScheduler(work, rules)
        self._cancelling = Cancellations(work, self._results, self._groups)
        self._ready_darks = ReadyDarks()

    def handle(self, event: Event, now: Instant) -> list[Instruction]:
        """Handle one event and return what to do, in order."""
        return [*self._handle(event, now), *self._start_ready(now)]

    def _handle(self, event: Event, now: Instant) -> list[Instruction]:
        instructions: list[Instruction] = []
        match event:
            case Observed() | AttemptFailed() | Expanded() | Assembled() if self._cancelling.postpones(event):
                pass
            case Accepted(count):
                self._backlog.accepted(count)
            case Fetched():
                instructions += self._fetched(event, now)
            case Observed():
                instructions += self._observed(event, now)
            case AttemptDone() | Expanded() | SidecarObserved():
                instructions += self._answered(event, now)
            case Assembled():
                self._groups.assembled(event, now)
            case AttemptFailed():
                instructions += self._failed(event, now)
            case TimePassed():
                due = self._polls.take_due(now.monotonic)
                instructions += [self._poll_of(self._jobs[job_id], now) for job_id in due]
                instructions += self._scans.take_due(now.monotonic)
            case Ending():
                instructions += [*self._end(now), *self._scans.take_all()]
            case CancelWanted():
                instructions.append(self._cancelling.begin(event))
            case Cancelled():
                instructions += self._cancelled(event, now)
            case _:
                self._note(event, now)
        return instructions

    def abandon(self, job_id: str, reason: str, now: Instant) -> list[Instruction]:
        """End a job whose event could not be handled."""
        self._queue.ended(job_id)
        progress = self._jobs.get(job_id)
        return [] if progress is None else self._finish(progress, progress.failed(reason, now), now)

    @property
    def next_poll(self) -> float | None:
        """The monotonic instant at which `TimePassed` is needed, None if nothing is due."""
        dues = (self._polls.next, self._scans.next, self._groups.groups.next)
        return min((due for due in dues if due is not None), default=None)

    def running_jobs(self) -> list[Job]:
        """Return the jobs being converted."""
        return self._queue.running_jobs()

    def awaited(self, job_ids: Iterable[str], now: float) -> list[AwaitedFrame]:
        """Return those of these jobs whose files are not complete yet at `now` (monotonic s)."""
        return self._work.awaited(job_ids, now)

    def snapshot(self, now: Instant) -> Snapshot:
        """Return the counters and the length of the queue (jobs without a report)."""
        length = len(self._jobs) + len(self._groups.groups) + len(self._results) + self._backlog.length
        return self._results.snapshot(now, length, len(self._queue.running), paused=self._paused)

    def _note(self, event: Event, now: Instant) -> None:
        match event:
            case PauseWanted(paused):
                self._paused = paused
            case Written(job_ids):
                self._queue.free(job_ids)
            case Requeued(job_ids):
                self._queue.free(job_ids)
                self._backlog.accepted(len(job_ids))
            case FailuresRetried(count):
                self._backlog.accepted(count)
            case Refused(report) if report.group:
                self._groups.groups.check(report.group)
            case GroupsClosed() | RunsAnnounced():
                self._groups.groups.note(event, now.monotonic)
            case Superseded(job_ids):
                self._backlog.accepted(-self._groups.superseded(job_ids))
        self._results.note(event, now)

    def _start_ready(self, now: Instant) -> list[Instruction]:
        """Start ready jobs and read more of the ledger; called for each event, so it must be quick."""
        if self._cancelling:
            return []
        steps: list[Instruction] = [Assemble(job) for job in self._groups.groups.take_due(now.monotonic)]
        if self._queue and not self._paused:
            steps += [self._start(self._jobs[job.job_id]) for job in self._queue.take()]
        if self._backlog.length > 0:
            steps += self._backlog.fetch(self._work.in_window)
        return steps

    def _start(self, progress: JobState) -> Instruction:
        progress.starts += 1
        progress.attempts += 1
        shape = (progress.job.shape or self._rules.placeholder_shape) if progress.gave_up else None
        members = self._groups.groups[progress.job.group].parts if progress.job.is_group else ()
        return Convert(progress.job, progress.starts, shape, progress.gave_up, progress.wait.identity, members)

    def _fetched(self, event: Fetched, now: Instant) -> list[Instruction]:
        self._backlog.fetched(event)
        frames = []
        for job in event.jobs:
            if self._groups.groups.is_superseded(job):
                self._backlog.accepted(1)  # it was taken off when it was superseded
                continue
            self._jobs[job.job_id] = JobState(job, now.monotonic)
            if job.group:
                self._groups.came(job, now)
            if not job.is_group:
                self._work.unchecked.add(job.job_id)
                frames.append(job)
        return [self._observe(job, now) for job in frames]

    def _observed(self, event: Observed, now: Instant) -> list[Instruction]:
        job_id = event.job_id
        self._work.unchecked.discard(job_id)
        self._polls.returned(job_id)
        self._work.blocked.discard(job_id)
        progress = self._jobs.get(job_id)
        if progress is None or job_id in self._queue.running:
            return []
        verdict = progress.seen(event, self._work.rule_of(progress), now, self._rules.sidecar_timeout)
        progress.is_awaited = verdict.kind == "wait"
        match verdict.kind:
            case "ready":
                self._ready_darks.add((dark.path for dark in event.darks), now.monotonic)
                if progress.job.is_member:
                    self._groups.hold(progress, progress.unfit_for_group)
                    return []
                if (expansion := progress.expansion) is not None:
                    return [expansion]
                self._queue.add(progress.job, small=progress.is_small)
            case "wait":
                self._polls.add(job_id, verdict.again, now.monotonic)
            case "give_up":
                return self._give_up(progress, verdict.reason, now)
            case "fail":
                return self._finish(progress, progress.failed(verdict.reason, now), now)
        return []

    def _give_up(self, progress: JobState, reason: str, now: Instant) -> list[Instruction]:
        """Stop waiting: fail, or write a placeholder, but never in place of a raw frame; or count what is there."""
        if progress.job.is_member:
            self._groups.hold(progress, progress.failed(reason, now).reason, missing=True)
            return []
        if progress.expansion is not None and progress.keeps_frames(self._work.rule_of(progress), now.monotonic):
            return [progress.expansion]
        wanted = self._rules.placeholders or progress.job.request.placeholder is not None
        if wanted and not isinstance(progress.job.recipe.output, InPlace):
            progress.gave_up = reason
            self._queue.add(progress.job)
            return []
        return self._finish(progress, progress.failed(reason, now), now)

    def _answered(self, event: AttemptDone | Expanded | SidecarObserved, now: Instant) -> list[Instruction]:
        match event:
            case AttemptDone():
                return self._done(event, now)
            case SidecarObserved():
                return self._sidecar_observed(event, now)
        progress = self._jobs.get(event.job_id)
        return [] if progress is None else self._finish(progress, progress.expanded(event, now), now)

    def _done(self, event: AttemptDone, now: Instant) -> list[Instruction]:
        self._queue.ended(event.job_id)
        progress = self._jobs.get(event.job_id)
        if progress is None:
            return []
        report = progress.completed(event.report, now)
        if progress.job.is_group:
            return self._finish(progress, report, now, problems_of(event.report))
        if not progress.wants_sidecar(report, self._rules.sidecar_timeout):
            return self._finish(progress, report, now)
        progress.await_sidecar(report, now.monotonic, self._rules.sidecar_timeout)
        return [self._poll_of(progress, now)]

    def _sidecar_observed(self, event: SidecarObserved, now: Instant) -> list[Instruction]:
        self._polls.returned(event.job_id)
        progress = self._jobs.get(event.job_id)
        if progress is None or progress.report is None:
            return []
        again = progress.sidecar_observed(progress.report, event, self._work.rule_of(progress), now.monotonic)
        if again is None:
            return self._finish(progress, progress.report, now)
        self._polls.add(event.job_id, again, now.monotonic)
        return []

    def _failed(self, event: AttemptFailed, now: Instant) -> list[Instruction]:
        job_id = event.job_id
        self._queue.ended(job_id)
        self._work.unchecked.discard(job_id)
        self._polls.returned(job_id)
        progress = self._jobs.get(job_id)
        if progress is None:
            return []
        if progress.report is not None:  # the image stays converted: only its sidecar failed
            report = progress.report.model_copy(update={"reason": progress.noted(event.reason)})
            return self._finish(progress, report, now)
        sequel = progress.attempt_failed(event, self._work.rule_of(progress), self._rules.attempts, now.monotonic)
        if sequel.kind != "end":
            self._queue.free({job_id})
        match sequel.kind:
            case "ready":
                self._queue.add(progress.job)
            case "poll" if progress.job.is_group:
                return [self._observe(job, now) for job in self._groups.not_ready(event, progress.job.group, now)]
            case "poll":
                return [self._observe(progress.job, now)]
            case "later":
                self._work.blocked.add(job_id)
                self._polls.add(job_id, sequel.again, now.monotonic)
            case "end":
                return self._finish(progress, progress.failed(sequel.reason, now), now, event.members)
        return []

    def _cancelled(self, event: Cancelled, now: Instant) -> list[Instruction]:
        in_memory = self._work.forget_all(event.job_ids)
        self._queue.drop(event.job_ids)
        held = self._groups.withdraw(in_memory, event.job_ids)
        self._backlog.cancelled(event, len(in_memory) + len(held))
        self._results.note(event, now)
        return [step for late in self._cancelling.answered() for step in self._handle(late, now)]

    def _end(self, now: Instant) -> list[Instruction]:
        """Report the frames that are converted and only wait for their sidecar."""
        waiting = [(progress, progress.report) for progress in self._jobs.values() if progress.report is not None]
        return [step for progress, report in waiting for step in self._finish(progress, report, now)]

    def _finish(
        self, progress: JobState, report: FrameReport, now: Instant, problems: Mapping[int, str] = NO_PROBLEMS
    ) -> list[Instruction]:
        """Report a job; `problems` are those of a group's members, by number. A failed member is held instead."""
        job = progress.job
        if job.is_member:
            self._groups.hold(progress, report.reason)
            return []
        whole = self._groups.report(job, report, problems, now) if job.is_group else None
        if job.is_group and whole is None:  # it has changed: it is made anew
            return []
        step = whole or Finish(report, progress.identity)
        self._work.forget(job.job_id)
        self._results.add(job, step)
        if report.outcome in {"converted", "placeholder"} and report.output is not None:
            self._scans.converted(job, report.output, now.monotonic)
        return [step]

    def _poll_of(self, progress: JobState, now: Instant) -> Instruction:
        """Return the poll that a job waits for: of its source, or of the sidecar of its converted frame."""
        if progress.job.is_group:
            self._groups.groups.reassemble(progress.job.group)
            return Assemble(progress.job)
        if progress.report is not None and progress.report.output is not None:
            return CarrySidecar(progress.job, Path(progress.report.output))
        return self._observe(progress.job, now)

    def _observe(self, job: Job, now: Instant) -> Observe:
        return Observe(job, self._ready_darks.to_check(job.awaited_darks, now.monotonic))
