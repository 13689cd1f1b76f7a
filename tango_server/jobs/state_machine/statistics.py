"""Counters over all jobs since the last reset."""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tango_server.jobs.state_machine.snapshot import Snapshot
from tango_server.messages import FrameReport, GroupReport, Outcome

_KEPT_LATENCIES = 1000
_KEPT_FAILURES = 1000
_RATE_WINDOW = 10.0


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """Return the percentile of an ordered sequence by nearest rank, 0 if it is empty.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5), percentile([1.0, 2.0, 3.0, 4.0], 0.95), percentile([], 0.5)
    (2.0, 4.0, 0.0)
    """
    if not ordered:
        return 0.0
    rank = -int(-fraction * len(ordered) // 1)
    return ordered[max(rank, 1) - 1]


class _Latest:
    """The latest `count` values, in order of arrival and sorted."""

    def __init__(self, count: int) -> None:
        self._values: deque[float] = deque()
        self._count = count
        self.ordered: list[float] = []

    def add(self, value: float) -> None:
        if len(self._values) == self._count:
            del self.ordered[bisect_left(self.ordered, self._values.popleft())]
        self._values.append(value)
        insort(self.ordered, value)


class _Rate:
    """Frames and bytes converted in the last seconds."""

    def __init__(self) -> None:
        self._finished: deque[tuple[float, int]] = deque()
        self._bytes = 0

    def add(self, now: float, size: int) -> None:
        self._finished.append((now, size))
        self._bytes += size

    def at(self, now: float) -> tuple[float, float]:
        """Return frames and bytes per second at `now` (monotonic s)."""
        while self._finished and self._finished[0][0] < now - _RATE_WINDOW:
            self._bytes -= self._finished.popleft()[1]
        return len(self._finished) / _RATE_WINDOW, self._bytes / _RATE_WINDOW


@dataclass(slots=True)
class Statistics:
    """Counters since the last reset; updated with reports, read as a `Snapshot`."""

    outcomes: dict[Outcome, int] = field(default_factory=dict)
    groups: int = 0
    groups_failed: int = 0
    overexposed: int = 0
    conversion_time_total: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    latencies: _Latest = field(default_factory=lambda: _Latest(_KEPT_LATENCIES))
    rate: _Rate = field(default_factory=_Rate)
    last_source: str = ""
    last_output: str = ""
    last_error: str = ""
    failed_files: tuple[str, ...] = ()
    unacknowledged: int = 0

    def add(self, report: FrameReport, now: float) -> None:
        """Count a report that arrived at `now` (monotonic s)."""
        if isinstance(report, GroupReport):
            self.groups += report.outcome in {"converted", "placeholder"}
            self.groups_failed += report.outcome == "failed"
        else:
            self.count(report.outcome)
        self.last_source = report.source
        if isinstance(report, GroupReport) and report.outcome == "failed":  # its members are in the list
            self.last_error = report.reason
            return
        if report.outcome == "failed":
            self.last_error = report.reason
            self.failed_files = (*self.failed_files[1 - _KEPT_FAILURES :], report.source)
            self.unacknowledged += 1
            return
        self.last_output = report.output or ""
        if report.outcome == "converted":
            self.overexposed += bool(report.pixels.overexposed)
            self.conversion_time_total += report.conversion_time
            self.bytes_in += report.bytes_in
            self.bytes_out += report.bytes_out
            self.rate.add(now, report.bytes_in)
            if report.latency is not None:
                self.latencies.add(report.latency)

    def count(self, outcome: Outcome, number: int = 1) -> None:
        """Count frames with this outcome."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + number

    def forget_failures(self) -> None:
        """Clear the failures, which are being retried."""
        self.failed_files = ()
        self.unacknowledged = 0

    def restarted(self) -> "Statistics":
        """Return counters at zero; an alarm stays until acknowledged."""
        return Statistics(last_error=self.last_error, unacknowledged=self.unacknowledged)

    def snapshot(self, now: float, queue_length: int, running: int, *, paused: bool = False) -> Snapshot:
        """Return the numbers at `now` (monotonic seconds)."""
        frames_per_second, bytes_per_second = self.rate.at(now)
        ordered = self.latencies.ordered
        return Snapshot(
            processed=sum(self.outcomes.values()),
            converted=self.outcomes.get("converted", 0),
            skipped=self.outcomes.get("skipped", 0),
            placeholders=self.outcomes.get("placeholder", 0),
            failed=self.outcomes.get("failed", 0),
            grouped=self.outcomes.get("grouped", 0),
            superseded=self.outcomes.get("superseded", 0),
            groups=self.groups,
            groups_failed=self.groups_failed,
            overexposed=self.overexposed,
            queue_length=queue_length,
            running=running,
            paused=paused,
            conversion_time_total=self.conversion_time_total,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            frames_per_second=frames_per_second,
            bytes_per_second=bytes_per_second,
            latency_median=percentile(ordered, 0.5),
            latency_p95=percentile(ordered, 0.95),
            last_source=self.last_source,
            last_output=self.last_output,
            last_error=self.last_error,
            failed_files=self.failed_files,
            unacknowledged=self.unacknowledged,
        )
