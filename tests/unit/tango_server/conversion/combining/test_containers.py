"""Groups of frames in containers, whose detectors have masks of their own: made files with known answers."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from tango_server.conversion.combining.group import Member, convert_group
from tango_server.conversion.errors import GroupIncompleteError
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.hdf5.open_files import close_all
from tango_server.recipe import Recipe

SHARED = Path(__file__).parents[6] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the shared test data are not there")


@pytest.fixture(autouse=True)
def closed_files() -> Iterator[None]:
    yield
    close_all()


def members(path: Path, indices: range) -> list[Member]:
    return [Member(FrameLocation.of(path, index)) for index in indices]


def recipe(folder: Path, method: str = "sum", **changes: object) -> Recipe:
    combine = {"of": "run", "method": method}
    return Recipe.model_validate({"combine": combine, "output": {"folder": str(folder / "out")}, **changes})


@needs_shared
@pytest.mark.parametrize("detector", ["", "Dectris EIGER 1M"])
def test_masked_pixel_of_a_counting_detector_is_never_one_count_short(tmp_path: Path, detector: str) -> None:
    path = tmp_path / "run.h5"
    shutil.copy(SHARED / "made" / "06_int16_sum.h5", path)
    if detector:
        with h5py.File(path, "r+") as file:
            file["entry/instrument/detector/description"] = detector
    report = convert_group(members(path, range(10)), recipe(tmp_path, pixel_type="float64"))
    image = tifffile.imread(report.output or "")
    assert image[3, 4] == 200_000
    if detector:
        assert np.isnan(image[1, 1])
        assert np.isnan(image[0, 0])
    else:
        assert (image[1, 1], image[2, 2]) == (179_999, 327_670)
    assert Path(report.output or "").name == "run_00000.tif"


@needs_shared
def test_full_counter_of_an_eiger_spoils_no_sum(tmp_path: Path) -> None:
    master = SHARED / "made" / "01_eiger_missing" / "run_master.h5"
    report = convert_group(members(master, range(4)), recipe(tmp_path, rotation=90))
    image = tifffile.imread(report.output or "")
    assert np.isnan(np.rot90(image, -1)[5, 5])  # 2**32 - 1 in frame 3, outside of the mask
    assert report.pixels.masked == 35
    assert report.pixels.overexposed is not None
    assert report.pixels.overexposed >= 1
    with pytest.raises(GroupIncompleteError, match=r"1 of 5.*run_data_000002"):
        convert_group(members(master, range(5)), recipe(tmp_path))


@needs_shared
def test_gaps_of_a_pilatus_stay_masked_in_a_combination(tmp_path: Path) -> None:
    path = SHARED / "pilatus" / "CeO2_Pilatus1M.tif"
    report = convert_group([Member(FrameLocation(path))] * 3, recipe(tmp_path, "sum", invalid_value=-7, rotation=180))
    raw = tifffile.imread(path).astype(np.float64)
    expected = np.where(raw < 0, np.nan, 3 * raw)
    np.testing.assert_array_equal(tifffile.imread(report.output or ""), np.rot90(expected, 2))
    assert report.pixels.masked == np.count_nonzero(raw < 0)
