"""The monitor's state of a server: a frozen value; each poll makes the next one."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tango_server.client.client import ServerSnapshot
from tango_server.messages import FrameReport, RunStatistics
from tango_server.monitor.live_map import LiveMap

HISTORY = 600
"""Number of samples kept: ten minutes at one a second."""
SHOWN_RUNS = 10


@dataclass(frozen=True, slots=True)
class Sample:
    """The plotted numbers at `time` (Unix s): frames/s, latencies in s, frames. NaN: unknown."""

    time: float
    frames_per_second: float = math.nan
    latency_median: float = math.nan
    latency_p95: float = math.nan
    backlog: float = math.nan


@dataclass(frozen=True, slots=True)
class MonitorState:
    """Everything shown of one server.

    Attributes
    ----------
    address: of the device
    began: start of polling, Unix s
    snapshot: the last answer; None before the first
    answered: time of the last answer, Unix s
    silence: why the last poll had no answer; empty if it had one
    samples: the plotted numbers, oldest first
    failures: the last failed frames, newest first
    last: the last converted frame
    runs: the latest runs, newest first
    map: the map of the last run that has one

    """

    address: str
    began: float
    snapshot: ServerSnapshot | None = None
    answered: float | None = None
    silence: str = ""
    samples: tuple[Sample, ...] = ()
    failures: tuple[FrameReport, ...] = ()
    last: FrameReport | None = None
    runs: tuple[RunStatistics, ...] = ()
    map: LiveMap | None = None

    @property
    def is_answering(self) -> bool:
        """Whether the last poll had an answer."""
        return self.snapshot is not None and not self.silence

    @property
    def silent_since(self) -> float:
        """Time of the last answer, or of the first poll; Unix s."""
        return self.began if self.answered is None else self.answered


@dataclass(frozen=True, slots=True)
class Queries:
    """The queries needed besides the attributes, since their answers may have changed."""

    latest: bool
    failures: bool

    def __or__(self, other: "Queries") -> "Queries":
        """Return the union."""
        return Queries(self.latest or other.latest, self.failures or other.failures)


NO_QUERIES = Queries(latest=False, failures=False)


def queries_after(before: MonitorState, snapshot: ServerSnapshot) -> Queries:
    """Return the queries that a poll makes necessary; none while the server is idle."""
    if snapshot.problem:
        return NO_QUERIES
    if before.snapshot is None or before.silence:
        return Queries(latest=True, failures=True)

    def changed(*names: str) -> bool:
        return any(
            before.snapshot is not None and before.snapshot.value(name) != snapshot.value(name) for name in names
        )

    return Queries(
        latest=changed("NumProcessed", "QueueLength"), failures=changed("NumFailed", "FailedFiles", "LastError")
    )


def with_snapshot(before: MonitorState, snapshot: ServerSnapshot, now: float) -> MonitorState:
    """Return the state after an answer at `now` (Unix s)."""
    sample = Sample(
        now,
        float(snapshot.value("FramesPerSecond", math.nan)),
        _latency(snapshot, "LatencyMedian"),
        _latency(snapshot, "LatencyP95"),
        float(snapshot.value("QueueLength", math.nan)),
    )
    return replace(before, snapshot=snapshot, answered=now, silence="", samples=_kept(before, sample))


def without_answer(before: MonitorState, reason: str, now: float) -> MonitorState:
    """Return the state after a poll without an answer, at `now` (Unix s)."""
    return replace(before, silence=reason or "no answer", samples=_kept(before, Sample(now)))


def with_reports(before: MonitorState, reports: Sequence[FrameReport]) -> MonitorState:
    """Return the state with the last converted frame of the latest reports (oldest first)."""
    last = next((report for report in reversed(reports) if report.outcome == "converted"), before.last)
    return replace(before, last=last)


def runs_to_query(before: MonitorState, reports: Iterable[FrameReport]) -> tuple[str, ...]:
    """Return the runs (newest first) whose statistics may have changed: those of the reports, and unfinished ones."""
    reported = [report.run_uid for report in reports if report.run_uid is not None]
    unfinished = [run.run_uid for run in before.runs if run.pending]
    return tuple(dict.fromkeys((*reversed(reported), *unfinished)))[:SHOWN_RUNS]


def with_runs(before: MonitorState, statistics: Sequence[RunStatistics]) -> MonitorState:
    """Return the state with the statistics of some runs: known ones keep their place, new ones come first."""
    numbers = {run.run_uid: run for run in statistics}
    known = tuple(numbers.pop(run.run_uid, run) for run in before.runs)
    return replace(before, runs=(*numbers.values(), *known)[:SHOWN_RUNS])


def _latency(snapshot: ServerSnapshot, name: str) -> float:
    """Return a latency; NaN before the first frame, when the server reports 0."""
    value = float(snapshot.value(name, math.nan))
    return value if value > 0 else math.nan


def _kept(before: MonitorState, sample: Sample) -> tuple[Sample, ...]:
    return (*before.samples, sample)[-HISTORY:]
