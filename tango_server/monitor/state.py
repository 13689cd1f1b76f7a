"""What the monitor knows of a server: a frozen value that each look at the server turns into the next one."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tango_server.client.client import ServerSnapshot
from tango_server.messages import FrameReport, RunStatistics

HISTORY = 600
"""How many samples are kept: ten minutes at one a second."""
SHOWN_RUNS = 10


@dataclass(frozen=True, slots=True)
class Sample:
    """The numbers that are plotted, at `time` (Unix s): frames/s, latencies in s, frames. NaN: nobody knows."""

    time: float
    frames_per_second: float = math.nan
    latency_median: float = math.nan
    latency_p95: float = math.nan
    backlog: float = math.nan


@dataclass(frozen=True, slots=True)
class MonitorState:
    """All that is shown of one server.

    Attributes
    ----------
    address: of the device
    began: when the monitor began to snapshot, Unix s
    snapshot: the last answer; None if there was none yet
    answered: when it came, Unix s
    silence: why the last look had no answer; empty if it had one
    samples: the plotted numbers, oldest first
    failures: the last failed frames, newest first
    last: the frame that was converted last
    runs: the runs seen last, newest first

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

    @property
    def is_answering(self) -> bool:
        """Whether the last look had an answer."""
        return self.snapshot is not None and not self.silence

    @property
    def silent_since(self) -> float:
        """When the server was last known to answer, or else when it was asked first; Unix s."""
        return self.began if self.answered is None else self.answered


@dataclass(frozen=True, slots=True)
class Questions:
    """What has to be asked beside the attributes, since it may have changed."""

    latest: bool
    failures: bool

    def __or__(self, other: "Questions") -> "Questions":
        """Return both."""
        return Questions(self.latest or other.latest, self.failures or other.failures)


NOTHING = Questions(latest=False, failures=False)


def questions(before: MonitorState, snapshot: ServerSnapshot) -> Questions:
    """Return what a look makes worth asking; nothing while the server has nothing to do."""
    if snapshot.trouble:
        return NOTHING
    if before.snapshot is None or before.silence:
        return Questions(latest=True, failures=True)

    def changed(*names: str) -> bool:
        return any(
            before.snapshot is not None and before.snapshot.value(name) != snapshot.value(name) for name in names
        )

    return Questions(
        latest=changed("NumProcessed", "QueueLength"), failures=changed("NumFailed", "FailedFiles", "LastError")
    )


def with_snapshot(before: MonitorState, snapshot: ServerSnapshot, now: float) -> MonitorState:
    """Return what is known after an answer that came at `now` (Unix s)."""
    sample = Sample(
        now,
        float(snapshot.value("FramesPerSecond", math.nan)),
        _latency(snapshot, "LatencyMedian"),
        _latency(snapshot, "LatencyP95"),
        float(snapshot.value("QueueLength", math.nan)),
    )
    return replace(before, snapshot=snapshot, answered=now, silence="", samples=_kept(before, sample))


def with_silence(before: MonitorState, reason: str, now: float) -> MonitorState:
    """Return what is known after no answer has come until `now` (Unix s)."""
    return replace(before, silence=reason or "it does not answer", samples=_kept(before, Sample(now)))


def with_reports(before: MonitorState, reports: Sequence[FrameReport]) -> MonitorState:
    """Return what is known with the latest reports (oldest first): the frame that was converted last."""
    last = next((report for report in reversed(reports) if report.outcome == "converted"), before.last)
    return replace(before, last=last)


def runs_to_ask(before: MonitorState, reports: Iterable[FrameReport]) -> tuple[str, ...]:
    """Return the runs (newest first) whose numbers may have changed: those of the reports, and unfinished ones."""
    reported = [report.run_uid for report in reports if report.run_uid is not None]
    unfinished = [run.run_uid for run in before.runs if run.pending]
    return tuple(dict.fromkeys((*reversed(reported), *unfinished)))[:SHOWN_RUNS]


def with_runs(before: MonitorState, asked: Sequence[RunStatistics]) -> MonitorState:
    """Return what is known with the numbers of some runs: known ones keep their place, new ones come first."""
    numbers = {run.run_uid: run for run in asked}
    known = tuple(numbers.pop(run.run_uid, run) for run in before.runs)
    return replace(before, runs=(*numbers.values(), *known)[:SHOWN_RUNS])


def _latency(snapshot: ServerSnapshot, name: str) -> float:
    """Return a latency, NaN before the first frame, when the server says 0."""
    value = float(snapshot.value(name, math.nan))
    return value if value > 0 else math.nan


def _kept(before: MonitorState, sample: Sample) -> tuple[Sample, ...]:
    return (*before.samples, sample)[-HISTORY:]
