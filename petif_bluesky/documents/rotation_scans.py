"""Frames of rotation scans, which go with the angles that were measured while they were exposed.

Only runs whose recipe asks for ESPERANTO frames are concerned; all other frames pass at once.

Where stream datums bring frames without events, as in fly scans, the event of the same stream and seq_num tells their
readings, be it before or after the frame. And where the recipe names a field that was read `during` the exposure, the
readings of it in all streams of the run, by their own time stamps, are interpolated at the start and at the end of the
exposure: `omega:start` and `omega:end` join the frame's metadata. An image's time stamp is the end of its exposure.
Readings may end before, or begin after, by one exposure or by as much as lies between two of them: then the nearest two
are extrapolated. A frame is held until the readings reach so far, or the run stops.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from petif_bluesky.documents.frame import Frame
from tango_server.recipe.esperanto import Esperanto

Document = Mapping[str, Any]

_KEPT_EVENTS = 10_000
_KEPT_READINGS = 1_000_000


@dataclass(slots=True)
class _Readings:
    """What was read of one field: instants (Unix s) and values, in the order of time."""

    times: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, time: float, value: float) -> None:
        if self.times and time <= self.times[-1]:
            place = bisect_right(self.times, time)
            if self.times[place - 1] == time:  # the same reading once more
                return
            self.times.insert(place, time)
            self.values.insert(place, value)
        elif len(self.times) < _KEPT_READINGS:
            self.times.append(time)
            self.values.append(value)

    def at(self, time: float, reach: float) -> float | None:
        """Return the value at a time, None if the readings do not tell it.

        They tell it for `reach` seconds more at either end, or for as long as between the last two of them.
        """
        if len(self.times) == 1 and self.times[0] == time:
            return self.values[0]
        if len(self.times) < 2:  # noqa: PLR2004 - two make a line
            return None
        after = min(max(bisect_right(self.times, time), 1), len(self.times) - 1)
        (t0, t1), (v0, v1) = self.times[after - 1 : after + 1], self.values[after - 1 : after + 1]
        reach = max(reach, t1 - t0)
        return v0 + (v1 - v0) * (time - t0) / (t1 - t0) if t0 - reach <= time <= t1 + reach else None


@dataclass(slots=True)
class _Scan:
    during: frozenset[str]
    readings: dict[str, _Readings] = field(default_factory=dict)
    events: dict[tuple[str, int], Document] = field(default_factory=dict)
    with_events: set[str] = field(default_factory=set)
    """Descriptors whose events bring readings."""
    held: list[tuple[Frame, float]] = field(default_factory=list)
    """Frames that wait, and their exposures (s)."""


class RotationScans:
    """Takes frames in, gives them when their readings are there; state for each run with an ESPERANTO recipe."""

    def __init__(self) -> None:
        self._scans: dict[str, _Scan] = {}
        self._runs: dict[str, str] = {}
        """The run of each descriptor."""

    def begin(self, run_uid: str, recipe: Any) -> None:
        """Note what the recipe of a run asks for."""
        wanted = esperanto_of(recipe)
        if wanted is not None:
            during = {circle.during for circle in wanted.circles.values() if circle.during is not None}
            self._scans[run_uid] = _Scan(frozenset(during))

    def concern(self, frame: Frame) -> bool:
        """Return whether the frame is one of a rotation scan."""
        return frame.run_uid in self._scans

    def feed(self, name: str, document: Document) -> None:
        """Take the readings of a document in."""
        if not self._scans:
            return
        if name == "descriptor" and document["run_start"] in self._scans:
            self._runs[document["uid"]] = document["run_start"]
            if any(not key.get("external") for key in document["data_keys"].values()):
                self._scans[document["run_start"]].with_events.add(document["uid"])
        elif name in {"event", "event_page"} and document["descriptor"] in self._runs:
            scan = self._scans[self._runs[document["descriptor"]]]
            for event in [document] if name == "event" else _rows(document):
                _note(scan, event)

    def take(self, frame: Frame, exposure: float) -> Frame | None:
        """Return the frame, exposed for so long (s), if it can go; hold it otherwise."""
        scan = self._scans.get(frame.run_uid)
        if scan is None:
            return frame
        whole = _joined(scan, frame)
        if whole is not None and all(None not in _range(scan, whole, name, exposure) for name in scan.during):
            return whole
        scan.held.append((frame, exposure))
        return None

    def released(self, run_uid: str) -> list[Frame]:
        """Return the frames of a run that have waited and can go now."""
        scan = self._scans.get(run_uid)
        if scan is None or not scan.held:
            return []
        held, scan.held = scan.held, []
        return [frame for one, exposure in held if (frame := self.take(one, exposure)) is not None]

    def end(self, run_uid: str) -> list[Frame]:
        """Return the frames of a run that have waited in vain."""
        scan = self._scans.get(run_uid)
        if scan is None:
            return []
        held, scan.held = scan.held, []
        return [_joined(scan, frame) or frame for frame, _ in held]

    def forget(self, run_uid: str) -> None:
        """Forget a run."""
        if self._scans.pop(run_uid, None) is not None:
            self._runs = {descriptor: run for descriptor, run in self._runs.items() if run != run_uid}

    def angles(self, frame: Frame, exposure: float) -> dict[str, float]:
        """Return what was read at the start and at the end of a frame's exposure (s), by `name:start`, `name:end`."""
        scan = self._scans.get(frame.run_uid)
        found: dict[str, float] = {}
        for name in scan.during if scan else ():
            for moment, value in zip(("start", "end"), _range(scan, frame, name, exposure), strict=True):
                if value is not None:
                    found[f"{name}:{moment}"] = value
        return found


def esperanto_of(recipe: Any) -> Esperanto | None:
    """Return what a recipe in a start document says of ESPERANTO frames; None for other recipes, and for wrong ones."""
    if not isinstance(recipe, Mapping) or recipe.get("format") != "esperanto":
        return None
    try:
        return Esperanto.model_validate(recipe.get("esperanto") or {})
    except ValueError:  # the server tells what is wrong, for each frame
        return None


def _note(scan: _Scan, event: Document) -> None:
    if event["descriptor"] in scan.with_events and len(scan.events) < _KEPT_EVENTS:
        scan.events[event["descriptor"], event["seq_num"]] = event
    stamps = event.get("timestamps", {})
    for name in scan.during & event["data"].keys():
        value = event["data"][name]
        if isinstance(value, int | float) and not isinstance(value, bool):
            scan.readings.setdefault(name, _Readings()).add(float(stamps.get(name, event["time"])), float(value))


def _joined(scan: _Scan, frame: Frame) -> Frame | None:
    """Return the frame with its event; None if that is still to come."""
    if frame.event is not None or frame.descriptor not in scan.with_events:
        return frame
    event = scan.events.get((frame.descriptor, frame.seq_num))
    return None if event is None else replace(frame, event=event)


def _range(scan: _Scan | None, frame: Frame, name: str, exposure: float) -> tuple[float | None, float | None]:
    readings = scan.readings.get(name) if scan else None
    if readings is None or frame.event is None:
        return None, None
    end = float(frame.event.get("timestamps", {}).get(frame.data_key, frame.event["time"]))
    return readings.at(end - exposure, exposure), readings.at(end, exposure)


def _rows(page: Document) -> Iterator[Document]:
    for place, seq_num in enumerate(page["seq_num"]):
        yield {
            "descriptor": page["descriptor"],
            "seq_num": seq_num,
            "time": page["time"][place],
            "data": {name: column[place] for name, column in page["data"].items()},
            "timestamps": {name: column[place] for name, column in page["timestamps"].items()},
        }
