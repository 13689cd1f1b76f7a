"""Which number of a file's name counts the frames of a rotation scan."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from tango_server.commands.convert import convert
from tango_server.jobs.planning import Counting, plan
from tango_server.recipe import Recipe

GEOMETRY = {"wavelength": 0.29, "distance": 300.0, "pixel_size": 0.2, "beam_center": (30.0, 31.5), "exposure": 0.5}
STEPS = Recipe.preset("esperanto", esperanto={**GEOMETRY, "omega": {"start": 10.0, "step": 0.5}, "axis": "down"})
BY_TEMPERATURE = ["pat_001_300K.tif", "pat_002_300K.tif", "pat_003_301K.tif"]
BY_TIME = ["pat_0001_20261128_120000.tif", "pat_0002_20261128_120003.tif", "pat_0003_20261128_120006.tif"]
BY_TIME_ALONE = ["pat_115958.tif", "pat_120001.tif", "pat_120004.tif"]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def frames(raw: Path, names: list[str]) -> list[Path]:
    for name in names:
        (raw / name).touch()
    return [raw / name for name in names]


@pytest.mark.parametrize("names", [BY_TEMPERATURE, BY_TIME, BY_TIME_ALONE, ["pat_a.tif", "pat_b.tif", "pat_c.tif"]])
def test_steps_by_no_frame_number_are_refused_by_name(raw: Path, names: list[str]) -> None:
    planned = plan(frames(raw, names), STEPS)
    assert [item.output for item in planned] == [None] * 3
    for item in planned:
        assert all(name in item.problem for name in names)
        assert "--frame-number" in item.problem


@pytest.mark.parametrize(("names", "position"), [(BY_TEMPERATURE, 1), (BY_TEMPERATURE, -2), (BY_TIME, 1)])
def test_the_number_that_counts_can_be_named(raw: Path, names: list[str], position: int) -> None:
    planned = plan(frames(raw, names), STEPS, counting=Counting(frame_number=position))
    assert [item.problem for item in planned] == [""] * 3
    assert [item.experiment.start.omega for item in planned if item.experiment] == [10.0, 10.5, 11.0]
    folder = raw.with_name("processed") / "pat"
    assert [item.output for item in planned] == [folder / f"pat_1_{index}.esperanto" for index in (1, 2, 3)]


def test_what_is_counted_well_is_not_refused(raw: Path) -> None:
    two_scans = ["a1_0001.tif", "a1_0002.tif", "a2_0001.tif", "alone.tif"]
    assert not any(item.problem for item in plan(frames(raw, two_scans), STEPS))
    fixed = Recipe.preset("esperanto", esperanto={**GEOMETRY, "phi": 3.0})
    assert not any(item.problem for item in plan(frames(raw, BY_TEMPERATURE), fixed))
    assert not any(item.problem for item in plan(frames(raw, BY_TIME_ALONE), STEPS, counting=Counting(frame_number=-1)))


def test_the_guide_states_the_sign_of_omega(raw: Path, data: Path) -> None:
    shutil.copy(data / "qxrd_f32_64.tif", raw / "pat_0001.tif")
    for axis, angles in (("up", (30.25, 29.75)), ("down", (-30.25, -29.75))):
        wanted = {**GEOMETRY, "omega": {"center": -30.0, "width": 0.5}, "axis": axis}
        (item,) = plan([raw / "pat_0001.tif"], Recipe.preset("esperanto", esperanto=wanted))
        assert item.experiment is not None
        assert (item.experiment.start.omega, item.experiment.end.omega) == angles


@pytest.mark.parametrize("options", [["--frame-number", "0", "--format", "esperanto"], ["--frame-number", "1"]])
def test_a_senseless_position_is_a_wrong_call(raw: Path, options: list[str]) -> None:
    frames(raw, BY_TEMPERATURE)
    ended = CliRunner().invoke(convert, [str(raw), "--dry-run", *options])
    assert ended.exit_code == 2
    assert "--frame-number" in ended.stderr
