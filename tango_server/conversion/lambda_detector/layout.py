"""Where the modules of a detector are in the assembled frame."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from tango_server.conversion.errors import UnsupportedImageError

_LARGEST = 2**28
"""Pixels of an assembled frame."""
_MOST_GAPS = 10
"""The assembled frame may have this many times the pixels of the modules: staggered ones leave large gaps."""
_FARTHEST = 2.0**31
_ADVICE = "Check the translation/distance of each module."


@dataclass(frozen=True, slots=True)
class Placed:
    """A module as its file states it: `shape` (rows, columns), `x` and `y` of its first pixel, in pixels."""

    file: Path
    shape: tuple[int, int]
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Layout:
    """The assembled frame: its shape (rows, columns), and the place (rows, columns) of each module in it."""

    shape: tuple[int, int]
    places: tuple[tuple[slice, slice], ...]


def layout_of(modules: Sequence[Placed]) -> Layout:
    """Return the layout of at least one module, shifted so that the smallest row and column are 0.

    >>> layout_of([Placed(Path("m1"), (4, 6), 0, 0), Placed(Path("m2"), (4, 6), -2, 5)])
    Layout(shape=(9, 8), places=((slice(0, 4, None), slice(2, 8, None)), (slice(5, 9, None), slice(0, 6, None))))

    Raises
    ------
    UnsupportedImageError
        if modules overlap, or would be in impossible places.

    """
    for module in modules:
        if not (abs(module.x) < _FARTHEST and abs(module.y) < _FARTHEST):  # also NaN
            raise _unfit(module, f"its module is at ({module.x:g}, {module.y:g}) pixels")
    corners = [(_nearest(module.y), _nearest(module.x)) for module in modules]
    top, left = min(row for row, _ in corners), min(column for _, column in corners)
    places = tuple(
        (slice(row - top, row - top + module.shape[0]), slice(column - left, column - left + module.shape[1]))
        for module, (row, column) in zip(modules, corners, strict=True)
    )
    shape = max(rows.stop for rows, _ in places), max(columns.stop for _, columns in places)
    pixels = sum(math.prod(module.shape) for module in modules)
    if math.prod(shape) > min(_LARGEST, _MOST_GAPS * pixels):
        farthest = max(modules, key=lambda module: abs(module.x) + abs(module.y))
        problem = f"its module at ({farthest.x:g}, {farthest.y:g}) pixels would make a frame of {shape[0]} x {shape[1]}"
        raise _unfit(farthest, f"{problem} pixels of modules with {pixels}")
    for one, other in combinations(range(len(modules)), 2):
        if all(a.start < b.stop and b.start < a.stop for a, b in zip(places[one], places[other], strict=True)):
            raise _unfit(modules[other], f"its module overlaps that of {modules[one].file.name}")
    return Layout(shape, places)


def _nearest(position: float) -> int:
    """Return the nearest pixel; of two, the higher one, whatever its sign, so that distances stay the same."""
    return math.floor(position + 0.5)


def _unfit(module: Placed, problem: str) -> UnsupportedImageError:
    return UnsupportedImageError(module.file, f"cannot assemble the detector: {problem}", _ADVICE)
