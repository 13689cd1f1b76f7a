"""The attributes of a server that clients read, and their values as Python objects."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import tango

ATTRIBUTES = (
    "State", "Status", "NumWorkers", "Recipe", "ConfRotation", "ConfFlip", "ConfType", "NumProcessed",
    "StatisticsTotalFrames", "StatisticsTotalTime", "StatisticsAverageTime", "NumFailed", "NumSkipped",
    "NumPlaceholders", "NumOverexposedFrames", "CorrectionsInUse", "QueueLength", "LatencyMedian", "LatencyP95",
    "FramesPerSecond", "BytesPerSecond", "FreeSpace", "LastSource", "LastOutput", "LastError", "FailedFiles",
)  # fmt: skip
"""Read in one call at each poll."""


@dataclass(frozen=True, slots=True)
class AttributeReading:
    """The value of an attribute, and its timestamp by the server's clock (Unix seconds)."""

    value: Any
    timestamp: float


def readings(attributes: Iterable[tango.DeviceAttribute]) -> dict[str, AttributeReading]:
    """Return the attributes that have a valid value."""
    return {each.name: _reading(each) for each in attributes if _is_valid(each)}


def require(attributes: Iterable[tango.DeviceAttribute], name: str) -> None:
    """Raise `tango.DevFailed` if the attribute `name` could not be read."""
    for each in attributes:
        if each.name == name and each.has_failed:
            raise tango.DevFailed(*each.get_err_stack())


def _is_valid(attribute: tango.DeviceAttribute) -> bool:
    return not attribute.has_failed and attribute.quality != tango.AttrQuality.ATTR_INVALID


def _reading(attribute: tango.DeviceAttribute) -> AttributeReading:
    value = attribute.value
    if attribute.data_format == tango.AttrDataFormat.SPECTRUM:
        value = [str(text) for text in value or ()]
    elif isinstance(value, tango.DevState):
        value = str(value)
    return AttributeReading(value, attribute.time.totime())
