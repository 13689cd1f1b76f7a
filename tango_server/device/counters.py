"""The read-only Tango attributes that show the numbers of the job service."""

import time
from collections.abc import Callable
from typing import Any

import tango
from tango.server import attribute

from tango_server.device.properties import Configured
from tango_server.device.wire import to_latin
from tango_server.jobs.state_machine.events import Snapshot

FAILED_FILES_SHOWN = 1000

COUNTERS: dict[str, Callable[[Snapshot], Any]] = {
    "NumProcessed": lambda now: now.processed,
    "StatisticsTotalFrames": lambda now: now.converted,
    "StatisticsTotalTime": lambda now: now.conversion_time_total,
    "StatisticsAverageTime": lambda now: now.conversion_time_mean,
    "QueueLength": lambda now: now.queue_length,
    "NumFailed": lambda now: now.failed,
    "NumSkipped": lambda now: now.skipped,
    "NumPlaceholders": lambda now: now.placeholders,
    "FramesPerSecond": lambda now: now.frames_per_second,
    "BytesPerSecond": lambda now: now.bytes_per_second,
    "LatencyMedian": lambda now: now.latency_median,
    "LatencyP95": lambda now: now.latency_p95,
    "LastSource": lambda now: to_latin(now.last_source),
    "LastOutput": lambda now: to_latin(now.last_output),
    "LastError": lambda now: to_latin(now.last_error),
    "FailedFiles": lambda now: [to_latin(path) for path in now.failed_files],
}


def free_space(now: Snapshot) -> tuple[int, float, tango.AttrQuality]:
    """Return value, time and quality of `FreeSpace`."""
    if now.free_space is None:
        return 0, time.time(), tango.AttrQuality.ATTR_INVALID
    quality = tango.AttrQuality.ATTR_WARNING if now.warning else tango.AttrQuality.ATTR_VALID
    return now.free_space, time.time(), quality


def _counter(name: str, dtype: Any, label: str, doc: str, *unit_and_format: str, **size: int) -> attribute:
    """Return a read-only attribute that shows one number of the snapshot and pushes its changes."""
    value = COUNTERS[name]
    unit, form = (*unit_and_format, "", "")[:2]
    return attribute(
        fget=lambda device: value(device.numbers),
        dtype=dtype,
        label=label,
        doc=doc,
        unit=unit,
        format=form,
        change_event_implemented=True,
        change_event_detect=False,
        **size,
    )


class Counters(Configured):
    """A device that shows the numbers of a snapshot."""

    NumProcessed = _counter(
        "NumProcessed", int, "Processed files", "Files that got a report, also malformed ones", "files", "%d"
    )
    StatisticsTotalFrames = _counter(
        "StatisticsTotalFrames", int, "Converted frames", "Frames converted", "frames", "%d"
    )
    StatisticsTotalTime = _counter(
        "StatisticsTotalTime", float, "Total time", "Total time of the conversions", "s", "%.3f"
    )
    StatisticsAverageTime = _counter(
        "StatisticsAverageTime", float, "Average time", "Mean time of one conversion", "s", "%.4f"
    )
    QueueLength = _counter(
        "QueueLength", int, "Queue", "Frames that are accepted and have no report yet", "frames", "%d"
    )
    NumFailed = _counter("NumFailed", int, "Failed", "Frames that could not be converted", "frames", "%d")
    NumSkipped = _counter(
        "NumSkipped", int, "Skipped", "Frames that needed no conversion, or were cancelled", "frames", "%d"
    )
    NumPlaceholders = _counter(
        "NumPlaceholders", int, "Placeholders", "Zero-filled frames in place of files that never came", "frames", "%d"
    )
    FramesPerSecond = _counter("FramesPerSecond", float, "Rate", "Converted in the last 10 s", "frames/s", "%.2f")
    BytesPerSecond = _counter(
        "BytesPerSecond", float, "Data rate", "Read for conversion in the last 10 s", "B/s", "%.3e"
    )
    LatencyMedian = _counter(
        "LatencyMedian", float, "Median latency", "From file complete (or accepted) to output visible", "s", "%.4f"
    )
    LatencyP95 = _counter("LatencyP95", float, "95 % latency", "95 % of the outputs are visible within", "s", "%.4f")
    LastSource = _counter("LastSource", str, "Last source", "The file that got a report last")
    LastOutput = _counter("LastOutput", str, "Last output", "The file that was written last")
    LastError = _counter("LastError", str, "Last error", "Why a frame failed last, and what to do")
    FailedFiles = _counter(
        "FailedFiles",
        [str],
        "Failed files",
        "Sources of the last failed frames since ResetStats, oldest first; RetryFailed tries them again",
        max_dim_x=FAILED_FILES_SHOWN,
    )

    @attribute(
        dtype=int,
        label="Free space",
        unit="B",
        format="%d",
        doc="Free space of the fullest folder that outputs go to; below free_space_limit nothing is accepted",
        change_event_implemented=True,
        change_event_detect=False,
    )
    def FreeSpace(self) -> tuple[int, float, tango.AttrQuality]:
        """Free space of the fullest folder that outputs go to."""
        return free_space(self.numbers)

    @property
    def numbers(self) -> Snapshot:
        """The numbers to show."""
        raise NotImplementedError
