r"""The state of every job between accepted and reported: events and clock readings in, instructions out.

::

    Accepted -> waiting --(ready)--> queued --> running --> (sidecar) --> reported
                   ^  \--(timeout)----------------------------------------^
                   |                              |
                   +---(the file was replaced)----+

The image is visible from the end of `running`; only the report waits for a sidecar that is to be expected.

It has no threads, does no I/O and never sleeps; `runner` does what it says.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from tango_server.conversion.sidecar import is_expected
from tango_server.jobs.readiness import ReadinessRule, Wait, deadline_of, judge
from tango_server.jobs.statistics import Statistics
from tango_server.jobs.vocabulary import (
    Accepted,
    AttemptDone,
    AttemptFailed,
    CarrySidecar,
    Convert,
    Ending,
    Event,
    FailuresAcknowledged,
    Finish,
    Instruction,
    Job,
    Observe,
    Observed,
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


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """What the service goes by. `run_timeout` (s) holds for frames of a run, which the detector has announced."""

    workers: int = 2
    readiness: ReadinessRule = field(default_factory=ReadinessRule)
    run_readiness: ReadinessRule = field(default_factory=lambda: ReadinessRule(timeout=300.0))
    attempts: int = 3
    sidecar_timeout: float = 2.0


@dataclass(slots=True)
class _Progress:
    """How far a job has come. Instants by the monotonic clock."""

    job: Job
    accepted: float
    wait: Wait
    complete_seen: float = 0.0
    attempts: int = 0
    unfit: tuple[int, int, int] | None = None
    """Identity of the file that a conversion found incomplete although its structure is not."""
    unfit_reason: str = ""
    sidecar_expected: bool = False
    sidecar_deadline: float = 0.0
    report: FrameReport | None = None
    """The report of a converted frame that still waits for its sidecar."""


class ConversionService:
    """Owner of all jobs that have no report yet, and of the counters."""

    def __init__(self, rules: ServiceRules) -> None:
        self._rules = rules
        self._jobs: dict[str, _Progress] = {}
        self._ready: deque[str] = deque()
        self._running: set[str] = set()
        self._due: list[tuple[float, str]] = []
        self._statistics = Statistics()

    def handle(self, event: Event, now: Reading) -> list[Instruction]:
        """Take one event in and return what is to be done, in order."""
        instructions: list[Instruction] = []
        match event:
            case Accepted(jobs):
                instructions += [self._accept(job, now) for job in jobs]
            case Observed():
                instructions += self._observed(event, now)
            case AttemptDone():
                instructions += self._done(event, now)
            case SidecarLooked():
                instructions += self._sidecar_looked(event, now)
            case AttemptFailed():
                instructions += self._failed(event, now)
            case TimePassed():
                instructions += self._look_again(now)
            case Ending():
                instructions += self._end(now)
            case Refused(report):
                self._statistics.add(report, now.monotonic)
            case StatisticsReset():  # an alarm stays until somebody acknowledges it
                old = self._statistics
                self._statistics = Statistics(last_error=old.last_error, unacknowledged=old.unacknowledged)
            case FailuresAcknowledged():
                self._statistics.unacknowledged = 0
        return instructions + self._dispatch()

    def _end(self, now: Reading) -> list[Instruction]:
        """Report what is converted and only waits for its sidecar."""
        waiting = [(progress, progress.report) for progress in self._jobs.values() if progress.report is not None]
        return [self._finish(progress, report, now) for progress, report in waiting]

    @property
    def next_look(self) -> float | None:
        """The monotonic instant at which `TimePassed` is wanted, None if nothing waits."""
        return self._due[0][0] if self._due else None

    def running_jobs(self) -> list[Job]:
        """Return the jobs that a worker has."""
        return [self._jobs[job_id].job for job_id in self._running if job_id in self._jobs]

    def snapshot(self, now: Reading) -> Snapshot:
        """Return the counters and the length of the queue (jobs without a report)."""
        return self._statistics.snapshot(now.monotonic, len(self._jobs), len(self._running))

    def _accept(self, job: Job, now: Reading) -> Instruction:
        self._jobs[job.job_id] = _Progress(job, now.monotonic, Wait())
        return Observe(job.job_id, job.source)

    def _look_again(self, now: Reading) -> list[Instruction]:
        looks: list[Instruction] = []
        while self._due and self._due[0][0] <= now.monotonic:
            _, job_id = heapq.heappop(self._due)
            progress = self._jobs.get(job_id)
            if progress is not None:
                looks.append(_look_of(progress))
        return looks

    def _observed(self, event: Observed, now: Reading) -> list[Instruction]:
        progress = self._jobs.get(event.job_id)
        if progress is None:
            return []
        rule = self._rules.run_readiness if progress.job.run_uid else self._rules.readiness
        progress.wait, verdict = judge(rule, progress.wait, event.structure, event.trouble, now.monotonic)
        match verdict.kind:
            case "ready" if progress.wait.identity == progress.unfit:
                return self._wait_for_another_file(progress, rule, now)
            case "ready":
                settled = event.structure is not None and event.structure.ifd_last
                progress.complete_seen = progress.wait.still_since if settled else now.monotonic
                progress.sidecar_expected = event.structure is not None and is_expected(event.structure)
                self._ready.append(event.job_id)
                return []
            case "wait":
                heapq.heappush(self._due, (verdict.again, event.job_id))
                return []
            case "give_up":
                return [self._finish(progress, self._failure(progress, verdict.reason, now), now)]

    def _wait_for_another_file(self, progress: _Progress, rule: ReadinessRule, now: Reading) -> list[Instruction]:
        """Give a file that only looks complete, as its conversion has found, the rest of its time to be replaced."""
        deadline = deadline_of(rule, progress.wait, now.monotonic)
        if now.monotonic >= deadline:
            return [self._finish(progress, self._failure(progress, progress.unfit_reason, now), now)]
        heapq.heappush(self._due, (min(now.monotonic + _UNFIT_INTERVAL, deadline), progress.job.job_id))
        return []

    def _dispatch(self) -> list[Instruction]:
        """Start what is ready, first come first served, but never two jobs with one output at a time."""
        starts: list[Instruction] = []
        busy = {job.output for job in self.running_jobs()}
        postponed: list[str] = []
        while self._ready and len(self._running) < self._rules.workers:
            progress = self._jobs[self._ready.popleft()]
            if progress.job.output in busy:
                postponed.append(progress.job.job_id)
                continue
            busy.add(progress.job.output)
            progress.attempts += 1
            self._running.add(progress.job.job_id)
            starts.append(Convert(progress.job, progress.attempts))
        self._ready.extendleft(reversed(postponed))
        return starts

    def _done(self, event: AttemptDone, now: Reading) -> list[Instruction]:
        self._running.discard(event.job_id)
        progress = self._jobs.get(event.job_id)
        if progress is None:
            return []
        job = progress.job
        report = event.report.model_copy(
            update={
                "job_id": job.job_id,
                "latency": now.monotonic - max(progress.accepted, progress.complete_seen),
                "accepted": job.accepted,
                "run_uid": job.run_uid,
                "stream": job.stream,
                "seq_num": job.seq_num,
            }
        )
        wanted = progress.sidecar_expected and self._rules.sidecar_timeout > 0
        awaited = wanted and report.outcome == "converted" and report.sidecar == "absent"
        if not awaited or isinstance(job.recipe.output, InPlace):
            return [self._finish(progress, report, now)]
        progress.report, progress.sidecar_deadline = report, now.monotonic + self._rules.sidecar_timeout
        return [_look_of(progress)]

    def _sidecar_looked(self, event: SidecarLooked, now: Reading) -> list[Instruction]:
        progress = self._jobs.get(event.job_id)
        if progress is None or progress.report is None:
            return []
        if event.carried:
            return [self._finish(progress, progress.report.model_copy(update={"sidecar": "carried"}), now)]
        if now.monotonic >= progress.sidecar_deadline:
            return [self._finish(progress, progress.report, now)]
        heapq.heappush(self._due, (min(now.monotonic + _SIDECAR_INTERVAL, progress.sidecar_deadline), event.job_id))
        return []

    def _failed(self, event: AttemptFailed, now: Reading) -> list[Instruction]:
        self._running.discard(event.job_id)
        progress = self._jobs.get(event.job_id)
        if progress is None:
            return []
        if progress.report is not None:  # its image is there already: only the sidecar makes trouble
            return [self._finish(progress, progress.report, now)]
        if event.kind == "not_ready":
            progress.attempts -= 1
            progress.unfit, progress.unfit_reason = progress.wait.identity, event.reason
            progress.wait = Wait()  # whatever comes now starts anew
            return [Observe(event.job_id, progress.job.source)]
        if event.kind == "crashed" and progress.attempts < self._rules.attempts:
            self._ready.append(event.job_id)
            return []
        reason = event.reason
        if event.kind == "crashed":
            reason = f"{progress.job.source}: gave up after {progress.attempts} attempts: {event.reason}"
        return [self._finish(progress, self._failure(progress, reason, now), now)]

    def _failure(self, progress: _Progress, reason: str, now: Reading) -> FrameReport:
        source = str(progress.job.source)
        return progress.job.failed(reason if source in reason else f"{source}: {reason}", now.wall)

    def _finish(self, progress: _Progress, report: FrameReport, now: Reading) -> Instruction:
        del self._jobs[progress.job.job_id]
        self._statistics.add(report, now.monotonic)
        return Finish(report)


def _look_of(progress: _Progress) -> Instruction:
    """Return the look that a job waits for: at its source, or at the sidecar of its converted frame."""
    if progress.report is not None and progress.report.output is not None:
        return CarrySidecar(progress.job, Path(progress.report.output))
    return Observe(progress.job.job_id, progress.job.source)
