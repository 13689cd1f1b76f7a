"""The angles of a run whose recipe asks for ESPERANTO frames, as they were measured while a frame was exposed.

Where the recipe names a field that was read `during` the exposure, the readings of it in all streams of the run, by
their own time stamps, are interpolated at the start and at the end of the exposure: `omega:start` and `omega:end` join
the frame's metadata. An image's time stamp is the end of its exposure. Readings may end before, or begin after, by one
exposure or by as much as lies between two of them: then the nearest two are extrapolated.
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
    """What was read of one field: instants (Unix s) and values, in the order of time."""

    times: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, time: float, value: float) -> None:
        place = bisect_right(self.times, time)
        twice = place > 0 and self.times[place - 1] == time
        if not twice and len(self.times) < _KEPT_READINGS:
            self.times.insert(place, time)
            self.values.insert(place, value)

    def at(self, time: float, reach: float) -> float | None:
        """Return the value at a time, None if the readings do not reach so far.

        They reach `reach` seconds further at either end, or as far as from one of the last two to the other.
        """
        if len(self.times) == 1 and self.times[0] == time:
            return self.values[0]
        if len(self.times) < 2:  # noqa: PLR2004 - two make a line
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
        """Take the readings of an event in; return whether there were any."""
        names = self._readings.keys() & event["data"].keys()
        stamps = event.get("timestamps", {})
        for name in names:
            value = event["data"][name]
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._readings[name].add(float(stamps.get(name, event["time"])), float(value))
        return bool(names)

    def at(self, end: float | None, exposure: float) -> tuple[dict[str, float], bool]:
        """Return the angles of an exposure by `name:start` and `name:end`, and whether these are all.

        `end` is an instant (Unix s), None if no event says it; `exposure` is in s.
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
    """Return what a recipe in a start document says of ESPERANTO frames; None for other recipes, and for wrong ones."""
    if not isinstance(recipe, Mapping) or recipe.get("format") != "esperanto":
        return None
    try:
        return Esperanto.model_validate(recipe.get("esperanto") or {})
    except ValueError:  # the server says what is wrong, for each frame
        return None
