"""The grid of a run, and which of its frames belongs to which point."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import RunEngine
from hypothesis import given, settings
from hypothesis import strategies as st
from ophyd.sim import SynAxis

from petif_bluesky.documents.positions import positions_in
from petif_bluesky.maps.grid import Axis, Grid, NoGridError, grid_of_map, grid_of_start
from petif_bluesky.maps.points import ImageKey, MapOfImage, MapPoints, OffTheMapError, Spot
from tango_server.recipe.map import Map
from tests.unit.documents import Recorder

START = {"motors": ["y", "x"], "shape": [2, 3], "extents": [[0, 1], [0, 0.02]], "plan_name": "grid_scan"}


@pytest.fixture
def motors() -> tuple[SynAxis, SynAxis]:
    """The slow and the fast one."""
    slow, fast = SynAxis(name="sample_y"), SynAxis(name="sample_x")
    slow.set(5.0).wait()
    fast.set(-3.0).wait()
    return slow, fast


def positions(recorder: Recorder, grid: Grid) -> list[tuple[float, ...]]:
    return [positions_in(event["data"], grid.keys) for event in recorder.stream("primary")]


IMAGE = ImageKey("primary", "image")


def placed(grid: Grid, given: Iterable[tuple[float, ...]]) -> tuple[MapOfImage | None, list[int | str]]:
    """Return the map of frames at these positions, and the point of each or why it has none."""
    points, found = MapPoints(), list[int | str]()
    for frame, at in enumerate(given):
        try:
            found.append(points.point(IMAGE, "map", Spot(grid, at), frame).point)
        except OffTheMapError as error:
            found.append(str(error))
    return points.maps.get(IMAGE), found


@pytest.mark.parametrize(
    ("plan", "numbers", "first"),
    [
        (lambda y, x: bp.grid_scan([], y, 0, 1, 2, x, 0, 0.02, 3, snake_axes=True), [0, 1, 2, 5, 4, 3], (0.0, 0.0)),
        (lambda y, x: bp.grid_scan([], y, 1, 0, 2, x, 0.02, 0, 3), [0, 1, 2, 3, 4, 5], (1.0, 0.02)),
        (lambda y, x: bp.rel_grid_scan([], y, -1, 1, 2, x, 0, 2, 3, snake_axes=[x]), [0, 1, 2, 5, 4, 3], (4.0, -3.0)),
        (lambda y, x: bp.list_grid_scan([], y, [0, 1], x, [0, 1, 5], snake_axes=True), [0, 1, 2, 5, 4, 3], (0.0, 0.0)),
        (lambda y, x: bp.rel_list_grid_scan([], y, [0, 1], x, [0, 1, 5]), [0, 1, 2, 3, 4, 5], (5.0, -3.0)),
    ],
    ids=["snake", "descending", "relative", "lists", "relative lists"],
)
def test_points_of_a_scan_are_put_in_row_order(
    plan: Callable[..., Any],
    numbers: list[int],
    first: tuple[float, float],
    run_engine: RunEngine,
    recorder: Recorder,
    motors: tuple[SynAxis, SynAxis],
) -> None:
    run_engine(plan(*motors))
    (start,) = recorder.of("start")
    grid = grid_of_start(start)
    made, order = placed(grid, positions(recorder, grid))
    assert made is not None
    assert grid.keys == ("sample_y", "sample_x")
    assert made.grid.point(0) == pytest.approx(first)
    assert order == numbers
    assert list(made.missing()) == []


@pytest.mark.parametrize(
    "plan",
    [
        lambda y, x: bp.list_scan([], y, [0, 1], x, [0, 1]),
        lambda y, x: bp.scan([], y, 0, 1, x, 0, 1, 3),
        lambda y, x: bp.spiral([], x, y, 0, 0, 2, 2, 1, 1),
        lambda y, x: bp.spiral_square([], x, y, 0, 0, 2, 2, 3, 3),
        lambda y, x: bp.count([y, x], num=2),
    ],
    ids=["list", "line", "spiral", "squares", "count"],
)
def test_list_of_points_is_no_grid_and_says_so(
    plan: Callable[..., Any], run_engine: RunEngine, recorder: Recorder, motors: tuple[SynAxis, SynAxis]
) -> None:
    run_engine(plan(*motors))
    (start,) = recorder.of("start")
    with pytest.raises(NoGridError, match=f"the points of {start['plan_name']} are no grid.*map.*in the recipe"):
        grid_of_start(start)


@given(st.tuples(st.integers(1, 5), st.integers(1, 6)), st.data())
@settings(max_examples=150, deadline=None)
def test_frames_are_placed_as_numpy_numbers_the_points(shape: tuple[int, int], data: Any) -> None:
    starts = data.draw(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)))
    steps = data.draw(st.tuples(*[st.sampled_from([-2.0, -0.01, 0.01, 1.0, 300.0])] * 2))
    axes = [
        (start, start + step * (number - 1), number) for start, step, number in zip(starts, steps, shape, strict=True)
    ]
    grid = grid_of_map(Map(shape=shape, extents=[axis[:2] for axis in axes], motors=["y", "x"]))
    points = np.stack(np.meshgrid(*(np.linspace(*axis) for axis in axes), indexing="ij"), -1).reshape(-1, 2)
    taken = data.draw(st.permutations(data.draw(st.sets(st.sampled_from(range(len(points)))).map(sorted))))
    noise = data.draw(st.lists(st.floats(-0.4, 0.4), min_size=2 * len(taken), max_size=2 * len(taken)))
    at = points[list(taken)] + np.reshape(noise, (-1, 2)) * np.abs(steps)
    made, numbers = placed(grid, [tuple(map(float, each)) for each in at])
    assert numbers == list(taken)
    if made is not None:
        assert [point.point for point in made.missing()] == sorted(set(range(len(points))) - set(taken))
    for number, point in enumerate(points):
        assert grid.point(number) == pytest.approx(tuple(point))


def test_frames_off_the_grid_and_twice_at_a_point_are_named() -> None:
    made, found = placed(grid_of_start(START), [(0.0, 0.004), (0.0, 0.001), (0.0, 0.5), (0.6, 0.011)])
    assert found == [0, "point 0 has another frame already", "y = 0, x = 0.5 is not a point of the grid", 4]
    assert made is not None
    assert [point.point for point in made.missing()] == [1, 2, 3, 5]


def test_map_of_the_recipe_begins_with_the_slowest_axis() -> None:
    grid = grid_of_map(Map(shape=(2, 3), extents=((0, 1), (0, 0.02)), motors=("sample_y", "sample_x")))
    assert (grid.keys, grid.shape, grid.point(5)) == (("sample_y", "sample_x"), (2, 3), (1.0, 0.02))


def test_axis_of_one_point_takes_every_position() -> None:
    assert Axis.regular("x", 3.0, 3.0, 1).nearest(17.0) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2]},
        {"shape": [2, 0]},
        {"shape": [2, True]},
        {"shape": [2, "3"]},
        {"shape": [10**6, 10**6]},
        {"shape": 6},
        {"motors": ["x", "x"]},
        {"motors": [], "shape": [], "extents": []},
        {"extents": [[0, 1], [0, math.nan]]},
        {"extents": [[0, 1], [0]]},
        {"extents": [[0, 1], "ab"]},
        {"extents": [[0, 1], [1, 1]]},
        {"plan_pattern": "outer_list_product"},
        {"plan_pattern": "outer_list_product", "plan_pattern_args": {"args": ["y", [0, 1], "x", [1, 1, 2]]}},
        {"plan_pattern": "outer_list_product", "plan_pattern_args": {"args": ["y", [0, 1], "x", 5]}},
    ],
)
def test_start_document_with_a_wrong_grid_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(NoGridError, match="cannot make a map: "):
        grid_of_start({**START, **change})


def test_map_with_one_motor_twice_is_refused() -> None:
    with pytest.raises(NoGridError, match="cannot make a map: two axes have the same key"):
        grid_of_map(Map(shape=(2, 3), extents=((0, 1), (0, 1)), motors=("x", "x")))
