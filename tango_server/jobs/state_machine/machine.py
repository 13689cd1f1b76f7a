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

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tango_server.conversion.sidecar import is_sidecar_error
from tango_server.jobs.job import Job
from tango_server.jobs.state_machine.backlog import Backlog
from tango_server.jobs.state_machine.companion_schedule import CompanionSchedule
from tango_server.jobs.state_machine.corrections_in_use import CorrectionsLog
from tango_server.jobs.state_machine.dark_waits import ReadyDarks
from tango_server.jobs.state_machine.events import (
    Accepted,
    AttemptDone,
    AttemptFailed,
    Cancel,
    Cancelled,
    CancelWanted,
    CarrySidecar,
    Convert,
    Ending,
    Event,
    Expanded,
    FailuresAcknowledged,
    FailuresRetried,
    Fetched,
    Finish,
    Instant,
    Instruction,
    Observe,
    Observed,
    PauseWanted,
    Refused,
    SidecarObserved,
    Snapshot,
    StatisticsReset,
    TimePassed,
    Written,
)
from tango_server.jobs.state_machine.job_state import JobState
from tango_server.jobs.state_machine.poll_schedule import PollSchedule
from tango_server.jobs.state_machine.readiness import ReadinessRule
from tango_server.jobs.state_machine.ready_queue import ReadyQueue
from tango_server.jobs.state_machine.rules import ServiceRules
from tango_server.jobs.state_machine.statistics import Statistics
from tango_server.messages import AwaitedFrame, FrameReport
from tango_server.recipe import InPlace


