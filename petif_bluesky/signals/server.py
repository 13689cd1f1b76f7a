"""Signals of the converter: values read by a background thread, with units, exact types and timestamps."""

from typing import Any

from ophyd import Component, Device, Kind, Signal
from ophyd.signal import SignalRO

from petif_bluesky.server_poller import ServerState


class MirrorSignal(SignalRO):
    """A read-only copy of a value; only the device updates it."""

    def __init__(
        self, *, units: str | None = None, precision: int | None = None, dtype_numpy: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        said = {"units": units, "precision": precision, "dtype_numpy": dtype_numpy}
        self._described = {key: value for key, value in said.items() if value is not None}

    def renew(self, value: Any, timestamp: float) -> None:
        """Set a new value with its `timestamp` (Unix seconds)."""
        Signal.put(self, value, timestamp=timestamp, force=True)

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return the data key with units and exact type."""
        described: dict[str, dict[str, Any]] = super().describe()
        described[self.name].update(self._described)
        if self._described.get("dtype_numpy") == "|b1":  # ophyd would describe it as an integer
            described[self.name]["dtype"] = "boolean"
        return described


class AttributeSignal(MirrorSignal):
    """A Tango attribute of the server."""

    def __init__(self, *, attribute: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attribute = attribute

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return the data key, with the attribute as source."""
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
    """Attributes of the server, updated about once a second while it answers.

    While the server does not answer (see `reachable`), they keep their last values and timestamps. None is part of
    readings unless its `kind` is changed; all can be monitored.
    """

    state = _text("State", "state of the server")
    status = _text("Status", "status text of the server")
    workers = _count("NumWorkers", "processes", "number of worker processes", Kind.config)
    recipe = _text("Recipe", "recipe for frames submitted without one, as JSON", Kind.config)
    rotation = _count("ConfRotation", "deg", "rotation in the server's recipe, counter-clockwise")
    flip = _text("ConfFlip", "flip after the rotation in the server's recipe")
    pixel_type = _text("ConfType", "output pixel type in the server's recipe")
    processed = _count("NumProcessed", "files", "files with a report")
    converted = _count("StatisticsTotalFrames", "frames", "frames converted")
    failed = _count("NumFailed", "frames", "frames that failed to convert")
    skipped = _count("NumSkipped", "frames", "frames skipped, because they needed no conversion or were cancelled")
    placeholders = _count("NumPlaceholders", "frames", "zero-filled placeholders for files that never arrived")
    overexposed = _count("NumOverexposedFrames", "frames", "converted frames with overexposed pixels")
    corrections_in_use = _text("CorrectionsInUse", "dark, flat and masks of each detector's newest frame, as JSON")
    queue_length = _count("QueueLength", "frames", "frames without a report yet")
    conversion_time_total = _number("StatisticsTotalTime", "s", 3, "total conversion time")
    conversion_time_mean = _number("StatisticsAverageTime", "s", 4, "mean conversion time per frame")
    latency_median = _number("LatencyMedian", "s", 4, "median time from complete file to visible output")
    latency_p95 = _number("LatencyP95", "s", 4, "95th percentile of the time from complete file to visible output")
    frames_per_second = _number("FramesPerSecond", "frames/s", 2, "frames converted in the last 10 s, per second")
    bytes_per_second = _number("BytesPerSecond", "B/s", 3, "bytes read for conversion in the last 10 s, per second")
    free_space = _count("FreeSpace", "B", "free space of the fullest output file system")
    last_source = _text("LastSource", "source file of the latest report")
    last_output = _text("LastOutput", "latest output file")
    last_error = _text("LastError", "reason of the latest failure, and what to do")
    failed_files = _attribute("FailedFiles", [], "source files of the latest failed frames", Kind.omitted)
    version = Component(MirrorSignal, value="", kind=Kind.config, doc="version of the server")
    reachable = Component(
        MirrorSignal, value=False, dtype_numpy="|b1", kind=Kind.omitted, doc="whether the server answers"
    )

    def renew(self, server: ServerState) -> None:
        """Update from the poller's state; called from its thread."""
        for name in self.component_names:
            signal = getattr(self, name)
            found = server.attributes.get(signal.attribute) if isinstance(signal, AttributeSignal) else None
            if found is not None and found.timestamp != signal.timestamp:
                signal.renew(found.value, found.timestamp)
        if server.seen and server.version != self.version.get():
            self.version.renew(server.version, server.seen)
        if server.was_polled and server.connected is not self.reachable.get():
            self.reachable.renew(server.connected, server.polled)
