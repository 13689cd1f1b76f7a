"""Find the nearest of many points within a tolerance on each axis. Pure."""

import math
from collections.abc import Iterator, Sequence
from itertools import product

_INDEXED_AXES = 3
"""Axes by which points are looked up; further ones are compared."""

_NONE = (math.inf, -1)

Point = tuple[float, ...]


class NearestPoints:
    """Numbered points, looked up in cells of twice the tolerance, so that all candidates are in neighbouring cells.

    >>> points = NearestPoints([0.5])
    >>> points.add((1.0,)), points.add((1.8,))
    (0, 1)
    >>> points.find((1.45,)), points.find((2.5,))
    (1, None)
    """

    def __init__(self, tolerances: Sequence[float]) -> None:
        self._tolerances = tuple(tolerances)
        self._points: list[Point] = []
        self._cells: dict[tuple[float, ...], list[int]] = {}

    def add(self, point: Point) -> int:
        """Add a point; return its number."""
        self._points.append(point)
        cell = tuple(_cell(value, tolerance) for value, tolerance in self._indexed(point))
        self._cells.setdefault(cell, []).append(len(self._points) - 1)
        return len(self._points) - 1

    def find(self, point: Point) -> int | None:
        """Return the number of the nearest point within the tolerance, the first one of equals; None if there is none.

        The distance is the largest one of all axes, each in units of its tolerance.
        """
        distances = [
            (distance, number) for number in self._near(point) if (distance := self._distance(number, point)) <= 1
        ]
        return min(distances)[1] if distances else None

    def _near(self, point: Point) -> Iterator[int]:
        around = []
        for value, tolerance in self._indexed(point):
            cell = _cell(value, tolerance)
            around.append((cell,) if tolerance == 0 else (cell - 1, cell, cell + 1))
        for place in product(*around):
            yield from self._cells.get(place, ())

    def _indexed(self, point: Point) -> list[tuple[float, float]]:
        return list(zip(point[:_INDEXED_AXES], self._tolerances, strict=False))

    def _distance(self, number: int, point: Point) -> float:
        return max(map(_in_tolerances, point, self._points[number], self._tolerances))


def _cell(value: float, tolerance: float) -> float:
    if tolerance == 0:
        return value
    cells = value / (2 * tolerance) if tolerance >= 1e-300 else math.inf  # noqa: PLR2004 - the product may not be 0
    return float(math.floor(cells)) if math.isfinite(cells) else value


def _in_tolerances(one: float, other: float, tolerance: float) -> float:
    """Return a distance in units of the tolerance, infinite if it is larger."""
    apart = abs(one - other)
    if apart > tolerance:
        return math.inf
    return apart / tolerance if tolerance else 0.0
