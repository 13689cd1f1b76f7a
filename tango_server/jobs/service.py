r"""The state of every job between accepted and reported: events and clock readings in, instructions out.

::

    ledger --(fetched)--> waiting --(ready)--> queued --> running --> (sidecar) --> reported
                             ^  \--(timeout: failed, or queued as a placeholder)-----^
                             |                                |
                             +---(the file was replaced, or the output is blocked)

Only a window of the ledger's jobs is in memory: those that were never looked at and those that are ready are few, so
that memory does not grow with the backlog. Files that are awaited leave the window, so that they delay nobody.
The image is visible from the end of `running`; only the report waits for a sidecar that is to be expected.

It has no threads, does no I/O and never sleeps; `engine` does what it says.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tango_server.conversion.sidecar import is_expected
from tango_server.jobs.backlog import Backlog
from tango_server.jobs.looks import LookSchedule
from tango_server.jobs.progress import Progress
from tango_server.jobs.readiness import ReadinessRule, Wait, deadline_of, judge
from tango_server.jobs.statistics import Statistics
from tango_server.jobs.vocabulary import (
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
    FailuresAcknowledged,
    FailuresRetried,
    Fetched,
    Finish,
    Instruction,
    Job,
    Observe,
    Observed,
    PauseWanted,
    Reading,
    Refused,
    SidecarLooked,
    Snapshot,
    StatisticsReset,
    TimePassed,
)
from tango_server.messages import FrameReport
from tango_server.recipe import InPlace

_SIDECAR_INTERVAL = 0.1
_UNFIT_INTERVAL = 0.5
_UNAVAILABLE_INTERVAL = 1.0
_BLOCKED_INTERVALS = (0.5, 10.0)


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """What the service goes by. `run_readiness` holds for frames of a run, which the detector has announced.

    With `placeholders` a new frame of zeros takes the place of a file that never came, of `placeholder_shape` (rows,
    columns) unless its request tells another.
    """

    workers: int = 2
    readiness: ReadinessRule = field(default_factory=ReadinessRule)
    run_readiness: ReadinessRule = field(default_factory=lambda: ReadinessRule(timeout=300.0))
    attempts: int = 3
    sidecar_timeout: float = 2.0
    placeholders: bool = False
    placeholder_shape: tuple[int, int] = (2048, 2048)


class ConversionService:
    """Owner of all jobs that have no report yet, and of the counters."""

    def __init__(self, rules: ServiceRules, *, paused: bool = False) -> None:
        self._rules = rules
        self._jobs: dict[str, Progress] = {}
        self._backlog = Backlog()
        self._first_looks: set[str] = set()
        self._ready: deque[str] = deque()
        self._blocked: set[str] = set()
        self._running: set[str] = set()
        self._looks = LookSchedule()
        self._paused = paused
        self._cancelling = 0
        self._statistics = Statistics()

    def handle(self, event: Event, now: Reading) -> list[Instruction]:
        """Take one event in and return what is to be done, in order."""
        instructions: list[Instruction] = []
        match event:
            case Accepted(count):
                self._backlog.accepted(count)
            case Fetched():
                instructions += self._fetched(event, now)
            case Observed():
                instructions += self._observed(event, now)
            case AttemptDone():
                instructions += self._done(event, now)
            case SidecarLooked():
                instructions += self._sidecar_looked(event, now)
            case AttemptFailed():
                instructions += self._failed(event, now)
            case TimePassed():
                instructions += [_look_of(self._jobs[job_id]) for job_id in self._looks.take_due(now.monotonic)]
            case Ending():
                instructions += self._end(now)
            case CancelWanted(ticket, selection):
                self._cancelling += 1
                instructions.append(Cancel(ticket, selection, self._beyond_recall()))
            case Cancelled():
                self._cancelled(event)
            case PauseWanted(paused):
                self._paused = paused
            case _:
                self._count(event, now)
        return [*instructions, *self._dispatch(), *self._fetch()]

    @property
    def next_look(self) -> float | None:
        """The monotonic instant at which `TimePassed` is wanted, None if nothing waits."""
        return self._looks.next

    def running_jobs(self) -> list[Job]:
        """Return the jobs that a worker has."""
        return [self._jobs[job_id].job for job_id in self._running if job_id in self._jobs]

    def snapshot(self, now: Reading) -> Snapshot:
        """Return the counters and the length of the queue (jobs without a report)."""
        length = len(self._jobs) + self._backlog.length
        return self._statistics.snapshot(now.monotonic, length, len(self._running), paused=self._paused)

    def _count(self, event: Event, now: Reading) -> None:
        match event:
            case Refused(report):
                self._statistics.add(report, now.monotonic)
            case StatisticsReset():
                self._statistics = self._statistics.restarted()
            case FailuresAcknowledged():
                self._statistics.unacknowledged = 0
            case FailuresRetried(count):
                self._backlog.accepted(count)
                self._statistics.forget_failures()

    def _fetch(self) -> Sequence[Instruction]:
        if self._cancelling:
            return []
        return self._backlog.fetch(len(self._first_looks) + len(self._ready) + len(self._blocked))

    def _fetched(self, event: Fetched, now: Reading) -> list[Instruction]:
        self._backlog.fetched(event)
        for job in event.jobs:
            self._jobs[job.job_id] = Progress(job, now.monotonic)
            self._first_looks.add(job.job_id)
        return [Observe(job) for job in event.jobs]

    def _observed(self, event: Observed, now: Reading) -> list[Instruction]:
        self._first_looks.discard(event.job_id)
        self._looks.returned(event.job_id)
        self._blocked.discard(event.job_id)
        progress = self._jobs.get(event.job_id)
        if progress is None or event.job_id in self._running:
            return []
        rule = self._rule_of(progress)
        progress.wait, verdict = judge(rule, progress.wait, event.structure, event.trouble, now)
        match verdict.kind:
            case "ready" if progress.wait.identity == progress.unfit:
                return self._wait_for_another_file(progress, rule, now)
            case "ready":
                settled = event.structure is not None and event.structure.ifd_last
                progress.complete_seen = progress.wait.still_since if settled else now.monotonic
                progress.sidecar_expected = event.structure is not None and is_expected(event.structure)
                progress.gave_up = ""
                self._ready.append(event.job_id)
                return []
            case "wait":
                self._looks.add(event.job_id, verdict.again, now.monotonic)
                return []
            case "give_up":
                return self._give_up(progress, verdict.reason, now)

    def _rule_of(self, progress: Progress) -> ReadinessRule:
        return self._rules.run_readiness if progress.job.run_uid else self._rules.readiness

    def _give_up(self, progress: Progress, reason: str, now: Reading) -> list[Instruction]:
        """End a wait: as failed, or with a frame of zeros, which is never put in the place of a raw frame."""
        if self._rules.placeholders and not isinstance(progress.job.recipe.output, InPlace):
            progress.gave_up = reason
            self._ready.append(progress.job.job_id)
            return []
        return [self._finish(progress, progress.failed(reason, now), now)]

    def _wait_for_another_file(self, progress: Progress, rule: ReadinessRule, now: Reading) -> list[Instruction]:
        """Give a file that only looks complete, as its conversion has found, the rest of its time to be replaced."""
        deadline = deadline_of(rule, progress.wait, now.monotonic)
        if now.monotonic >= deadline:
            return self._give_up(progress, progress.unfit_reason, now)
        self._looks.add(progress.job.job_id, min(now.monotonic + _UNFIT_INTERVAL, deadline), now.monotonic)
        return []

    def _dispatch(self) -> list[Instruction]:
        """Start what is ready, first come first served, but never two jobs with one output at a time."""
        if self._paused or self._cancelling:
            return []
        starts: list[Instruction] = []
        busy = {job.output for job in self.running_jobs()}
        postponed: list[str] = []
        while self._ready and len(self._running) < self._rules.workers:
            progress = self._jobs[self._ready.popleft()]
            job = progress.job
            if job.output in busy:
                postponed.append(job.job_id)
                continue
            busy.add(job.output)
            progress.starts += 1
            progress.attempts += 1
            self._running.add(job.job_id)
            shape = (job.shape or self._rules.placeholder_shape) if progress.gave_up else None
            starts.append(Convert(job, progress.starts, shape, progress.gave_up))
        self._ready.extendleft(reversed(postponed))
        return starts

    def _done(self, event: AttemptDone, now: Reading) -> list[Instruction]:
        self._running.discard(event.job_id)
        progress = self._jobs.get(event.job_id)
        if progress is None:
            return []
        report = progress.completed(event.report, now)
        wanted = bool(report.reason) or (progress.sidecar_expected and self._rules.sidecar_timeout > 0)
        awaited = wanted and report.outcome == "converted" and report.sidecar == "absent"
        if not awaited or isinstance(progress.job.recipe.output, InPlace):
            return [self._finish(progress, report, now)]
        progress.report, progress.sidecar_deadline = report, now.monotonic + self._rules.sidecar_timeout
        progress.blocked_since = None  # that was the image
        return [_look_of(progress)]

    def _sidecar_looked(self, event: SidecarLooked, now: Reading) -> list[Instruction]:
        self._looks.returned(event.job_id)
        progress = self._jobs.get(event.job_id)
        if progress is None or progress.report is None:
            return []
        sidecar = "carried" if event.carried else "absent"
        progress.report = progress.report.model_copy(update={"sidecar": sidecar, "reason": event.trouble})
        deadline, interval = progress.sidecar_deadline, _SIDECAR_INTERVAL
        if event.blocked:  # it is there, and is tried for as long as the image would have been
            elapsed = progress.blocked_for(now)
            deadline, interval = now.monotonic - elapsed + self._rule_of(progress).timeout, _blocked_interval(elapsed)
        if event.carried or now.monotonic >= deadline:
            return [self._finish(progress, progress.report, now)]
        self._looks.add(event.job_id, min(now.monotonic + interval, deadline), now.monotonic)
        return []

    def _failed(self, event: AttemptFailed, now: Reading) -> list[Instruction]:
        self._running.discard(event.job_id)
        self._first_looks.discard(event.job_id)
        self._looks.returned(event.job_id)
        progress = self._jobs.get(event.job_id)
        if progress is None:
            return []
        if progress.report is not None or event.kind == "final":
            # An image that is there already stays converted: only its sidecar makes trouble.
            told = progress.report and progress.report.model_copy(update={"reason": event.reason})
            return [self._finish(progress, told or progress.failed(event.reason, now), now)]
        if event.kind == "crashed":
            return self._crashed(progress, event.reason, now)
        progress.attempts -= 1  # by no fault of the frame
        if event.kind == "blocked":
            return self._try_later(progress, event.reason, now)
        if event.kind == "unavailable":
            self._blocked.add(event.job_id)
            self._looks.add(event.job_id, now.monotonic + _UNAVAILABLE_INTERVAL, now.monotonic)
            return []
        progress.unfit, progress.unfit_reason = progress.wait.identity, event.reason
        progress.wait = Wait()  # whatever comes now starts anew
        return [Observe(progress.job)]

    def _crashed(self, progress: Progress, reason: str, now: Reading) -> list[Instruction]:
        if progress.attempts < self._rules.attempts:
            self._ready.append(progress.job.job_id)
            return []
        text = f"{progress.job.source}: gave up after {progress.attempts} attempts: {reason}"
        return [self._finish(progress, progress.failed(text, now), now)]

    def _try_later(self, progress: Progress, reason: str, now: Reading) -> list[Instruction]:
        """Try again a job whose output can't be written, for as long as its file would have been awaited."""
        elapsed = progress.blocked_for(now)
        if elapsed >= self._rule_of(progress).timeout:
            return [self._finish(progress, progress.failed(f"gave up after {elapsed:.0f} s: {reason}", now), now)]
        self._blocked.add(progress.job.job_id)
        self._looks.add(progress.job.job_id, now.monotonic + _blocked_interval(elapsed), now.monotonic)
        return []

    def _beyond_recall(self) -> frozenset[str]:
        """Return the jobs that can't be cancelled any more: a worker has them, or their output is there."""
        converted = (job_id for job_id, progress in self._jobs.items() if progress.report is not None)
        return frozenset(self._running).union(converted)

    def _cancelled(self, event: Cancelled) -> None:
        self._cancelling -= 1
        in_memory = [job_id for job_id in self._jobs if job_id in event.job_ids]
        for job_id in in_memory:
            self._forget(job_id)
        self._ready = deque(job_id for job_id in self._ready if job_id in self._jobs)
        self._backlog.cancelled(event, len(in_memory))
        self._statistics.add_cancelled(event.reports)

    def _end(self, now: Reading) -> list[Instruction]:
        """Report what is converted and only waits for its sidecar."""
        waiting = [(progress, progress.report) for progress in self._jobs.values() if progress.report is not None]
        return [self._finish(progress, report, now) for progress, report in waiting]

    def _finish(self, progress: Progress, report: FrameReport, now: Reading) -> Instruction:
        self._forget(progress.job.job_id)
        self._statistics.add(report, now.monotonic)
        return Finish(report, progress.identity)

    def _forget(self, job_id: str) -> None:
        del self._jobs[job_id]
        self._looks.forget(job_id)
        self._first_looks.discard(job_id)
        self._blocked.discard(job_id)


def _blocked_interval(elapsed: float) -> float:
    """Return when to try again (s) what can't be written for `elapsed` seconds."""
    shortest, longest = _BLOCKED_INTERVALS
    return min(max(elapsed / 5, shortest), longest)


def _look_of(progress: Progress) -> Instruction:
    """Return the look that a job waits for: at its source, or at the sidecar of its converted frame."""
    if progress.report is not None and progress.report.output is not None:
        return CarrySidecar(progress.job, Path(progress.report.output))
    return Observe(progress.job)
