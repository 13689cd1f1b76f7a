"""The read-only Tango attributes that show the numbers of the job service."""

import json
import time
from collections.abc import Callable
from typing import Any

import tango
from tango.server import attribute

from tango_server.device.properties import Configured
from tango_server.device.wire import to_latin
from tango_server.jobs.state_machine.snapshot import Snapshot

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
    "NumOverexposedFrames": lambda now: now.overexposed,
    "CorrectionsInUse": lambda now: json.dumps([each.model_dump(mode="json") for each in now.corrections]),
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
    """Return a read-only attribute for one number of the snapshot, with change events."""
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
        "NumProcessed", int, "Processed files", "Files with a report, including failed ones", "files", "%d"
    )
    StatisticsTotalFrames = _counter(
        "StatisticsTotalFrames", int, "Converted frames", "Frames converted successfully", "frames", "%d"
    )
    StatisticsTotalTime = _counter("StatisticsTotalTime", float, "Total time", "Total conversion time", "s", "%.3f")
    StatisticsAverageTime = _counter(
        "StatisticsAverageTime", float, "Average time", "Mean conversion time of a frame", "s", "%.4f"
    )
    QueueLength = _counter("QueueLength", int, "Queue", "Frames accepted and not yet finished", "frames", "%d")
    NumFailed = _counter("NumFailed", int, "Failed", "Frames that could not be converted", "frames", "%d")
    NumSkipped = _counter(
        "NumSkipped", int, "Skipped", "Frames that needed no conversion, or were cancelled", "frames", "%d"
    )
    NumPlaceholders = _counter(
        "NumPlaceholders",
        int,
        "Placeholders",
        "Zero-filled frames written for files that never arrived",
        "frames",
        "%d",
    )
    NumOverexposedFrames = _counter(
        "NumOverexposedFrames",
        int,
        "Overexposed frames",
        "Converted frames with overexposed pixels; counted with corrections in the recipe",
        "frames",
        "%d",
    )
    CorrectionsInUse = _counter(
        "CorrectionsInUse",
        str,
        "Corrections",
        "Dark, flat and masks of the newest frame of each detector, as JSON",
    )
    FramesPerSecond = _counter(
        "FramesPerSecond", float, "Rate", "Frames converted per second, over the last 10 s", "frames/s", "%.2f"
    )
    BytesPerSecond = _counter(
        "BytesPerSecond", float, "Data rate", "Data read per second for conversion, over the last 10 s", "B/s", "%.3e"
    )
    LatencyMedian = _counter(
        "LatencyMedian",
        float,
        "Median latency",
        "Median time from file complete (or accepted) to output visible",
        "s",
        "%.4f",
    )
    LatencyP95 = _counter("LatencyP95", float, "95 % latency", "95th percentile of the latency", "s", "%.4f")
    LastSource = _counter("LastSource", str, "Last source", "Last source file to be finished")
    LastOutput = _counter("LastOutput", str, "Last output", "Last output file written")
    LastError = _counter("LastError", str, "Last error", "Reason of the last failure, and what to do")
    FailedFiles = _counter(
        "FailedFiles",
        [str],
        "Failed files",
        "Sources of the last failed frames since ResetStats, oldest first; RetryFailed retries them",
        max_dim_x=FAILED_FILES_SHOWN,
    )

    @attribute(
        dtype=int,
        label="Free space",
        unit="B",
        format="%d",
        doc="Free space of the fullest output folder; below free_space_limit no frames are accepted",
        change_event_implemented=True,
        change_event_detect=False,
    )
    def FreeSpace(self) -> tuple[int, float, tango.AttrQuality]:
        """Free space of the fullest output folder."""
        return free_space(self.numbers)

    @property
    def numbers(self) -> Snapshot:
        """The numbers to show."""
        raise NotImplementedError
