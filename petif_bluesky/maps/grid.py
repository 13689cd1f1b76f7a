"""The grid of a map: its points in row order. Pure.

    start document, or `map` in the recipe  -->  Grid  -->  Grid.number (positions)  -->  the number of a point

Points are numbered row by row: the last axis is the fastest, and each row begins at the start of that axis, whichever
way it was scanned.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tango_server.limits import MOST_POINTS
from tango_server.recipe.map import Map

_LISTS = "outer_list_product"
"""How bluesky calls the grid of a list for each motor."""
_UNORDERED = "spiral_square"
"""A grid whose motors are not in the order of its shape in the start document."""
_RELATIVE = ("rel_", "relative_")
_ADVICE = 'For other runs, give "map" in the recipe: {"shape": [rows, columns], "extents": [...], "motors": [...]}.'


class NoGridError(ValueError):
    """The points of a run are no grid."""

    def __init__(self, why: str) -> None:
        super().__init__(f"cannot make a map: {why}. {_ADVICE}")


@dataclass(frozen=True)
class Axis:
    """One axis of a grid: the key of its positions in events, and these, in the order of the scan."""

    key: str
    positions: tuple[float, ...]

    @classmethod
    def regular(cls, key: str, start: float, stop: float, number: int) -> "Axis":
        """Return an axis of equal steps, as numpy.linspace."""
        step = (stop - start) / max(number - 1, 1)
        return cls(key, (*(start + step * place for place in range(number - 1)), stop if number > 1 else start))

    def nearest(self, value: float) -> int | None:
        """Return the number of the position that is less than half a step away, None if there is none."""
        values = self._values
        after = bisect_left(values, value)
        candidates = range(max(after - 1, 0), min(after + 1, len(values)))
        best = min(candidates, key=lambda place: abs(values[place] - value))
        steps = [abs(values[best] - values[other]) for other in (best - 1, best + 1) if 0 <= other < len(values)]
        return self._places[best] if abs(values[best] - value) < min(steps, default=math.inf) / 2 else None

    @cached_property
    def _places(self) -> list[int]:
        """The numbers of the positions, the lowest position first."""
        return sorted(range(len(self.positions)), key=self.positions.__getitem__)

    @cached_property
    def _values(self) -> list[float]:
        return [self.positions[place] for place in self._places]


@dataclass(frozen=True)
class Grid:
    """The points of a map; `axes` begin with the slowest. `is_relative`: positions count from where the scan began."""

    axes: tuple[Axis, ...]
    is_relative: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of points along each axis."""
        return tuple(len(axis.positions) for axis in self.axes)

    @property
    def size(self) -> int:
        """Number of points."""
        return math.prod(self.shape)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the positions, the slowest first."""
        return tuple(axis.key for axis in self.axes)

    def point(self, number: int) -> tuple[float, ...]:
        """Return the positions of a point."""
        found: list[float] = []
        for axis in reversed(self.axes):
            number, place = divmod(number, len(axis.positions))
            found.append(axis.positions[place])
        return tuple(reversed(found))

    def number(self, positions: Sequence[float]) -> int | None:
        """Return the number of the point at these positions, None if they are more than half a step from any."""
        number = 0
        for axis, value in zip(self.axes, positions, strict=True):
            place = axis.nearest(value)
            if place is None:
                return None
            number = number * len(axis.positions) + place
        return number

    def beginning_at(self, positions: Sequence[float]) -> "Grid":
        """Return the grid whose first point is at these positions."""
        moved = (
            Axis(axis.key, tuple(value + (begin - axis.positions[0]) for value in axis.positions))
            for axis, begin in zip(self.axes, positions, strict=True)
        )
        return Grid(tuple(moved))


def grid_of_start(start: Mapping[str, Any]) -> Grid:
    """Return the grid of a run from its start document.

    Raises
    ------
    NoGridError
        if it has none.

    """
    named = f"the points of {start.get('plan_name') or 'this run'} are no grid"
    motors, shape, extents = (_list(start.get(key)) for key in ("motors", "shape", "extents"))
    if not (motors and shape and extents):
        raise NoGridError(f"{named}: its start document has no motors, shape and extents")
    if start.get("plan_pattern") == _UNORDERED:
        raise NoGridError(f"{named}: its start document does not say which motor has which extent")
    if not len(motors) == len(shape) == len(extents):
        raise NoGridError(f"{named}: it has {len(motors)} motors, shape {shape} and {len(extents)} extents")
    _require_few(shape)
    is_relative = str(start.get("plan_name", "")).startswith(_RELATIVE)
    if (lists := _lists_of(start, len(motors))) is not None:
        listed = [
            Axis(str(motor), tuple(_number(value, motor) for value in values))
            for motor, values in zip(motors, lists, strict=True)
        ]
        return _grid(listed, is_relative=is_relative)
    axes = []
    for motor, number, extent in zip(motors, shape, extents, strict=True):
        ends = [_number(end, motor) for end in _list(extent)]
        if len(ends) != 2:  # noqa: PLR2004 - from and to
            raise NoGridError(f"the extent of {motor} is {extent!r}, not two positions")
        axes.append(Axis.regular(str(motor), ends[0], ends[1], int(number)))
    return _grid(axes, is_relative=is_relative)


def grid_of_map(given: Map) -> Grid:
    """Return the grid that a recipe gives, the slowest axis first.

    >>> given = Map(shape=(2, 3), extents=((0, 1), (0, 0.02)), motors=("sample_y", "sample_x"))
    >>> grid_of_map(given).point(5)
    (1.0, 0.02)

    Raises
    ------
    NoGridError
        if two axes have the same motor.

    """
    return _grid([
        Axis.regular(motor, first, last, number)
        for motor, (first, last), number in zip(given.motors, given.extents, given.shape, strict=True)
    ])  # fmt: skip


def _grid(axes: Sequence[Axis], *, is_relative: bool = False) -> Grid:
    if len({axis.key for axis in axes}) < len(axes):
        raise NoGridError("two axes have the same key")
    for axis in axes:
        if len(set(axis.positions)) < len(axis.positions):
            raise NoGridError(f"{axis.key} has a position twice")
    return Grid(tuple(axes), is_relative)


def _lists_of(start: Mapping[str, Any], axes: int) -> list[list[Any]] | None:
    """Return the positions of each axis if they were given as lists: their steps may differ."""
    if start.get("plan_pattern") != _LISTS:
        return None
    arguments = start.get("plan_pattern_args")
    given = _list(arguments.get("args")) if isinstance(arguments, Mapping) else []
    lists = [_list(each) for each in given[1::2]]
    if len(lists) != axes or not all(lists):
        raise NoGridError("the start document has no list of positions for each motor")
    _require_few([len(each) for each in lists])
    return lists


def _require_few(shape: Sequence[Any]) -> None:
    for number in shape:
        if isinstance(number, bool) or not hasattr(number, "__index__") or number < 1:
            raise NoGridError(f"the number of points of an axis is {number!r}")
    if math.prod(map(int, shape)) > MOST_POINTS:
        raise NoGridError(f"it has more than {MOST_POINTS} points")


def _number(value: Any, key: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise NoGridError(f"a position of {key} is {value!r}")
    return found


def _list(value: Any) -> list[Any]:
    """Return a list or tuple as a list, anything else as an empty one."""
    return list(value) if isinstance(value, list | tuple) else []