class JobStateMachine:
    """Owns all jobs without a report on the ledger, and the counters, which count only reports on the ledger."""

    def __init__(self, rules: ServiceRules, *, paused: bool = False) -> None:
        self._rules = rules
        self._jobs: dict[str, JobState] = {}
        self._backlog = Backlog()
        self._unchecked: set[str] = set()
        self._blocked: set[str] = set()
        self._queue = ReadyQueue(rules.workers, rules.small_at_once)
        self._polls = PollSchedule()
        self._scans = CompanionSchedule()
        self._paused = paused
        self._cancelling = 0
        self._postponed: list[Observed | AttemptFailed | Expanded] = []
        self._unwritten: dict[str, FrameReport] = {}
        self._statistics = Statistics()
        self._corrections = CorrectionsLog()
        self._ready_darks = ReadyDarks()

    def handle(self, event: Event, now: Instant) -> list[Instruction]:
        """Handle one event and return what to do, in order."""
        return [*self._handle(event, now), *self._start_ready()]

    def _handle(self, event: Event, now: Instant) -> list[Instruction]:
        instructions: list[Instruction] = []
        match event:
            case Observed() | AttemptFailed() | Expanded() if self._may_be_cancelled(event.job_id):
                self._postponed.append(event)
            case Accepted(count):
                self._backlog.accepted(count)
            case Fetched():
                instructions += self._fetched(event, now)
            case Observed():
                instructions += self._observed(event, now)
            case AttemptDone() | Expanded() | SidecarObserved():
                instructions += self._answered(event, now)
            case AttemptFailed():
                instructions += self._failed(event, now)
            case TimePassed():
                due = self._polls.take_due(now.monotonic)
                instructions += [self._poll_of(self._jobs[job_id], now) for job_id in due]
                instructions += self._scans.take_due(now.monotonic)
            case Ending():
                instructions += [*self._end(now), *self._scans.take_all()]
            case CancelWanted(ticket, selection):
                self._cancelling += 1
                instructions.append(Cancel(ticket, selection, self._not_cancellable()))
            case Cancelled():
                instructions += self._cancelled(event, now)
            case _:
                self._note(event, now)
        return instructions

    def abandon(self, job_id: str, reason: str, now: Instant) -> list[Instruction]:
        """End a job whose event could not be handled."""
        self._queue.ended(job_id)
        progress = self._jobs.get(job_id)
        return [] if progress is None else [self._finish(progress, progress.failed(reason, now), now)]

    @property
    def next_poll(self) -> float | None:
        """The monotonic instant at which `TimePassed` is needed, None if nothing is due."""
        return min((due for due in (self._polls.next, self._scans.next) if due is not None), default=None)

    def running_jobs(self) -> list[Job]:
        """Return the jobs being converted."""
        return self._queue.running_jobs()

    def awaited(self, job_ids: Iterable[str], now: float) -> list[AwaitedFrame]:
        """Return those of these jobs whose files are not complete yet at `now` (monotonic s)."""
        known = (self._jobs[job_id] for job_id in job_ids if job_id in self._jobs)
        return [each.awaited(self._rule_of(each), now) for each in known if each.is_awaited]

    def snapshot(self, now: Instant) -> Snapshot:
        """Return the counters and the length of the queue (jobs without a report)."""
        length = len(self._jobs) + len(self._unwritten) + self._backlog.length
        snapshot = self._statistics.snapshot(now.monotonic, length, len(self._queue.running), paused=self._paused)
        return replace(snapshot, corrections=self._corrections.in_use)

    def _note(self, event: Event, now: Instant) -> None:
        match event:
            case PauseWanted(paused):
                self._paused = paused
            case Written(job_ids):
                self._queue.free(job_ids)
                for job_id in [each for each in self._unwritten if each in job_ids]:
                    self._statistics.add(self._unwritten.pop(job_id), now.monotonic)
            case Refused(report):
                self._statistics.add(report, now.monotonic)
            case StatisticsReset():
                self._statistics = self._statistics.restarted()
            case FailuresAcknowledged():
                self._statistics.unacknowledged = 0
            case FailuresRetried(count):
                self._backlog.accepted(count)
                self._statistics.forget_failures()

    def _start_ready(self) -> list[Instruction]:
        """Start ready jobs and read more of the ledger; called for each event, so it must be quick."""
        if self._cancelling:
            return []
        steps: list[Instruction] = []
        if self._queue and not self._paused:
            steps += [self._start(self._jobs[job.job_id]) for job in self._queue.take()]
        if self._backlog.length > 0:
            steps += self._backlog.fetch(len(self._unchecked) + len(self._queue) + len(self._blocked))
        return steps

    def _start(self, progress: JobState) -> Instruction:
        progress.starts += 1
        progress.attempts += 1
        shape = (progress.job.shape or self._rules.placeholder_shape) if progress.gave_up else None
        return Convert(progress.job, progress.starts, shape, progress.gave_up, progress.wait.identity)

    def _fetched(self, event: Fetched, now: Instant) -> list[Instruction]:
        self._backlog.fetched(event)
        for job in event.jobs:
            self._jobs[job.job_id] = JobState(job, now.monotonic)
            self._unchecked.add(job.job_id)
        return [self._observe(job, now) for job in event.jobs]

    def _observed(self, event: Observed, now: Instant) -> list[Instruction]:
        job_id = event.job_id
        self._unchecked.discard(job_id)
        self._polls.returned(job_id)
        self._blocked.discard(job_id)
        progress = self._jobs.get(job_id)
        if progress is None or job_id in self._queue.running:
            return []
        verdict = progress.seen(event, self._rule_of(progress), now, self._rules.sidecar_timeout)
        progress.is_awaited = verdict.kind == "wait"
        match verdict.kind:
            case "ready":
                self._ready_darks.add((dark.path for dark in event.darks), now.monotonic)
                if (expansion := progress.expansion) is not None:
                    return [expansion]
                self._queue.add(progress.job, small=progress.is_small)
            case "wait":
                self._polls.add(job_id, verdict.again, now.monotonic)
            case "give_up":
                return self._give_up(progress, verdict.reason, now)
            case "fail":
                return [self._finish(progress, progress.failed(verdict.reason, now), now)]
        return []

    def _rule_of(self, progress: JobState) -> ReadinessRule:
        return self._rules.run_readiness if progress.job.request.run_uid else self._rules.readiness

    def _give_up(self, progress: JobState, reason: str, now: Instant) -> list[Instruction]:
        """Stop waiting: fail, or write a placeholder, but never in place of a raw frame; or count what is there."""
        if progress.expansion is not None and progress.keeps_frames(self._rule_of(progress), now.monotonic):
            return [progress.expansion]
        wanted = self._rules.placeholders or progress.job.request.placeholder is not None
        if wanted and not isinstance(progress.job.recipe.output, InPlace):
            progress.gave_up = reason
            self._queue.add(progress.job)
            return []
        return [self._finish(progress, progress.failed(reason, now), now)]

    def _answered(self, event: AttemptDone | Expanded | SidecarObserved, now: Instant) -> list[Instruction]:
        match event:
            case AttemptDone():
                return self._done(event, now)
            case SidecarObserved():
                return self._sidecar_observed(event, now)
        progress = self._jobs.get(event.job_id)
        return [] if progress is None else [self._finish(progress, progress.expanded(event, now), now)]

    def _done(self, event: AttemptDone, now: Instant) -> list[Instruction]:
        self._queue.ended(event.job_id)
        progress = self._jobs.get(event.job_id)
        if progress is None:
            return []
        report = progress.completed(event.report, now)
        wanted = is_sidecar_error(report.reason) or (progress.sidecar_expected and self._rules.sidecar_timeout > 0)
        awaited = wanted and report.outcome == "converted" and report.sidecar == "absent"
        if not awaited or isinstance(progress.job.recipe.output, InPlace):
            return [self._finish(progress, report, now)]
        progress.await_sidecar(report, now.monotonic, self._rules.sidecar_timeout)
        return [self._poll_of(progress, now)]

    def _sidecar_observed(self, event: SidecarObserved, now: Instant) -> list[Instruction]:
        self._polls.returned(event.job_id)
        progress = self._jobs.get(event.job_id)
        if progress is None or progress.report is None:
            return []
        again = progress.sidecar_observed(progress.report, event, self._rule_of(progress), now.monotonic)
        if again is None:
            return [self._finish(progress, progress.report, now)]
        self._polls.add(event.job_id, again, now.monotonic)
        return []

    def _failed(self, event: AttemptFailed, now: Instant) -> list[Instruction]:
        job_id = event.job_id
        self._queue.ended(job_id)
        self._unchecked.discard(job_id)
        self._polls.returned(job_id)
        progress = self._jobs.get(job_id)
        if progress is None:
            return []
        if progress.report is not None:  # the image stays converted: only its sidecar failed
            report = progress.report.model_copy(update={"reason": progress.noted(event.reason)})
            return [self._finish(progress, report, now)]
        sequel = progress.attempt_failed(event, self._rule_of(progress), self._rules.attempts, now.monotonic)
        if sequel.kind != "end":
            self._queue.free({job_id})
        match sequel.kind:
            case "ready":
                self._queue.add(progress.job)
            case "poll":
                return [self._observe(progress.job, now)]
            case "later":
                self._blocked.add(job_id)
                self._polls.add(job_id, sequel.again, now.monotonic)
            case "end":
                return [self._finish(progress, progress.failed(sequel.reason, now), now)]
        return []

    def _not_cancellable(self) -> frozenset[str]:
        """Return the jobs that can't be cancelled any more: running, converted or reported."""
        converted = (job_id for job_id, progress in self._jobs.items() if progress.report is not None)
        return frozenset(self._queue.running).union(converted, self._unwritten.keys())

    def _may_be_cancelled(self, job_id: str) -> bool:
        """Whether a job may already be cancelled on the ledger, so that its event must wait for the answer."""
        progress = self._jobs.get(job_id) if self._cancelling else None
        return progress is not None and progress.report is None and job_id not in self._queue.running

    def _cancelled(self, event: Cancelled, now: Instant) -> list[Instruction]:
        self._cancelling -= 1
        in_memory = [job_id for job_id in self._jobs if job_id in event.job_ids]
        for job_id in in_memory:
            self._forget(job_id)
        self._queue.drop(event.job_ids)
        self._backlog.cancelled(event, len(in_memory))
        self._statistics.add_cancelled(event.reports)
        if self._cancelling:
            return []
        postponed, self._postponed = self._postponed, []
        return [step for late in postponed for step in self._handle(late, now)]

    def _end(self, now: Instant) -> list[Instruction]:
        """Report the frames that are converted and only wait for their sidecar."""
        waiting = [(progress, progress.report) for progress in self._jobs.values() if progress.report is not None]
        return [self._finish(progress, report, now) for progress, report in waiting]

    def _finish(self, progress: JobState, report: FrameReport, now: Instant) -> Instruction:
        self._forget(progress.job.job_id)
        self._unwritten[progress.job.job_id] = report
        if report.outcome == "converted":
            self._corrections.add(progress.job, report)
        if report.outcome in {"converted", "placeholder"} and report.output is not None:
            self._scans.converted(progress.job, report.output, now.monotonic)
        return Finish(report, progress.identity)

    def _forget(self, job_id: str) -> None:
        del self._jobs[job_id]
        self._polls.forget(job_id)
        self._unchecked.discard(job_id)
        self._blocked.discard(job_id)

    def _poll_of(self, progress: JobState, now: Instant) -> Instruction:
        """Return the poll that a job waits for: of its source, or of the sidecar of its converted frame."""
        if progress.report is not None and progress.report.output is not None:
            return CarrySidecar(progress.job, Path(progress.report.output))
        return self._observe(progress.job, now)

    def _observe(self, job: Job, now: Instant) -> Observe:
        return Observe(job, self._ready_darks.to_check(job.awaited_darks, now.monotonic))
