"""The frames of a Lambda are assembled from all its modules, and are complete when all have them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tango_server.conversion.errors import (
    IncompleteFileError,
    OutsideRootsError,
    SourceMissingError,
    UnsupportedImageError,
)
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.files.series_names import makes_jobs
from tango_server.conversion.frame_header import FrameHeader
from tango_server.conversion.frame_source import FrameSource
from tango_server.conversion.hdf5.open_files import close_all
from tango_server.conversion.image.buffers import Workspace
from tango_server.conversion.lambda_detector.frame import check_lambda, is_lambda_module, open_lambda
from tests.unit.tango_server.conversion.lambda_detector.made_files import (
    DETECTOR,
    SHAPE,
    Array,
    change,
    frames_of,
    write_detector,
    write_module,
)

DATA = Path(__file__).parents[6] / "shared" / "data"
REAL = DATA / "lambda" / "testasapo1_1009_00002_m1_part00000.nxs"
UNEVEN = DATA / "made" / "02_lambda_uneven"

WRITER = """
import sys
import h5py
import numpy as np

files = [h5py.File(path, "w", libver="latest") for path in sys.argv[1:]]
for number, file in enumerate(files):
    detector = file.create_group("entry/instrument/detector")
    detector["description"] = [b"Lambda"]
    detector["translation/distance"] = np.float32([0, 8 * number, 0])
    detector.create_dataset("data", (0, 8, 12), "int16", maxshape=(None, 8, 12), chunks=(1, 8, 12), compression="gzip")
    file.swmr_mode = True
print("open", flush=True)
for line in sys.stdin:
    number, value = map(int, line.split())
    data = files[number]["entry/instrument/detector/data"]
    data.resize(len(data) + 1, axis=0)
    data[len(data) - 1] = value
    data.flush()
    print("written", flush=True)
for file in files:
    file.close()
