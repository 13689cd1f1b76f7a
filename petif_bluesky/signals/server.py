"""The signals of the converter: what a background thread has read, with units, exact types and times."""

from typing import Any

from ophyd import Component, Device, Kind, Signal
from ophyd.signal import SignalRO

from petif_bluesky.server_poller import ServerState


class MirrorSignal(SignalRO):
    """One value that is known here. Only the device itself renews it."""

    def __init__(
        self, *, units: str | None = None, precision: int | None = None, dtype_numpy: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        said = {"units": units, "precision": precision, "dtype_numpy": dtype_numpy}
        self._described = {key: value for key, value in said.items() if value is not None}

    def renew(self, value: Any, timestamp: float) -> None:
        """Take a new value, as of `timestamp` (Unix seconds)."""
        Signal.put(self, value, timestamp=timestamp, force=True)

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return the data key, with units and the exact type."""
        described: dict[str, dict[str, Any]] = super().describe()
        described[self.name].update(self._described)
        if self._described.get("dtype_numpy") == "|b1":  # ophyd calls it an integer
            described[self.name]["dtype"] = "boolean"
        return described


class AttributeSignal(MirrorSignal):
    """An attribute of the server, by its name there."""

    def __init__(self, *, attribute: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attribute = attribute

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return the data key; its source is the attribute."""
        described = super().describe()
        described[self.name]["source"] = f"TANGO:{self.parent.prefix}/{self.attribute}"
        if isinstance(self.get(), list):
            described[self.name].update(dtype="array", shape=[None])
            described[self.name].pop("dtype_numpy", None)
        return described


def _count(attribute: str, unit: str, doc: str, kind: Kind = Kind.omitted) -> Any:
    return _attribute(attribute, 0, doc, kind, units=unit, precision=0, dtype_numpy="<i8")


def _number(attribute: str, unit: str, precision: int, doc: str) -> Any:
    return _attribute(attribute, 0.0, doc, Kind.omitted, units=unit, precision=precision, dtype_numpy="<f8")


def _text(attribute: str, doc: str, kind: Kind = Kind.omitted) -> Any:
    return _attribute(attribute, "", doc, kind)


def _attribute(attribute: str, value: Any, doc: str, kind: Kind, **described: Any) -> Any:
    return Component(AttributeSignal, attribute=attribute, value=value, kind=kind, doc=doc, **described)


class ServerSignals(Device):
    """The attributes of the server as last read: about once a second while it answers.

    They keep their last values, and the times of these, while the server does not answer (`reachable` tells). None is
    part of a reading unless its `kind` is changed; they may be monitored.
    """

    state = _text("State", "state of the server")
    status = _text("Status", "state of the server in words")
    workers = _count("NumWorkers", "processes", "conversions at a time", Kind.config)
    recipe = _text("Recipe", "the recipe for frames that bring none, as JSON", Kind.config)
    rotation = _count("ConfRotation", "deg", "rotation of the image by the server's own recipe, counter-clockwise")
    flip = _text("ConfFlip", "flip after the rotation by the server's own recipe")
    pixel_type = _text("ConfType", "pixel type of the output by the server's own recipe")
    processed = _count("NumProcessed", "files", "files that got a report")
    converted = _count("StatisticsTotalFrames", "frames", "frames that were converted")
    failed = _count("NumFailed", "frames", "frames that could not be converted")
    skipped = _count("NumSkipped", "frames", "frames that needed no conversion, or were cancelled")
    placeholders = _count("NumPlaceholders", "frames", "zero-filled frames in place of files that never came")
    queue_length = _count("QueueLength", "frames", "frames that have no report yet")
    conversion_time_total = _number("StatisticsTotalTime", "s", 3, "total time of the conversions")
    conversion_time_mean = _number("StatisticsAverageTime", "s", 4, "mean time of one conversion")
    latency_median = _number("LatencyMedian", "s", 4, "median time from file complete to output visible")
    latency_p95 = _number("LatencyP95", "s", 4, "95 % of the outputs are visible within")
    frames_per_second = _number("FramesPerSecond", "frames/s", 2, "frames converted in the last 10 s, per second")
    bytes_per_second = _number("BytesPerSecond", "B/s", 3, "bytes read for conversion in the last 10 s, per second")
    free_space = _count("FreeSpace", "B", "free space of the fullest folder that outputs go to")
    last_source = _text("LastSource", "the file that got a report last")
    last_output = _text("LastOutput", "the file that was written last")
    last_error = _text("LastError", "why a frame failed last, and what to do")
    failed_files = _attribute("FailedFiles", [], "sources of the last failed frames", Kind.omitted)
    version = Component(MirrorSignal, value="", kind=Kind.config, doc="version of the server")
    reachable = Component(MirrorSignal, value=False, dtype_numpy="|b1", kind=Kind.omitted, doc="whether it answers")

    def renew(self, server: ServerState) -> None:
        """Take what the poller knows; called from its thread."""
        for name in self.component_names:
            signal = getattr(self, name)
            found = server.attributes.get(signal.attribute) if isinstance(signal, AttributeSignal) else None
            if found is not None and found.timestamp != signal.timestamp:
                signal.renew(found.value, found.timestamp)
        if server.seen and server.version != self.version.get():
            self.version.renew(server.version, server.seen)
        if server.asked and server.connected is not self.reachable.get():
            self.reachable.renew(server.connected, server.polled)
