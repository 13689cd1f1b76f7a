"""Files of several frames without a server: what they hold, counted in another process, and the plan of each."""

import shutil
from pathlib import Path

import pytest

from tango_server.conversion.esperanto.angle_table import read_angle_table
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.jobs import containers
from tango_server.jobs.containers import contents_of
from tango_server.jobs.planning import Counting, plan
from tango_server.recipe import Recipe
from tests.conftest import DATA

MADE = DATA / "made"
GEOMETRY = {
    "wavelength": 0.3, "distance": 400.0, "pixel_size": 0.2, "beam_center": [10, 10], "exposure": 1.0,
    "omega": {"start": 0.0, "step": 0.5},
}  # fmt: skip


def test_files_are_counted_where_a_crash_costs_one_of_them() -> None:
    grid, stack, crash = MADE / "04_grid_4d.h5", MADE / "11_edf" / "three_blocks.edf", MADE / "12_rest"
    second = MADE / "02_lambda_uneven" / "l1_test_00002_m02.nxs"
    files = [
        grid,
        crash / "crash_hdf5_2.0.0.h5",
        stack,
        second,
        Path(f"{crash / 'two_candidates.h5'}::/entry/data2/data"),
    ]
    found = contents_of([*files, Path(f"{crash / 'types.h5'}::/no_frames"), DATA / "qxrd_f32_64.tif"])
    assert found.frames == [
        *(FrameLocation(grid, index=index) for index in range(6)),
        *(FrameLocation(stack, index=index) for index in range(3)),
        *(FrameLocation(crash / "two_candidates.h5", "/entry/data2/data", index) for index in range(2)),
        FrameLocation(DATA / "qxrd_f32_64.tif"),
    ]
    (failed,) = found.failed.values()
    assert failed.startswith(f"{crash / 'crash_hdf5_2.0.0.h5'}: cannot read the file: its reader crashed")
    assert {each.name for each in found.skipped} >= {second.name}
    assert "another file beside it" in found.skipped[FrameLocation(second)]
    assert len(found.skipped) == 2


def test_chosen_frames_are_those_of_each_file() -> None:
    stack, single = MADE / "11_edf" / "three_blocks.edf", DATA / "qxrd_f32_64.tif"
    found = contents_of([stack, single], slice(0, 100, 2))
    assert [frame.index for frame in found.frames] == [0, 2]
    (failed,) = found.failed.values()
    assert failed == f"{single}: one frame, so that --frames selects nothing. Leave out --frames for this file."
    nothing = contents_of([stack], slice(7, 8))
    assert list(nothing.failed.values()) == [f"{stack}: --frames selects none of its 3 frames. Indices count from 0."]


def test_no_process_is_started_for_tiffs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(containers, "ProcessExecutor")
    assert contents_of([DATA / "qxrd_f32_64.tif"]).frames == [FrameLocation(DATA / "qxrd_f32_64.tif")]


def test_table_of_angles_fits_no_file_of_several_frames(tmp_path: Path) -> None:
    table = tmp_path / "angles.csv"
    table.write_text("file,omega_start,omega_end\nthree_blocks.edf,0,0.5\n04_eiger_2d.h5,0,0.5\n")
    angles = read_angle_table(table)
    recipe = Recipe.preset("esperanto", esperanto={**GEOMETRY, "omega": dict(angles.circles["omega"])})
    found = contents_of([MADE / "11_edf" / "three_blocks.edf", MADE / "04_eiger_2d.h5"])
    planned = plan(found.frames, recipe, counting=Counting(angles))
    assert ["this file has several frames" in each.problem for each in planned] == [True, True, True, False]


def test_each_frame_of_a_file_has_its_output_and_its_angles(tmp_path: Path) -> None:
    raw = tmp_path.resolve() / "raw"
    raw.mkdir()
    stack = Path(shutil.copy(MADE / "11_edf" / "three_blocks.edf", raw / "scan_0041.edf"))
    frames = [FrameLocation(stack, index=index) for index in range(3)]
    assert [item.output and item.output.name for item in plan(frames, Recipe.preset("xdi"))] == [
        f"scan_0041_{index:05d}.tif" for index in range(3)
    ]
    planned = plan(frames, Recipe.preset("esperanto", esperanto=GEOMETRY))
    assert [item.problem for item in planned] == [""] * 3
    assert [item.experiment.start.omega for item in planned if item.experiment] == [0.0, 0.5, 1.0]
    assert [item.output and item.output.name for item in planned] == [
        f"scan_0041_1_{number}.esperanto" for number in (1, 2, 3)
    ]