"""


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    close_all()


def at(file: Path, index: int | None = None) -> FrameLocation:
    return FrameLocation(file, "", index)


def frame(file: Path, index: int | None = None, **options: Any) -> tuple[FrameSource, Array]:
    with open_lambda(at(file, index), Workspace(), **options) as source:
        (image,) = source.read()
    return source, image


def masked(source: FrameSource) -> Array:
    assert source.own_mask is not None
    assert source.own_mask.pixels is not None
    return source.own_mask.pixels


def assembled(files: list[Path], shape: tuple[int, int], count: int) -> tuple[Array, Array]:
    """Return the first frames of all modules and their mask, put together with h5py and numpy."""
    frames, mask = np.zeros((count, *shape), np.int16), np.ones(shape, bool)
    left = -2  # of the second and the third module
    for path in files:
        with h5py.File(path, "r", locking=False) as file:
            detector = file[DETECTOR]
            x, y, _ = detector["translation/distance"][:].astype(int)
            _, rows, columns = detector["data"].shape
            there = np.s_[y : y + rows, x - left : x - left + columns]
            frames[:, *there] = detector["data"][:count]
            mask[there] = detector["pixel_mask"][0] != 0
    return frames, mask


@pytest.mark.skipif(not REAL.is_file(), reason="needs the real files of a Lambda")
def test_real_frames_equal_an_assembly_in_numpy() -> None:
    files = [Path(str(REAL).replace("_m1_", f"_m{number}_")) for number in (1, 2, 3)]
    expected, mask = assembled(files, (1833, 1556), 10)
    assert is_lambda_module(at(REAL))
    assert check_lambda(at(REAL)).frames == 10
    for index in range(10):
        source, image = frame(REAL, index)
        assert source.images[0].shape == image.shape == (1833, 1556)
        assert source.images[0].pixel_type == image.dtype == np.int16
        np.testing.assert_array_equal(image, expected[index])
        np.testing.assert_array_equal(masked(source), mask)
        assert not (image[~mask] < 0).any()
        assert source.note == ""
    assert masked(source)[516:660].all()
    assert masked(source)[:516, :2].all()
    assert source.own_mask is not None
    assert source.own_mask.always
    assert source.header == FrameHeader(
        detector="Lambda",
        exposure=0.1,
        wavelength=pytest.approx(1.0332016536),
        pixel_size_x=pytest.approx(0.055),
        pixel_size_y=pytest.approx(0.055),
        saturation=4095.0,
    )


@pytest.mark.skipif(not UNEVEN.is_dir(), reason="needs the made files of a Lambda")
def test_uneven_files_give_the_frames_that_all_have() -> None:
    names = {path.name for path in UNEVEN.iterdir()}
    (first,) = (UNEVEN / name for name in names if makes_jobs(name, names))
    expected, mask = assembled(sorted(UNEVEN.glob("*_m0?.nxs")), (109, 50), 4)
    assert check_lambda(at(first)).frames == 5
    for index in range(4):
        source, image = frame(first, index)
        np.testing.assert_array_equal(image, expected[index])
        np.testing.assert_array_equal(masked(source), mask)
    assert "_m02.nxs" in check_lambda(at(first, 4)).problem


def test_frame_waits_only_for_the_module_that_lacks_it(tmp_path: Path) -> None:
    first = write_detector(tmp_path, 3, 5, "scan_00002_m0{}.nxs")
    write_module(tmp_path / "scan_00002_m02.nxs", frames_of(2, 4), (-2, 10), np.zeros(SHAPE))
    change(tmp_path / "scan_00002_m03.nxs", "description", "Lambda")
    assert check_lambda(at(first)).frames == 5
    for index in range(4):
        assert check_lambda(at(first, index)).state == "complete"
        _, image = frame(first, index)
        assert image.shape == (28, 14)
        np.testing.assert_array_equal(image[10:18, :12], frames_of(2, 4)[index])
    state = check_lambda(at(first, 4))
    assert state.state == "incomplete"
    assert "scan_00002_m02.nxs" in state.problem
    with pytest.raises(IncompleteFileError, match=r"scan_00002_m02\.nxs"):
        frame(first, 4)


def test_missing_module_of_a_counted_detector_is_named(tmp_path: Path) -> None:
    first = write_detector(tmp_path, 2)
    assert check_lambda(at(first, 0)).state == "complete"
    for index in (None, 0):
        state = check_lambda(at(first, index), modules=3)
        assert state.state == "incomplete"
        assert "scan_m3.nxs" in state.problem
    with pytest.raises(IncompleteFileError, match=r"scan_m3\.nxs"):
        frame(first, 0, modules=3)
    write_detector(tmp_path, 3)
    assert "all 3 modules" in check_lambda(at(first, 0), modules=3).proof


def test_gap_in_the_numbers_is_a_missing_module(tmp_path: Path) -> None:
    first = write_detector(tmp_path, 3)
    (tmp_path / "scan_m2.nxs").unlink()
    state = check_lambda(at(first, 0))
    assert state.state == "incomplete"
    assert "scan_m2.nxs" in state.problem


def test_missing_first_module_is_named(tmp_path: Path) -> None:
    first = write_detector(tmp_path, 3)
    first.rename(tmp_path / "later")
    for index in (None, 0):
        state = check_lambda(at(tmp_path / "scan_m2.nxs", index))
        assert state.state == "incomplete"
        assert "scan_m1.nxs" in state.problem
    with pytest.raises(SourceMissingError, match=r"scan_m1\.nxs"):
        check_lambda(at(first, 0))


def test_late_module_changes_the_state_that_must_stand_still(tmp_path: Path) -> None:
    first = write_detector(tmp_path, 2)
    before = [check_lambda(at(first, index)) for index in (None, 0)]
    assert [state.proof for state in before] == ["", ""]
    write_module(tmp_path / "scan_m3.nxs", frames_of(3), (-2, 20))
    after = [check_lambda(at(first, index)) for index in (None, 0)]
    assert all(one.identity != other.identity for one, other in zip(before, after, strict=True))


def test_more_modules_than_the_settings_say_are_refused(tmp_path: Path) -> None:
    first = write_detector(tmp_path, 3)
    with pytest.raises(UnsupportedImageError, match=r"scan_m3\.nxs"):
        check_lambda(at(first, 0), modules=2)


def test_other_modules_have_no_frames_of_their_own(tmp_path: Path) -> None:
    write_detector(tmp_path, 2)
    assert check_lambda(at(tmp_path / "scan_m2.nxs")).frames == 0
    with pytest.raises(UnsupportedImageError, match=r"converted from scan_m1\.nxs"):
        check_lambda(at(tmp_path / "scan_m2.nxs", 0))


def test_each_part_has_its_own_frames(tmp_path: Path) -> None:
    for part in range(2):
        for number in (1, 2):
            frames = frames_of(number, 2) + 100 * part
            write_module(tmp_path / f"scan_m{number}_part0000{part}.nxs", frames, (0, 10 * number))
    _, image = frame(tmp_path / "scan_m1_part00001.nxs", 1)
    np.testing.assert_array_equal(image[10:], frames_of(2, 2)[1] + 100)


def test_module_of_the_first_part_is_missed_in_a_later_one(tmp_path: Path) -> None:
    write_detector(tmp_path, 3, name="scan_m{}_part00000.nxs")
    second = write_detector(tmp_path, 1, name="scan_m{}_part00001.nxs")
    state = check_lambda(at(second, 0))
    assert (state.state, state.problem) == ("incomplete", "scan_m2_part00001.nxs: missing module")
    write_detector(tmp_path, 3, name="scan_m{}_part00001.nxs")
    np.testing.assert_array_equal(frame(second, 1)[1], frame(tmp_path / "scan_m1_part00000.nxs", 1)[1])


def test_number_of_frames_decides_whether_an_index_is_needed(tmp_path: Path) -> None:
    one, three = (write_detector(tmp_path, 2, count, f"n{count}_m{{}}.nxs") for count in (1, 3))
    np.testing.assert_array_equal(frame(one)[1], frame(one, 0)[1])
    with pytest.raises(UnsupportedImageError, match="3 frames"):
        frame(three)


def test_first_frame_of_a_growing_file_does_not_prove_that_it_is_the_only_one(tmp_path: Path) -> None:
    path = write_module(tmp_path / "scan_m1.nxs", frames_of(1, 1), maxshape=(None, *SHAPE))
    whole = check_lambda(at(path), modules=1)
    assert (whole.state, whole.frames, whole.proof) == ("complete", 1, "")
    assert check_lambda(at(path, 0), modules=1).proof
    write_module(path, frames_of(1, 0), chunks=(1, *SHAPE), maxshape=(None, *SHAPE))
    assert check_lambda(at(path), modules=1).state == "incomplete"


def test_any_bit_masks_and_so_do_gaps(tmp_path: Path) -> None:
    source, image = frame(write_detector(tmp_path, 2), 1)
    expected = np.ones((18, 14), bool)
    expected[:8, 2:] = expected[10:, :12] = False
    expected[1, 2:4] = expected[12, :2] = True
    np.testing.assert_array_equal(masked(source), expected)
    assert not image[8:10].any()
    assert not image[:8, :2].any()


def test_equal_masks_have_equal_identities(tmp_path: Path) -> None:
    one, other = (frame(write_detector(tmp_path, name=f"{name}_m{{}}.nxs"), 0)[0].own_mask for name in "ab")
    assert one == other
    change(tmp_path / "b_m1.nxs", "pixel_mask", np.ones((1, *SHAPE), np.uint32))
    assert frame(tmp_path / "b_m1.nxs", 0)[0].own_mask != one


def test_rewritten_module_is_read_anew(tmp_path: Path) -> None:
    first = write_detector(tmp_path, 2)
    before = masked(frame(first, 0)[0]).sum()
    write_module(tmp_path / "scan_m2.nxs", frames_of(7), (-2, 10), np.ones(SHAPE))
    source, image = frame(first, 0)
    np.testing.assert_array_equal(image[10:, :12], frames_of(7)[0])
    assert masked(source).sum() == before + SHAPE[0] * SHAPE[1] - 2


def test_single_module_needs_neither_mask_nor_translation(tmp_path: Path) -> None:
    file = write_module(tmp_path / "scan_m1.nxs", frames_of(1), None)
    source, image = frame(file, 2)
    np.testing.assert_array_equal(image, frames_of(1)[2])
    assert not masked(source).any()


def test_modules_that_number_a_frame_differently_are_noted(tmp_path: Path) -> None:
    first = write_detector(tmp_path, 2)
    change(tmp_path / "scan_m2.nxs", "sequence_number", np.int32([1, 3, 4]))
    assert frame(first, 0)[0].note == ""
    assert "3 in scan_m2.nxs" in frame(first, 1)[0].note


def _has_few_gaps(modules: list[tuple[tuple[int, int], tuple[int, int]]]) -> bool:
    """Whether the modules are as close together as those of a detector; others are refused."""
    ends = [(x + shape[1], y + shape[0]) for (x, y), shape in modules]
    width, height = (max(end[axis] for end in ends) - min(corner[axis] for corner, _ in modules) for axis in (0, 1))
    return width * height <= 8 * sum(shape[0] * shape[1] for _, shape in modules)


@st.composite
def detectors(draw: st.DrawFn) -> tuple[str, list[tuple[tuple[int, int], tuple[int, int]]], tuple[int, ...], int]:
    """Pixel type, modules (corner, shape) in cells of a grid, chunk shape, number of frames."""
    kind = draw(st.sampled_from(["<i2", ">i2", "<u1", "<u4", "<i8", "<f4", ">f8"]))
    cells = draw(st.lists(st.tuples(st.integers(-2, 2), st.integers(-1, 1)), min_size=1, max_size=5, unique=True))
    modules = []
    for x, y in cells:
        shape = draw(st.tuples(st.integers(3, 6), st.integers(3, 7)))
        corner = 7 * x + draw(st.integers(0, 7 - shape[1])), 6 * y + draw(st.integers(0, 6 - shape[0]))
        modules.append((corner, shape))
    assume(_has_few_gaps(modules))
    chunk = draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)))
    return kind, modules, chunk, draw(st.integers(1, 4))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(detectors(), st.randoms(use_true_random=False))
def test_any_layout_equals_numpy(tmp_path_factory: pytest.TempPathFactory, detector: Any, random: Any) -> None:
    kind, modules, chunk, count = detector
    folder = tmp_path_factory.mktemp("layout")
    left, top = (min(corner[axis] for corner, _ in modules) for axis in (0, 1))
    right = max(corner[0] + shape[1] for corner, shape in modules) - left
    bottom = max(corner[1] + shape[0] for corner, shape in modules) - top
    expected, mask = np.zeros((count, bottom, right), kind), np.ones((bottom, right), bool)
    for number, (corner, shape) in enumerate(modules, 1):
        bits = np.array([random.choice([0, 0, 0, 1, 2**31, 6]) for _ in range(shape[0] * shape[1])]).reshape(shape)
        frames = frames_of(number, count, shape, kind)
        chunks = tuple(min(one, other) for one, other in zip(chunk, frames.shape, strict=True))
        write_module(folder / f"scan_m{number}.nxs", frames, corner, bits, chunks=chunks)
        rows = slice(corner[1] - top, corner[1] - top + shape[0])
        columns = slice(corner[0] - left, corner[0] - left + shape[1])
        expected[:, rows, columns] = frames
        mask[rows, columns] = bits != 0
    for index in random.sample(range(count), count):
        source, image = frame(folder / "scan_m1.nxs", index)
        assert source.images[0].pixel_type == image.dtype == np.dtype(kind).newbyteorder("=")
        np.testing.assert_array_equal(image, expected[index])
        np.testing.assert_array_equal(masked(source), mask)


def test_frames_appear_while_the_modules_are_written(tmp_path: Path) -> None:
    first, second = tmp_path / "scan_m1.nxs", tmp_path / "scan_m2.nxs"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, first, second], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None

        def append(module: int, value: int) -> None:
            print(module, value, file=writer.stdin, flush=True)
            assert writer.stdout is not None
            assert writer.stdout.readline() == "written\n"

        assert writer.stdout.readline() == "open\n"
        assert is_lambda_module(at(first))
        for index in range(3):
            assert "scan_m1.nxs" in check_lambda(at(first, index)).problem
            append(0, index)
            assert "scan_m2.nxs" in check_lambda(at(first, index)).problem
            append(1, 10 + index)
            assert check_lambda(at(first, index)).state == "complete"
            _, image = frame(first, index)
            assert (image[:8] == index).all()
            assert (image[8:] == 10 + index).all()
        still = check_lambda(at(first, 0))
        append(0, 4)
        assert check_lambda(at(first, 0)).identity == still.identity
        writer.stdin.close()
        assert writer.wait(30) == 0


def test_link_to_a_module_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    write_detector(tmp_path, 2)
    first = (tmp_path / "scan_m1.nxs").rename(tmp_path / "inside" / "scan_m1.nxs")
    (tmp_path / "inside" / "scan_m2.nxs").symlink_to(tmp_path / "scan_m2.nxs")
    roots = Roots.of([tmp_path / "inside"])
    with pytest.raises(OutsideRootsError, match=r"scan_m2\.nxs"):
        check_lambda(at(first, 0), roots)
    assert check_lambda(at(first, 0), Roots.of([tmp_path])).state == "complete"
