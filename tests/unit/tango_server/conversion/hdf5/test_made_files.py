"""The nasty situations of `tests/data/made`, and real files, each with its right answer."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from tango_server.conversion.errors import (
    IncompleteFileError,
    OutsideRootsError,
    SourceUnreadableError,
    UnsupportedImageError,
)
from tango_server.conversion.files.roots import Roots
from tests.unit.tango_server.conversion.hdf5.reading import MADE, REAL, check, frames, read

REST = MADE / "12_rest"
ESCAPES = MADE / "08_escapes" / "inside"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real files are beside the project only")


def test_missing_data_file_keeps_its_frame_numbers() -> None:
    path = MADE / "01_eiger_missing" / "run_master.h5"
    whole = check(path)
    assert (whole.state, whole.frames) == ("incomplete", 11)
    for index in (0, 1, 2, 3, 8, 9, 10):
        assert check(path, index).state == "complete"
        expected = frames(11, pixel_type="uint32")[index]
        found = read(path, index)
        assert found.own_mask is not None
        kept = ~found.own_mask.of(found.image)
        kept[5, 5] = False
        np.testing.assert_array_equal(found.image[kept], expected[kept])
    for index in (4, 5, 6, 7):
        state = check(path, index)
        assert state.state == "incomplete"
        assert "run_data_000002.h5" in state.problem
        with pytest.raises(IncompleteFileError, match=r"run_data_000002\.h5"):
            read(path, index)
    assert check(path, 11).state == "incomplete"


@pytest.mark.parametrize("lengths", [(4, 4), (4, 6), (6, 4)])
def test_data_files_that_all_begin_at_image_1_follow_each_other(tmp_path: Path, lengths: tuple[int, int]) -> None:
    stack, first = frames(sum(lengths)), 0
    with h5py.File(tmp_path / "run_master.h5", "w") as master:
        for number, length in enumerate(lengths, 1):
            name = f"data_{number:06d}"
            master[f"entry/data/{name}"] = h5py.ExternalLink(f"{name}.h5", "/data")
            with h5py.File(tmp_path / f"{name}.h5", "w") as file:
                file["data"] = stack[first : first + length]
                file["data"].attrs["image_nr_low"] = 1
            first += length
    assert check(tmp_path / "run_master.h5").frames == len(stack)
    for index, frame in enumerate(stack):
        np.testing.assert_array_equal(read(tmp_path / "run_master.h5", index).image, frame)


@pytest.mark.parametrize("number", [1, 3])
def test_damaged_data_file_costs_its_own_frames(tmp_path: Path, number: int) -> None:
    path = tmp_path / "run_master.h5"
    shutil.copytree(MADE / "01_eiger_missing", tmp_path, dirs_exist_ok=True)
    (tmp_path / f"run_data_00000{number}.h5").write_bytes(b"damaged" * 100)
    lost = {0} if number == 1 else {8, 10}
    for index in (0, 8, 10):
        assert check(path, index).state == ("damaged" if index in lost else "complete")
    whole = check(path)
    assert (whole.state, whole.frames) == ("damaged" if number == 1 else "incomplete", 11)


def test_numbers_that_no_data_file_has_are_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "run_master.h5", "w") as master:
        for number, low in ((1, 1), (3, 5)):
            data = master.create_dataset(f"entry/data/data_{number:06d}", data=frames(2))
            data.attrs["image_nr_low"] = low
    assert np.array_equal(read(tmp_path / "run_master.h5", 4).image, frames(1)[0])
    assert "no frame 3" in check(tmp_path / "run_master.h5", 3).problem
    assert "only 6 frames" in check(tmp_path / "run_master.h5", 6).problem


def test_mask_and_limit_of_an_eiger() -> None:
    path = MADE / "01_eiger_missing" / "run_master.h5"
    found, other = read(path, 3), read(path, 8)
    assert found.masked == 34
    assert found.own_mask is not None
    assert found.own_mask == other.own_mask
    assert found.header.saturation == 28000
    overexposed = (found.image >= 28000) & ~found.own_mask.of(found.image)
    assert np.argwhere(overexposed).tolist() == [[5, 5]]
    assert (found.header.exposure, found.header.distance) == (0.1, 200.0)


def test_eiger_of_two_dimensions_is_one_frame() -> None:
    assert check(MADE / "04_eiger_2d.h5").frames == 1
    np.testing.assert_array_equal(read(MADE / "04_eiger_2d.h5").image, frames(1)[0])


def test_threshold_has_to_be_named() -> None:
    path = MADE / "04_eiger_4d_thresholds.h5"
    with pytest.raises(UnsupportedImageError, match="2 thresholds: name one"):
        check(path)
    for name in (f"{path}::/entry/data/data_000001[:,1]", f"{path}::/[:,1]"):
        assert check(name).frames == 2
        with h5py.File(path, locking=False) as file:
            np.testing.assert_array_equal(read(name, 1).image, file["/entry/data/data_000001"][1, 1])
    with pytest.raises(UnsupportedImageError, match="only 2 thresholds"):
        check(f"{path}::/entry/data/data_000001[:,2]")


def test_grid_goes_row_by_row(tmp_path: Path) -> None:
    grid = frames(6).reshape(2, 3, 32, 48)
    with h5py.File(tmp_path / "grid.h5", "w") as file:
        group = file.create_group("entry/data")
        group.attrs.update(axes=["stagey", "stagex", ".", "."], signal="data")
        group["data"] = grid
        file["unnamed/data"] = grid
    assert check(tmp_path / "grid.h5").frames == 6
    for index in range(6):
        np.testing.assert_array_equal(read(tmp_path / "grid.h5", index).image, frames(6)[index])
    with pytest.raises(UnsupportedImageError, match="four dimensions"):
        check(f"{tmp_path / 'grid.h5'}::/unnamed/data")


def test_bit_depth_smaller_than_the_pixel_type(tmp_path: Path) -> None:
    images = frames(2, pixel_type="uint32")
    images[:, :, 20], images[:, :, 30] = 2**32 - 1, 2**32 - 2
    images[0, 3, 3] = 65535
    with h5py.File(tmp_path / "depth.h5", "w") as file:
        file["entry/data/data"] = images
        file["entry/instrument/detector/bit_depth_image"] = np.uint32(16)
        file["entry/instrument/detector/description"] = "Dectris Eiger"
    found = read(tmp_path / "depth.h5", 0)
    assert found.masked == 64
    assert found.header.saturation == 65535


def test_negatives_are_values_unless_dectris_is_named(tmp_path: Path) -> None:
    assert read(MADE / "06_int16_sum.h5", 0).own_mask is None
    total = np.stack([read(MADE / "06_int16_sum.h5", index).image for index in range(10)]).sum(axis=0, dtype=np.int64)
    assert (total[5, 5], total[1, 1], total[2, 2]) == (200_000, 179_999, 327_670)
    copy = tmp_path / "named.h5"
    copy.write_bytes((MADE / "06_int16_sum.h5").read_bytes())
    with h5py.File(copy, "r+") as file:
        file["entry/instrument/detector/description"] = np.array([b"Dectris Pilatus"])
    masks = [found.own_mask.of(found.image) for index in range(10) if (found := read(copy, index)).own_mask]
    assert len(masks) == 10
    assert np.argwhere(np.any(masks, axis=0)).tolist() == [[0, 0], [1, 1]]


def test_virtual_frames_mapped_to_nothing_and_to_a_missing_file() -> None:
    path = MADE / "07_vds" / "gaps_vds.h5"
    for index in (0, 1):
        assert check(path, index).state == "complete"
        np.testing.assert_array_equal(read(path, index).image, frames(2)[index])
    for index in (2, 3):
        state = check(path, index)
        assert (state.state, "nothing is mapped" in state.problem) == ("damaged", True)
    for index in (4, 5):
        state = check(path, index)
        assert (state.state, "b.h5" in state.problem) == ("incomplete", True)
    assert check(path).frames == 6


@pytest.mark.parametrize("name", ["relative", "soft", "virtual", "raw_storage", "absolute"])
def test_ways_out_of_the_roots_are_refused(name: str) -> None:
    roots = Roots.of([ESCAPES])
    for index in (None, 0):
        with pytest.raises(OutsideRootsError):
            check(f"{ESCAPES}/links.h5::/{name}", index, roots)
        with pytest.raises(OutsideRootsError):
            read(f"{ESCAPES}/links.h5::/{name}", index, roots)


@pytest.mark.parametrize("name", ["loop_a", "loop_b", "self"])
def test_circles_of_links_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedImageError, match="circle"):
        check(f"{ESCAPES}/links.h5::/{name}", 0, Roots.of([ESCAPES]))


def test_discovery_ends_in_hard_linked_circles() -> None:
    roots = Roots.of([ESCAPES])
    assert check(f"{ESCAPES}/links.h5::/entry/data/up/data/up", None, roots).frames == 0
    with pytest.raises(UnsupportedImageError, match="/raw_storage, /virtual"):
        check(ESCAPES / "links.h5", None, roots)


@pytest.mark.parametrize(("name", "good"), [("09_chunks_bslz4.h5", (0, 3)), ("09_chunks_gzip.h5", (0,))])
def test_chunks_that_were_never_written_or_do_not_decode(name: str, good: tuple[int, ...]) -> None:
    path = MADE / name
    for index in good:
        assert check(path, index).proof == "every chunk of the frame is written"
        np.testing.assert_array_equal(read(path, index).image, frames(4)[index])
    with pytest.raises(SourceUnreadableError, match="does not decode"):
        read(path, 1)
    assert check(path, 2).state == "incomplete"
    with pytest.raises(IncompleteFileError, match="never written"):
        read(path, 2)
    np.testing.assert_array_equal(read(path, 0).image, frames(4)[0])


def test_early_allocated_data_prove_nothing() -> None:
    for index in range(3):
        state = check(MADE / "09_early_allocated.h5", index)
        assert (state.state, state.proof) == ("complete", "")
    np.testing.assert_array_equal(read(MADE / "09_early_allocated.h5", 0).image, frames(3)[0])


def test_files_of_crashed_writers() -> None:
    before = {path: path.read_bytes() for path in REST.glob("crashed_*.h5")}
    state = check(REST / "crashed_swmr.h5")
    assert (state.state, state.frames, state.proof) == ("complete", 2, "")
    assert check(REST / "crashed_swmr.h5", 1).proof
    assert read(REST / "crashed_swmr.h5", 1).image.shape == (8, 8)
    state = check(REST / "crashed_writer.h5")
    assert state.state == "incomplete"
    assert "left open by its writer (h5clear on a copy)" in state.problem
    assert before == {path: path.read_bytes() for path in REST.glob("crashed_*.h5")}


def test_huge_shape_is_refused_before_memory_is_taken() -> None:
    with pytest.raises(UnsupportedImageError, match="1000000 x 1000000"):
        check(REST / "huge_shape.h5")
    with pytest.raises(UnsupportedImageError, match="1000000 x 1000000"):
        read(REST / "huge_shape.h5", 0)


def test_candidates_are_listed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["entry/data/blank"], file["entry/data/frames"], file["entry/data2/data"] = (frames(1)[0], *[frames(2)] * 2)
    with pytest.raises(UnsupportedImageError, match="/entry/data/blank, /entry/data/frames, /entry/data2/data"):
        check(tmp_path / "two.h5")
    assert check(f"{tmp_path}/two.h5::/entry/data2").frames == 2


def test_dark_beside_data() -> None:
    path = REST / "dark_beside_data.h5"
    assert check(path).frames == 2
    np.testing.assert_array_equal(read(path, 1).image, frames(2)[1])
    assert check(f"{path}::/exchange/dark").frames == 3


def test_pixel_types(tmp_path: Path) -> None:
    image = frames(1)[0]
    path = tmp_path / "types.h5"
    with h5py.File(path, "w") as file:
        file["big_endian"], file["uint64"], file["float16"] = (
            image.astype(">u2"),
            image.astype("u8") << 40,
            image[:9].astype("f2"),
        )
        file["no_frames"] = np.empty((0, 32, 48), "u2")
        file["null"] = h5py.Empty("u2")
        file["strings"], file["boolean"], file["complex"] = np.array([[b"1", b"2"]]), image > 0, image.astype("c8")
        file.create_dataset("enum", data=image, dtype=h5py.enum_dtype({"A": 1}, "u2"))
        file["record"] = np.zeros((4, 4), [("a", "u2")])
    np.testing.assert_array_equal(read(f"{path}::/big_endian").image, image)
    np.testing.assert_array_equal(read(f"{path}::/uint64").image, image.astype("u8") << 40)
    np.testing.assert_array_equal(read(f"{path}::/float16").image, image[:9].astype("f2"))
    state = check(f"{path}::/no_frames")
    assert (state.state, state.frames, state.problem) == ("complete", 0, "it has no image")
    for name in ("null", "strings", "boolean", "complex", "enum", "record"):
        with pytest.raises(UnsupportedImageError):
            check(f"{path}::/{name}", 0)


def test_file_that_is_not_hdf5(tmp_path: Path) -> None:
    assert check(REST / "not_hdf5.h5").state == "damaged"
    with pytest.raises(SourceUnreadableError):
        read(REST / "not_hdf5.h5", 0)
    (tmp_path / "empty.h5").touch()
    assert check(tmp_path / "empty.h5").state == "incomplete"
    (tmp_path / "text.h5").write_text("no HDF5 " * 100)
    assert "not an HDF5 file" in check(tmp_path / "text.h5").problem


def test_file_that_is_cut_off_is_waited_for(tmp_path: Path) -> None:
    cut = tmp_path / "cut.h5"
    cut.write_bytes((MADE / "04_eiger_2d.h5").read_bytes()[:-300])
    assert check(cut, 0).state == "incomplete"


@real
def test_real_eiger_data_file_without_its_master() -> None:
    path = REAL / "vac_007_data_000001.h5"
    assert check(path).frames == 2
    found = read(path, 1)
    assert (found.image.shape, found.masked, found.header.saturation) == ((3262, 3108), 664_805, None)
    with h5py.File(path, locking=False) as file:
        np.testing.assert_array_equal(found.image, file["entry/data/data"][1])


@real
def test_real_master_whose_data_are_absent() -> None:
    path = REAL / "xrc_209_master.h5"
    assert check(path).frames == 240
    for index in (0, 239):
        state = check(path, index)
        assert (state.state, "xrc_209_000001.h5" in state.problem) == ("incomplete", True)


@real
@pytest.mark.parametrize(
    ("name", "data_set"), [("ID34_not_complete.h5", "entry1/data/data"), ("AgBehenate_228.hdf5", "entry/data/data")]
)
def test_real_contiguous_frames(name: str, data_set: str) -> None:
    state = check(REAL / name)
    assert (state.state, state.proof, state.frames) == ("complete", "", 1)
    with h5py.File(REAL / name, locking=False) as file:
        np.testing.assert_array_equal(read(REAL / name).image, file[data_set][()])


@real
def test_real_header_of_area_detector() -> None:
    header = read(REAL / "AgBehenate_228.hdf5").header
    assert (header.distance, header.pixel_size_x, header.beam_center_x) == (513.8, 0.172, None)
    assert header.wavelength == pytest.approx(0.73362836)
