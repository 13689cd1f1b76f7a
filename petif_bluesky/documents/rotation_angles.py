"""Rotation angles measured during exposures, for runs with an ESPERANTO recipe.

For a field that the recipe says is read `during` the exposure, its readings in all streams of the run are interpolated,
by their timestamps, at the start and end of the exposure, and `omega:start` and `omega:end` are added to the metadata
of the frame. The timestamp of an image is the end of its exposure. If the readings stop short of that by at most one
exposure, or the interval between two readings, the nearest two are extrapolated.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tango_server.recipe.esperanto import Esperanto

Document = Mapping[str, Any]

_KEPT_READINGS = 1_000_000


@dataclass(slots=True)
class _Readings:
    """Readings of one field: times (Unix s) and values, ordered by time."""

    times: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, time: float, value: float) -> None:
        place = bisect_right(self.times, time)
        twice = place > 0 and self.times[place - 1] == time
        if not twice and len(self.times) < _KEPT_READINGS:
            self.times.insert(place, time)
            self.values.insert(place, value)

    def at(self, time: float, reach: float) -> float | None:
        """Return the value at a time, None if it is too far from the readings.

        They are extrapolated by at most `reach` seconds, or the interval between the two readings at that end.
        """
        if len(self.times) == 1 and self.times[0] == time:
            return self.values[0]
        if len(self.times) < 2:  # noqa: PLR2004 - a line needs two points
            return None
        after = min(max(bisect_right(self.times, time), 1), len(self.times) - 1)
        (t0, t1), (v0, v1) = self.times[after - 1 : after + 1], self.values[after - 1 : after + 1]
        reach = max(reach, t1 - t0)
        return v0 + (v1 - v0) * (time - t0) / (t1 - t0) if t0 - reach <= time <= t1 + reach else None


class RotationAngles:
    """The readings of one run."""

    def __init__(self, esperanto: Esperanto) -> None:
        self._readings = {
            circle.during: _Readings() for circle in esperanto.circles.values() if circle.during is not None
        }

    def read(self, event: Document) -> bool:
        """Add the readings of an event; return whether there were any."""
        names = self._readings.keys() & event["data"].keys()
        stamps = event.get("timestamps", {})
        for name in names:
            value = event["data"][name]
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._readings[name].add(float(stamps.get(name, event["time"])), float(value))
        return bool(names)

    def at(self, end: float | None, exposure: float) -> tuple[dict[str, float], bool]:
        """Return the angles of an exposure as `name:start` and `name:end`, and whether they are complete.

        `end` is a Unix time (s), None if no event has it; `exposure` is in s.
        """
        if end is None:
            return {}, not self._readings
        found = {
            f"{name}:{moment}": readings.at(time, exposure)
            for name, readings in self._readings.items()
            for moment, time in (("start", end - exposure), ("end", end))
        }
        known = {name: value for name, value in found.items() if value is not None}
        return known, len(known) == len(found)


def esperanto_of(recipe: Any) -> Esperanto | None:
    """Return the ESPERANTO settings of a recipe in a start document; None for other or invalid recipes."""
    if not isinstance(recipe, Mapping) or recipe.get("format") != "esperanto":
        return None
    try:
        return Esperanto.model_validate(recipe.get("esperanto") or {})
    except ValueError:  # the server reports the error for each frame
        return None
