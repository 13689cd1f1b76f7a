"""The state of one job: its transitions and its reports."""

from dataclasses import dataclass, field, replace
from typing import Literal

from tango_server.backoff import Backoff
from tango_server.conversion.file_state import FileState
from tango_server.conversion.sidecar import is_sidecar_error, without_sidecar_error
from tango_server.jobs.job import Job
from tango_server.jobs.state_machine.dark_waits import DarkWaits
from tango_server.jobs.state_machine.events import AttemptFailed, Expand, Expanded, Instant, Observed, SidecarObserved
from tango_server.jobs.state_machine.readiness import ReadinessRule, Verdict, Wait, deadline_of, judge
from tango_server.messages import AwaitedFrame, FrameReport
from tango_server.recipe import InPlace
from tango_server.text import counted

_SIDECAR_POLLS = Backoff(shortest=0.1, factor=0.5)  # most sidecars come at once; without QXRD there are none
_INCOMPLETE_INTERVAL = 0.5
_UNAVAILABLE_INTERVAL = 1.0
_BLOCKED_RETRIES = Backoff(shortest=0.5, longest=10.0, factor=0.2)


SMALL = 2**20
"""Bytes of a file whose conversion takes almost no time."""


@dataclass(frozen=True, slots=True)
class Sequel:
    """What to do after a failed attempt.

    The job is `ready` for the next attempt, its source is polled now or `later` at the instant `again` (monotonic s),
    or it ends as failed for `reason`.
    """

    kind: Literal["ready", "poll", "later", "end"]
    again: float = 0.0
    reason: str = ""


