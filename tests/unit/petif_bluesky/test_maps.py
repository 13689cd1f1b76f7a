"""Runs that become maps: one output for each point of the grid, whatever the order of the scan, and what is missing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
import tifffile
from bluesky.utils import RunEngineInterrupted
from ophyd.sim import SynAxis

from petif_bluesky import ConversionCallback
from petif_bluesky.delivery import run_maps
from petif_bluesky.testing.reports import failed, really_combined, really_converted
from tango_server.conversion.records import record_of
from tango_server.messages import FrameRequest
from tango_server.recipe import Recipe
from tests.unit.burst import Burst
from tests.unit.lab import Lab

BY = {"by": {"sample_x": 0.005, "sample_y": 0.25}}
SUMMED = Recipe.preset("xdi", combine={"of": BY, "method": "sum"})
EACH = Recipe.preset("xdi", map={})


@pytest.fixture
def mapped(lab: Lab, callback: ConversionCallback) -> Lab:
    """A lab whose frames are converted and combined by the code of the server."""
    lab.run_engine.subscribe(callback)
    lab.server.report = really_converted
    lab.server.report_group = really_combined
    return lab


@pytest.fixture
def motors() -> tuple[SynAxis, SynAxis]:
    rng = np.random.default_rng(24)
    slow, fast = (
        SynAxis(name=name, readback_func=lambda x: x + rng.normal(0, 0.001)) for name in ("sample_y", "sample_x")
    )
    return slow, fast


def snake(lab: Lab, motors: Any, exposures: int = 1, skipped: tuple[int, ...] = (), **options: Any) -> Any:
    """A grid of 2 x 3 points, without events at some points, by their numbers in the scan."""
    slow, fast = motors
    numbers = iter(range(6))

    def per_step(detectors: Any, step: Any, pos_cache: Any) -> Any:
        yield from bps.move_per_step(step, pos_cache)
        if next(numbers) not in skipped:
            for _ in range(exposures):
                yield from bps.trigger_and_read([*detectors, *step])

    plan = options.pop("plan", bp.grid_scan)
    return plan(
        [lab.detector], slow, 0, 1, 2, fast, 0, 0.02, 3, snake_axes=True, per_step=per_step, **options
    )  # fmt: skip


def outputs(lab: Lab) -> list[Path]:
    """The files of the map, in the order in which XDI opens them."""
    first = next(report.output for report in lab.converter.reports if report.output)
    assert first
    return sorted(Path(first).parent.glob("*.tif"))  # without sidecars


def numbers(lab: Lab) -> dict[str, Any]:
    event = lab.recorder.stream("conversion")[-1]
    return {key.removeprefix("converter_"): value for key, value in event["data"].items()}


def raw(request: FrameRequest) -> Any:
    return tifffile.imread(request.source).astype(np.float64)


@pytest.mark.parametrize("exposures", [1, 3])
def test_snake_scan_becomes_the_grid_that_xdi_needs(mapped: Lab, motors: Any, exposures: int) -> None:
    """The scan goes through the points 0, 1, 2, 5, 4, 3; at the fourth nothing comes."""
    recipe = SUMMED if exposures > 1 else EACH
    mapped.run(snake(mapped, motors, exposures, skipped=(3,)), recipe=recipe)
    mapped.recorder.check()
    requests = list(mapped.server.requests.values())
    frames = [request for request in requests if request.placeholder is None]
    files = outputs(mapped)
    assert [file.name for file in files] == [f"{files[0].name[:-9]}{point:05d}.tif" for point in range(6)]
    in_order = {0: 0, 1: 1, 2: 2, 4: 3, 3: 4}
    for point, file in enumerate(files):
        if point == 5:
            assert not tifffile.imread(file).any()
            continue
        begin = in_order[point] * exposures
        expected = sum(raw(request) for request in frames[begin : begin + exposures])
        np.testing.assert_array_equal(tifffile.imread(file), np.trunc(expected).astype(np.int32))
    found = numbers(mapped)
    assert (found["placeholders"], found["failed"], found["drained"]) == (1, 0, True)
    assert found["submitted"] == 5 * exposures + 1


def test_point_whose_frame_failed_gets_a_placeholder(mapped: Lab, motors: Any) -> None:
    def third_fails(request: FrameRequest) -> Any:
        if request.seq_num == 3 and request.placeholder is None:
            return failed(request, "the file is damaged")
        return really_converted(request)

    mapped.server.report = third_fails
    mapped.run(snake(mapped, motors), recipe=EACH)
    mapped.recorder.check()
    files = outputs(mapped)
    assert len(files) == 6
    assert [file for file in files if not tifffile.imread(file).any()] == [files[2]]
    record = record_of(files[2])
    assert record is not None
    assert record.placeholder
    found = numbers(mapped)
    assert [found[key] for key in ("submitted", "converted", "failed", "placeholders")] == [7, 5, 1, 1]
    (report,) = [report for report in mapped.converter.reports if report.outcome == "placeholder"]
    assert "point 2 of the map (sample_y = 0, sample_x = 0.0" in report.reason
    assert "its frames failed: the file is damaged" in report.reason


def test_relative_scan_begins_where_the_motors_were(mapped: Lab, motors: Any) -> None:
    motors[0].set(7.0).wait()
    motors[1].set(-1.0).wait()
    mapped.run(snake(mapped, motors, plan=bp.rel_grid_scan), recipe=EACH)
    points = [request.map for request in mapped.server.requests.values()]
    assert [point.point for point in points if point] == [0, 1, 2, 5, 4, 3]
    assert not numbers(mapped)["placeholders"]


def test_list_of_points_is_no_grid_and_is_converted_without_placeholders(
    mapped: Lab, motors: Any, caplog: pytest.LogCaptureFixture
) -> None:
    slow, fast = motors
    plan = bp.list_scan([mapped.detector], slow, [0, 1, 0], fast, [0, 0.01, 0.02])
    mapped.run(plan, recipe=EACH)
    assert "the points of list_scan are no grid" in caplog.text
    assert not [request for request in mapped.server.requests.values() if request.map or request.placeholder]
    assert numbers(mapped)["converted"] == 3


def test_map_of_the_recipe_is_the_grid_of_a_list_of_points(mapped: Lab, motors: Any) -> None:
    slow, fast = motors
    grid = {"shape": [2, 2], "extents": [[0, 1], [0, 0.02]], "motors": ["sample_y", "sample_x"]}
    plan = bp.list_scan([mapped.detector], slow, [1, 0, 1], fast, [0, 0.02, 0.02])
    mapped.run(plan, recipe=Recipe.preset("xdi", map=grid))
    points = [request.map.point for request in mapped.server.requests.values() if request.map]
    assert points == [2, 1, 3, 0]
    assert len(outputs(mapped)) == 4


def test_frame_beside_the_grid_and_second_frame_of_a_point_keep_their_names(
    mapped: Lab, motors: Any, caplog: pytest.LogCaptureFixture
) -> None:
    slow, fast = motors
    grid = {"shape": [2], "extents": [[0, 1]], "motors": ["sample_y"]}
    plan = bp.list_scan([mapped.detector], slow, [0, 0, 7, 1], fast, [0, 0, 0, 0])
    mapped.run(plan, recipe=Recipe.preset("xdi", map=grid))
    requests = list(mapped.server.requests.values())
    assert [request.map and request.map.point for request in requests] == [0, None, None, 1]
    assert "point 0 has another frame already" in requests[1].metadata["left_out"]["map"]
    assert "sample_y = 7" in caplog.text
    assert numbers(mapped)["converted"] == 4
    assert len(outputs(mapped)) == 2


def test_point_taken_again_has_one_frame_and_none_fails(
    mapped: Lab, motors: Any, caplog: pytest.LogCaptureFixture
) -> None:
    shots = iter(range(7))

    def per_step(detectors: Any, step: Any, pos_cache: Any) -> Any:
        yield from bps.checkpoint()
        yield from bps.one_nd_step(detectors, step, pos_cache)
        if next(shots) == 1:
            yield from bps.pause()

    with pytest.raises(RunEngineInterrupted):
        mapped.run(bp.grid_scan([mapped.detector], motors[0], 0, 1, 3, per_step=per_step), recipe=EACH)
    mapped.run_engine.resume()
    requests = list(mapped.server.requests.values())
    assert [request.map and request.map.point for request in requests] == [0, 1, None, 2]
    assert "point 1 has another frame already" in caplog.text
    assert (numbers(mapped)["converted"], numbers(mapped)["failed"]) == (4, 0)
    assert len(outputs(mapped)) == 3


def test_recipe_of_the_server_makes_the_map_of_a_run(mapped: Lab, motors: Any) -> None:
    mapped.server.poll(replace(mapped.server.state, recipe=EACH.model_dump(mode="json")))
    mapped.run_engine.preprocessors.clear()  # as where only the callback is subscribed
    mapped.run_engine(snake(mapped, motors, skipped=(2,)))
    mapped.server.until(lambda: len(mapped.server.requests) == 6)
    assert sorted(request.map.point for request in mapped.server.requests.values() if request.map) == list(range(6))


def test_group_of_several_points_is_warned_of(mapped: Lab, motors: Any, caplog: pytest.LogCaptureFixture) -> None:
    recipe = Recipe.preset("xdi", map={}, combine={"of": {"every": 2}, "method": "sum"})
    mapped.run(snake(mapped, motors, exposures=2, skipped=(5,)), recipe=recipe)
    assert "was not taken at" not in caplog.text
    mapped.run(snake(mapped, motors), recipe=recipe)
    assert caplog.text.count("was not taken at point") == 3


def test_aborted_scan_becomes_a_whole_map(mapped: Lab, motors: Any) -> None:
    class BrokenError(Exception):
        pass

    def failing(detectors: Any, step: Any, pos_cache: Any) -> Any:
        if motors[1].setpoint.get() > 0:
            raise BrokenError
        yield from bps.one_nd_step(detectors, step, pos_cache)

    plan = bp.grid_scan(
        [mapped.detector], motors[0], 0, 1, 2, motors[1], 0, 0.02, 3, snake_axes=True, per_step=failing
    )  # fmt: skip
    with pytest.raises(BrokenError):
        mapped.run(plan, recipe=EACH)
    assert len(outputs(mapped)) == 6


def test_template_names_row_and_column(mapped: Lab, motors: Any) -> None:
    recipe = Recipe.preset("xdi", map={}, output={"template": "{row:02d}_{column:02d}_{point}"})
    mapped.run(snake(mapped, motors, skipped=(5,)), recipe=recipe)
    names = [Path(report.output).name for report in mapped.converter.reports if report.output]
    assert sorted(names) == [f"{row:02d}_{column:02d}_{3 * row + column}.tif" for row in (0, 1) for column in range(3)]


def test_exposures_of_an_event_are_one_point(mapped: Lab, motors: Any, tmp_path: Path) -> None:
    burst = Burst(tmp_path / "raw" / "burst", 3, name="burst")
    recipe = Recipe.preset("xdi", map={}, combine={"of": "event", "method": "max"})
    mapped.run(bp.grid_scan([burst], motors[0], 0, 1, 2, motors[1], 0, 0.02, 2, snake_axes=True), recipe=recipe)
    requests = list(mapped.server.requests.values())
    assert [request.map and request.map.point for request in requests] == [0, 0, 0, 1, 1, 1, 3, 3, 3, 2, 2, 2]
    assert len(outputs(mapped)) == 4
    assert numbers(mapped)["groups"] == 4


def test_more_placeholders_than_a_session_makes_at_once_are_left_to_petif_map(
    mapped: Lab, motors: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(run_maps, "_MOST_AT_ONCE", 2)
    mapped.run(snake(mapped, motors, skipped=(1, 2, 4)), recipe=EACH)
    assert numbers(mapped)["placeholders"] == 2
    assert "no frame came for 3 points of its map; placeholders are written for 2 of them" in caplog.text
