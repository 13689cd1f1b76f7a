"""The colours of both images: one map and one pair of limits, for logarithmic and linear scale."""

from typing import Any, Literal

from bokeh.models import LinearColorMapper, LogColorMapper
from bokeh.palettes import all_palettes

PALETTES = {
    "viridis": "Viridis",
    "gray": "Greys",
    "inferno": "Inferno",
    "magma": "Magma",
    "plasma": "Plasma",
    "cividis": "Cividis",
}
"""Colour maps, and their names in Bokeh."""
_STEPS = 256
_NOT_A_NUMBER = "#c0c0c0"

Scale = Literal["log", "linear"]


class Colours:
    """One mapper for each scale: Bokeh redraws an image when its mapper changes, not when the mapper is replaced."""

    def __init__(self) -> None:
        palette = _palette("viridis")
        self.mappers: dict[Scale, Any] = {
            "log": LogColorMapper(palette=palette, low=1.0, high=10.0, nan_color=_NOT_A_NUMBER),
            "linear": LinearColorMapper(palette=palette, low=1.0, high=10.0, nan_color=_NOT_A_NUMBER),
        }

    def limit(self, low: float, high: float) -> None:
        """Set the range of values."""
        for mapper in self.mappers.values():
            mapper.update(low=low, high=high)

    def paint(self, name: str) -> None:
        """Set the colour map, one of `PALETTES`."""
        for mapper in self.mappers.values():
            mapper.palette = _palette(name)


def _palette(name: str) -> tuple[str, ...]:
    colours: tuple[str, ...] = tuple(all_palettes[PALETTES[name]][_STEPS])
    return colours
