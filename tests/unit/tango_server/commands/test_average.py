"""`petif average`: masters from frames."""

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from petif_bluesky.sim.qxrd_file import write_frame
from petif_bluesky.sim.qxrd_sidecar import Sidecar, sidecar_path, write_sidecar
from tango_server.commands.average import average
from tango_server.conversion import averaging, convert_file
from tango_server.conversion.errors import ConvertedDifferentlyError
from tango_server.conversion.inspection import inspect_file
from tango_server.conversion.tiff.parser import read_structure
from tango_server.conversion.tiff.reader import read_first_image
from tango_server.conversion.tiff.record import read_provenance
from tango_server.conversion.tiff.structure import Structure
from tango_server.recipe import NewFile, Recipe
from tests.conftest import DATA

SHAPE = (12, 16)
TAKEN = datetime(2024, 5, 17)


@pytest.fixture
def darks(tmp_path: Path) -> list[Path]:
    """Five darks of 2000 counts with noise; the pixel (3, 4) is hot."""
    rng = np.random.default_rng(1)
    return [frame(tmp_path / f"a.dark-{n:05d}.tif", dark(rng), exposure=0.1) for n in range(5)]


def dark(rng: np.random.Generator) -> NDArray[Any]:
    image = rng.normal(2000, 5, SHAPE).astype(np.uint16)
    image[3, 4] = 9000
    return image


def frame(path: Path, image: NDArray[Any], exposure: float | None = None, exposures: int = 1) -> Path:
    write_frame(path, image, document_name=path.name, acquired=TAKEN)
    if exposure is not None:
        write_sidecar(path, Sidecar(
            shape=SHAPE, pixel_type=image.dtype.name, exposure_time=exposure, acquired=TAKEN, center=(5, 6),
            distance=100, energy=42_000, summed_exposures=exposures,
        ))  # fmt: skip
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(average, [str(each) for each in arguments], catch_exceptions=False)


def stack(paths: list[Path]) -> NDArray[Any]:
    return np.stack([tifffile.imread(path) for path in paths])


@pytest.mark.parametrize("method", ["mean", "median"])
def test_average_equals_numpy(darks: list[Path], tmp_path: Path, method: str) -> None:
    master = tmp_path / "master.tif"
    done = run(*darks, "-o", master, "--method", method)
    assert done.exit_code == 0, done.output
    found = tifffile.imread(master)
    expected = getattr(np, method)(stack(darks), axis=0).astype(np.float32)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)
    assert f"{method} of 5 frames in 5 files" in done.output
    assert f"max {found.max():.6g}" in done.output
    assert "exposure unknown" not in done.output
    assert sidecar_path(master).read_bytes() == sidecar_path(darks[0]).read_bytes()


def test_median_in_bands_equals_the_whole(darks: list[Path]) -> None:
    steps: list[tuple[int, int]] = []
    five_rows = 5 * 16 * 2 * 5  # bytes in five frames
    found = averaging.average(darks, "median", lambda *step: steps.append(step), band_bytes=five_rows)
    assert np.array_equal(found.image, np.median(stack(darks), axis=0).astype(np.float32))
    assert steps[-1] == (15, 15)


def test_all_pages_of_a_folder_count(tmp_path: Path) -> None:
    pages = np.arange(3 * 12 * 16, dtype=np.float32).reshape(3, *SHAPE)
    folder = tmp_path / "some"
    folder.mkdir()
    tifffile.imwrite(folder / "dark.tif", pages, compression="zlib", photometric="minisblack")
    for _ in range(2):  # the second time its own master is in the folder
        done = run(folder, "-o", folder / "master.tif")
        assert "mean of 3 frames in 1 file" in done.output
    assert np.array_equal(tifffile.imread(folder / "master.tif"), pages.mean(axis=0))
    assert "exposure unknown" in done.output


def test_hot_pixels_become_a_mask(darks: list[Path], tmp_path: Path) -> None:
    master, mask = tmp_path / "master.tif", tmp_path / "mask.tif"
    done = run(*darks, "-o", master, "--hot-pixels", "20", mask)
    assert done.exit_code == 0, done.output
    marked = tifffile.imread(mask)
    assert marked.dtype == np.uint8
    assert np.argwhere(marked).tolist() == [[3, 4]]
    assert marked.max() == 1
    assert "1 hot pixel of 192" in done.output


def test_threshold_is_median_plus_sigma_times_scaled_mad() -> None:
    image = np.array([[0.0, 1.0, 2.0, 3.0, 4.0, 2 + 3 * 1.4826, 7.0, np.nan]])  # median 3, MAD 2 of the finite ones
    above = 3 + 1.4826 * 2
    assert averaging.hot_pixels(Path("a"), image, 1.0).tolist() == [
        [int(value > above or np.isnan(value)) for value in image[0]]
    ]
    assert averaging.hot_pixels(Path("a"), image, 2.0).tolist() == [[0] * 7 + [1]]