@dataclass(slots=True)
class JobState:
    """A job in memory, until it has a report. Instants by the monotonic clock, in s."""

    job: Job
    accepted: float
    wait: Wait = field(default_factory=Wait)
    is_awaited: bool = False
    """Whether the last look found that the file is not complete yet."""
    complete_seen: float = 0.0
    frames: int | None = None
    """The number of frames in a file that becomes one job for each; None for every other file."""
    problem: str = ""
    """What the last poll found wrong with the source."""
    starts: int = 0
    attempts: int = 0
    """Starts that count towards the limit: without those that failed through no fault of the frame."""
    incomplete: tuple[int, int, int] | None = None
    """Identity of a file that looks complete but whose conversion found it incomplete."""
    incomplete_reason: str = ""
    blocked_since: float | None = None
    """When writing its output, or later its sidecar, first failed."""
    gave_up: str = ""
    """Why the file is no longer awaited; a placeholder will replace it."""
    darks: DarkWaits = field(default_factory=DarkWaits)
    needed_until: float | None = None
    """Deadline for a sidecar that the conversion needs; None before the first poll without it."""
    sidecar_expected: bool = False
    sidecar_since: float = 0.0
    """When its image became visible."""
    sidecar_deadline: float = 0.0
    report: FrameReport | None = None
    """The report of a converted frame that is waiting for its sidecar."""
    notes: str = ""
    """The reason in that report, without the error of the sidecar."""

    @property
    def identity(self) -> tuple[int, int] | None:
        """Size (bytes) and modification time (ns) of the source at the last poll."""
        return self.wait.identity[1:] if self.wait.identity else None

    @property
    def is_small(self) -> bool:
        """Whether its conversion takes almost no time."""
        return self.identity is not None and self.identity[0] <= SMALL

    def seen(self, poll: Observed, rule: ReadinessRule, now: Instant, sidecar_timeout: float = 0.0) -> Verdict:
        """Evaluate a poll of the source; return whether it is ready.

        If the conversion needs a sidecar, wait for it for `sidecar_timeout` seconds. Without it the conversion reports
        what is missing. The darks of its run are awaited as the source is, from when that exists.
        """
        if self.job.request.placeholder is not None:
            return Verdict("give_up", reason=self.job.request.placeholder)
        darks = self.darks.seen(poll.darks, rule, now, sidecar_timeout)
        self.frames = self._frames_in(poll.state)
        self.problem = "" if poll.state is None else poll.state.problem
        whole = rule if self.job.request.frame is None else replace(rule, min_size=0)  # which is a size of files
        self.wait, verdict = judge(whole, self.wait, poll.state, poll.problem, now)
        if verdict.kind != "ready":
            self.darks.missing = ""  # it is the frame itself that is awaited
            return verdict
        if self.wait.identity == self.incomplete:
            return self._until_replaced(rule, now.monotonic)
        if self.needed_until is None and poll.lacks_sidecar:
            self.needed_until = now.monotonic + sidecar_timeout
        if darks.kind != "ready":
            return darks
        if poll.lacks_sidecar and self.needed_until is not None and now.monotonic < self.needed_until:
            return Verdict("wait", again=min(now.monotonic + _SIDECAR_POLLS.shortest, self.needed_until))
        proven = poll.state is not None and poll.state.proof
        self.complete_seen = self.wait.still_since if proven else now.monotonic
        carried = self.job.recipe.esperanto is None
        self.sidecar_expected = carried and poll.state is not None and poll.state.sidecar_expected
        self.gave_up = ""
        return verdict

    def _frames_in(self, state: FileState | None) -> int | None:
        """Return how many jobs a file becomes, None for one that is converted itself or whose error is reported."""
        if state is None or self.job.request.frame is not None:
            return None
        return state.frames if state.frames or state.state == "complete" else None

    @property
    def expansion(self) -> Expand | None:
        """What to do with a file of several frames; None for every other file."""
        return None if self.frames is None else Expand(self.job, self.frames, self.problem)

    @property
    def unfit_for_group(self) -> str:
        """Why its file cannot be a member of a group; empty if it can."""
        if self.frames is None:
            return ""
        return (
            f"{self.job.location}: cannot combine: the file has {counted(self.frames, 'frame')}. Make each of them a "
            'member, by its index; "every" counts those in an HDF5 file by itself.'
        )

    def wants_sidecar(self, report: FrameReport, timeout: float) -> bool:
        """Whether to wait for the sidecar of a converted frame, for at most `timeout` seconds."""
        wanted = is_sidecar_error(report.reason) or (self.sidecar_expected and timeout > 0)
        awaited = wanted and report.outcome == "converted" and report.sidecar == "absent"
        return awaited and not isinstance(self.job.recipe.output, InPlace)

    def keeps_frames(self, rule: ReadinessRule, now: float) -> bool:
        """Whether an incomplete file has frames that can be counted, since it no longer changes at `now` (monotonic s).

        Each of its frames then says itself whether it is there.
        """
        return bool(self.frames) and now - self.wait.still_since >= rule.settle_time

    def awaited(self, rule: ReadinessRule, now: float) -> AwaitedFrame:
        """Return why its file is not converted yet, at `now` (monotonic s)."""
        deadline = deadline_of(rule, self.wait, now)
        if self.incomplete is not None and self.wait.identity == self.incomplete:
            reason = self.incomplete_reason
        elif self.darks.missing:
            reason, deadline = self.darks.missing, self.darks.deadline
        else:
            reason = "its sidecar is missing" if self.needed_until is not None else self.wait.found
        return AwaitedFrame(
            source=str(self.job.source),
            reason=reason,
            waited=now - (now if self.wait.since is None else self.wait.since),
            remaining=max(deadline - now, 0.0),
        )

    def _until_replaced(self, rule: ReadinessRule, now: float) -> Verdict:
        """Wait for a file that only looks complete to be replaced, until its timeout."""
        deadline = deadline_of(rule, self.wait, now)
        if now >= deadline:
            return Verdict("give_up", reason=self.incomplete_reason)
        return Verdict("wait", again=min(now + _INCOMPLETE_INTERVAL, deadline))

    def attempt_failed(self, event: AttemptFailed, rule: ReadinessRule, attempts: int, now: float) -> Sequel:
        """Handle an attempt that failed at `now` (monotonic s); `attempts` is the maximum number."""
        match event.kind:
            case "final":
                return Sequel("end", reason=event.reason)
            case "crashed" if self.attempts < attempts:
                return Sequel("ready")
            case "crashed":
                return Sequel(
                    "end", reason=f"{self.job.source}: gave up after {self.attempts} attempts: {event.reason}"
                )
        self.attempts = max(self.attempts - 1, 0)  # not the fault of the frame
        match event.kind:
            case "blocked":
                return self._until_unblocked(event.reason, rule, now)
            case "away" | "unavailable":
                if event.kind == "away":  # start over when the file system is back
                    self.wait, self.darks, self.attempts = Wait(), DarkWaits(), 0
                return Sequel("later", now + _UNAVAILABLE_INTERVAL)
            case "not_ready":
                self.incomplete, self.incomplete_reason = self.wait.identity, event.reason
                self.wait = Wait()  # the next version of the file starts over
                return Sequel("poll")

    def _until_unblocked(self, reason: str, rule: ReadinessRule, now: float) -> Sequel:
        """Retry a job whose output can't be written, for as long as it would wait for its source."""
        elapsed = self._blocked_for(now)
        if elapsed >= rule.timeout:
            return Sequel("end", reason=f"gave up after {elapsed:.0f} s: {reason}")
        return Sequel("later", now + _BLOCKED_RETRIES.after(elapsed))

    def sidecar_observed(
        self, report: FrameReport, poll: SidecarObserved, rule: ReadinessRule, now: float
    ) -> float | None:
        """Evaluate a poll of the sidecar of a converted frame; return when to poll again (monotonic s), or None."""
        sidecar = "carried" if poll.carried else "absent"
        self.report = report.model_copy(update={"sidecar": sidecar, "reason": self.noted(poll.problem)})
        deadline = self.sidecar_deadline
        interval = _SIDECAR_POLLS.after(now - self.sidecar_since)
        if poll.blocked:  # it exists: retry for as long as for the image
            elapsed = self._blocked_for(now)
            deadline, interval = now - elapsed + rule.timeout, _BLOCKED_RETRIES.after(elapsed)
        return None if poll.carried or now >= deadline else min(now + interval, deadline)

    def await_sidecar(self, report: FrameReport, now: float, timeout: float) -> None:
        """Begin to wait for the sidecar of a converted frame at `now` (monotonic s)."""
        self.report, self.notes = report, without_sidecar_error(report.reason)
        self.sidecar_since, self.sidecar_deadline = now, now + timeout
        self.blocked_since = None  # it counted for the image

    def noted(self, problem: str) -> str:
        """Return the reason for the report of a converted frame whose sidecar has this problem; empty for none."""
        return f"{self.notes} {problem}".strip()

    def _blocked_for(self, now: float) -> float:
        """Return for how long (s) writing has failed; the first call starts the clock."""
        if self.blocked_since is None:
            self.blocked_since = now
        return now - self.blocked_since

    def completed(self, report: FrameReport, now: Instant) -> FrameReport:
        """Return a worker's report, completed with job id, times and origin."""
        latency = now.monotonic - max(self.accepted, self.complete_seen) if report.outcome == "converted" else None
        return report.model_copy(
            update={
                "job_id": self.job.job_id,
                "latency": latency,
                "accepted": self.job.accepted,
                "finished": now.wall,
                **self.job.request.origin,
            }
        )

    def expanded(self, event: Expanded, now: Instant) -> FrameReport:
        """Return the report of a file that became jobs of its frames."""
        return FrameReport(
            job_id=self.job.job_id,
            source=self.job.location.path,
            outcome="skipped",
            reason=event.reason,
            accepted=self.job.accepted,
            finished=now.wall,
            recipe_hash=self.job.recipe.hash,
            frames=event.frames,
            **self.job.request.origin,
        )

    def failed(self, reason: str, now: Instant) -> FrameReport:
        """Return the report of a failure; its reason starts with the file."""
        source = str(self.job.source)
        return self.job.failed(reason if source in reason else f"{self.job.location}: {reason}", now.wall)
