"""Which frames belong to which point of a run's map, as they come, and for which points nothing came. Pure.

    frames with their positions  -->  MapPoints.point  -->  the point (or why there is none)
                                 -->  MapPoints.missing  -->  points without a frame, when the run stops

A frame that lies on no point of the grid, or on one that has another frame or group, is no part of the map. The points
of an image are those of its own map: a run has as many maps as images.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from petif_bluesky.maps.grid import Grid, grid_of_map, grid_of_start
from tango_server.messages import MapPoint
from tango_server.recipe import Recipe
from tango_server.recipe.combine import By


def grid_of_run(start: Mapping[str, Any], recipe: Recipe) -> Grid | None:
    """Return the grid of a run for a recipe, None if there is no map to make.

    Frames that are combined by the positions of all motors of a scan are a map, too.

    Raises
    ------
    NoGridError
        if there is a map to make, but no grid.

    """
    if recipe.map is not None:
        return grid_of_map(recipe.map) if recipe.map.motors else grid_of_start(start)
    if not recipe.makes_maps or recipe.combine is None or not isinstance(recipe.combine.of, By):
        return None
    keys = {key for key, _ in recipe.combine.of.by}
    motors = start.get("motors")
    if not isinstance(motors, list | tuple) or keys != set(map(str, motors)):
        return None
    return grid_of_start(start)


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a frame was taken on the grid of its run; `problem`: why that is unknown."""

    grid: Grid
    positions: tuple[float, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ImageKey:
    """The image that a map is made of."""

    stream: str
    data_key: str


@dataclass(slots=True)
class MapOfImage:
    """The map of one image of a run."""

    grid: Grid
    name: str
    owners: dict[int, object] = field(default_factory=dict)
    """By point, the frame or group there."""
    points: dict[object, MapPoint] = field(default_factory=dict)
    """By frame or group."""

    def point(self, number: int, positions: tuple[float, ...]) -> MapPoint:
        """Return a point of the map, and where it is."""
        return MapPoint(point=number, shape=self.grid.shape, motors=self.grid.keys, positions=positions, name=self.name)

    def missing(self) -> Iterator[MapPoint]:
        """Yield the points without a frame, and where they are."""
        for number in range(self.grid.size):
            if number not in self.owners:
                yield self.point(number, self.grid.point(number))


class OffTheMapError(ValueError):
    """A frame belongs to no point of the map."""


class MapPoints:
    """The maps of one run, by image."""

    def __init__(self) -> None:
        self.maps: dict[ImageKey, MapOfImage] = {}

    def point(self, image: ImageKey, name: str, spot: Spot, owner: object) -> MapPoint:
        """Return the point of a frame, or of its group, which is that of the group's first frame.

        Parameters
        ----------
        image: what the frame shows
        name: the common part of the names of its files
        spot: where it was taken
        owner: the frame or the group, as a key

        Raises
        ------
        OffTheMapError
            if it belongs to none; the message says why.

        """
        if spot.problem:
            raise OffTheMapError(spot.problem)
        here = self.maps.get(image)
        if here is None:
            grid = spot.grid.beginning_at(spot.positions) if spot.grid.is_relative else spot.grid
            here = self.maps[image] = MapOfImage(grid, self._free_name(name, image))
        known = here.points.get(owner)
        if known is not None:
            return known
        number = here.grid.number(spot.positions)
        if number is None:
            raise OffTheMapError(f"{_spelled(here.grid, spot.positions)} is not a point of the grid")
        if here.owners.setdefault(number, owner) != owner:
            raise OffTheMapError(f"point {number} has another frame already")
        return here.points.setdefault(owner, here.point(number, spot.positions))

    def _free_name(self, name: str, image: ImageKey) -> str:
        taken = {each.name for each in self.maps.values()}
        return f"{name}_{image.data_key}" if name in taken else name


def _spelled(grid: Grid, positions: tuple[float, ...]) -> str:
    return ", ".join(f"{key} = {value:g}" for key, value in zip(grid.keys, positions, strict=True))