def test_equal_pixels_have_no_hot_ones(tmp_path: Path) -> None:
    path = frame(tmp_path / "a.tif", np.full(SHAPE, 7, np.uint16))
    done = run(path, "-o", tmp_path / "master.tif", "--hot-pixels", "5", tmp_path / "mask.tif")
    assert done.exit_code == 1
    assert "equal" in done.output
    assert not (tmp_path / "master.tif").exists()


def test_master_is_recognised_and_not_turned(darks: list[Path], tmp_path: Path) -> None:
    master = tmp_path / "master.tif"
    run(*darks, "-o", master)
    found = inspect_file(master)
    assert found["state"] == "complete"
    facts = found["provenance"]["average"]
    assert (facts["method"], facts["frames"]) == ("mean", 5)
    assert (facts["first"], facts["last"]) == (darks[0].name, darks[-1].name)
    assert found["provenance"]["recipe"]["rotation"] == 0
    assert len(json.dumps(facts)) < 300
    with pytest.raises(ConvertedDifferentlyError, match="average of 5 frames"):
        convert_file(master, Recipe(output=NewFile(folder=str(tmp_path / "out"))))
    assert not provenance(master).matches(Recipe())


def provenance(path: Path) -> Any:
    structure: Structure = read_structure(path)
    return read_provenance(structure)


@pytest.mark.parametrize(
    "other", [np.ones((16, 12), np.uint16), np.ones(SHAPE, np.uint32)], ids=["shape", "pixel_type"]
)
def test_unlike_frames_are_refused_by_name(darks: list[Path], tmp_path: Path, other: NDArray[Any]) -> None:
    odd = frame(tmp_path / "odd.tif", other)
    done = run(*darks, odd, "-o", tmp_path / "master.tif")
    assert done.exit_code == 1
    assert str(odd) in done.output
    assert str(darks[0]) in done.output
    assert not (tmp_path / "master.tif").exists()


def test_converted_frame_is_refused(darks: list[Path], tmp_path: Path) -> None:
    converted = tmp_path / "out.tif"
    convert_file(darks[0], Recipe(), output=converted)
    done = run(*darks, converted, "-o", tmp_path / "master.tif")
    assert done.exit_code == 1
    assert str(converted) in done.output


def test_other_exposure_leaves_no_sidecar(darks: list[Path], tmp_path: Path) -> None:
    master = tmp_path / "master.tif"
    run(*darks, "-o", master)
    longer = frame(tmp_path / "longer.tif", read_first_image(darks[0]).copy(), exposure=0.1, exposures=2)
    done = run(*darks, longer, "-o", master)
    assert "exposure unknown" in done.output
    assert not sidecar_path(master).exists()


def test_foreign_file_is_not_replaced(darks: list[Path], tmp_path: Path) -> None:
    before = darks[0].read_bytes()
    done = run(*darks[1:], "-o", darks[0])
    assert done.exit_code == 1
    assert str(darks[0]) in done.output
    assert darks[0].read_bytes() == before


def test_pixel_that_is_nan_in_one_frame_stays_nan(tmp_path: Path) -> None:
    images = [np.ones(SHAPE, np.float32), np.full(SHAPE, 3, np.float32)]
    images[1][0, 0] = np.nan
    paths = [frame(tmp_path / f"{n}.tif", image) for n, image in enumerate(images)]
    for method in ("mean", "median"):
        done = run(*paths, "-o", tmp_path / "master.tif", "--method", method)
        found = tifffile.imread(tmp_path / "master.tif")
        assert np.isnan(found[0, 0])
        assert np.all(found.reshape(-1)[1:] == 2)
        assert "1 pixel not a number" in done.output


def test_all_frames_of_a_stack_are_averaged(tmp_path: Path) -> None:
    stacked = DATA / "made" / "06_int16_sum.h5"
    with h5py.File(stacked) as file:
        frames = file["entry/data/data"][()].astype(np.float64)
    finished = run(stacked, "-o", tmp_path / "mean.tif")
    assert finished.exit_code == 0, finished.output
    assert "mean of 10 frames in 1 file" in finished.output
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "mean.tif"), frames.mean(axis=0).astype(np.float32))


@pytest.mark.parametrize("name", ["09_chunks_gzip.h5", "11_edf/last_cut.edf", "12_rest/crash_hdf5_2.0.0.h5"])
def test_no_average_of_a_part_of_a_stack(tmp_path: Path, name: str) -> None:
    finished = run(DATA / "made" / name, "-o", tmp_path / "mean.tif")
    assert finished.exit_code == 1
    assert Path(name).name in finished.output
    assert not (tmp_path / "mean.tif").exists()


def test_a_named_file_is_never_left_out(tmp_path: Path) -> None:
    shutil.copytree(DATA / "made" / "01_eiger_missing", tmp_path / "raw")
    other = frame(tmp_path / "other.tif", np.ones((32, 48), np.uint32))
    finished = run(tmp_path / "raw" / "run_data_000001.h5", other, "-o", tmp_path / "mean.tif")
    assert finished.exit_code == 1
    assert "run_data_000001.h5: its frames are converted from another file beside it" in finished.output
    assert not (tmp_path / "mean.tif").exists()
