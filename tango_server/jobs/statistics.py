"""Counters over all jobs since the last reset; the one place that holds them."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tango_server.jobs.vocabulary import Snapshot
from tango_server.messages import FrameReport, Outcome

_KEPT_LATENCIES = 1000
_KEPT_FAILURES = 1000
_RATE_WINDOW = 10.0


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """Return the value below which `fraction` of an ordered sequence lies (nearest rank), 0 if it is empty.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5), percentile([1.0, 2.0, 3.0, 4.0], 0.95), percentile([], 0.5)
    (2.0, 4.0, 0.0)
    """
    if not ordered:
        return 0.0
    rank = -int(-fraction * len(ordered) // 1)
    return ordered[max(rank, 1) - 1]


@dataclass(slots=True)
class Statistics:
    """What was done since the last reset. Fed with reports, read as a `Snapshot`."""

    outcomes: dict[Outcome, int] = field(default_factory=dict)
    conversion_time_total: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT_LATENCIES))
    finished: deque[tuple[float, int]] = field(default_factory=deque)
    """When the frames of the last seconds were converted (monotonic s), and their bytes."""
    last_source: str = ""
    last_output: str = ""
    last_error: str = ""
    failed_files: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_FAILURES))
    unacknowledged: int = 0

    def add(self, report: FrameReport, now: float) -> None:
        """Count a report that came in at `now` (monotonic seconds)."""
        self.outcomes[report.outcome] = self.outcomes.get(report.outcome, 0) + 1
        self.last_source = report.source
        if report.outcome == "failed":
            self.last_error = report.reason
            self.failed_files.append(report.source)
            self.unacknowledged += 1
            return
        self.last_output = report.output or ""
        if report.outcome == "converted":
            self.conversion_time_total += report.conversion_time
            self.bytes_in += report.bytes_in
            self.bytes_out += report.bytes_out
            self.finished.append((now, report.bytes_in))
            if report.latency is not None:
                self.latencies.append(report.latency)

    def add_cancelled(self, count: int) -> None:
        """Count jobs that somebody has cancelled."""
        self.outcomes["skipped"] = self.outcomes.get("skipped", 0) + count

    def forget_failures(self) -> None:
        """The failed frames get another try."""
        self.failed_files.clear()
        self.unacknowledged = 0

    def restarted(self) -> "Statistics":
        """Return counters at zero; an alarm stays until somebody acknowledges it."""
        return Statistics(last_error=self.last_error, unacknowledged=self.unacknowledged)

    def snapshot(self, now: float, queue_length: int, running: int, *, paused: bool = False) -> Snapshot:
        """Return the numbers at `now` (monotonic seconds)."""
        while self.finished and self.finished[0][0] < now - _RATE_WINDOW:
            self.finished.popleft()
        ordered = sorted(self.latencies)
        return Snapshot(
            processed=sum(self.outcomes.values()),
            converted=self.outcomes.get("converted", 0),
            skipped=self.outcomes.get("skipped", 0),
            placeholders=self.outcomes.get("placeholder", 0),
            failed=self.outcomes.get("failed", 0),
            queue_length=queue_length,
            running=running,
            paused=paused,
            conversion_time_total=self.conversion_time_total,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            frames_per_second=len(self.finished) / _RATE_WINDOW,
            bytes_per_second=sum(size for _, size in self.finished) / _RATE_WINDOW,
            latency_median=percentile(ordered, 0.5),
            latency_p95=percentile(ordered, 0.95),
            last_source=self.last_source,
            last_output=self.last_output,
            last_error=self.last_error,
            failed_files=tuple(self.failed_files),
            unacknowledged=self.unacknowledged,
        )
