"""Completeness by structure, against the genuine stages of a QXRD file and files of other writers."""

import io
import os
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tango_server.conversion.errors import IncompleteFileError, NotATiffError, SourceMissingError
from tango_server.conversion.tiff.parser import MAX_TEXT, parse_structure, read_structure
from tests.conftest import QXRD_FILES, UNFINISHED_FILES


@pytest.mark.parametrize("name", QXRD_FILES)
def test_a_finished_qxrd_file_ends_with_its_directory(data: Path, name: str) -> None:
    structure = read_structure(data / name)
    assert (structure.state, structure.ifd_last, structure.size) == ("complete", True, (data / name).stat().st_size)
    (page,) = structure.pages
    assert page.shape == (64, 64)
    with tifffile.TiffFile(data / name) as reference:
        tags = reference.pages[0].tags
        assert page.texts["document_name"] == tags["DocumentName"].value
        assert page.texts["datetime"] == tags["DateTime"].value
        assert page.offsets == tags["StripOffsets"].value
        assert page.counts == tags["StripByteCounts"].value


@pytest.mark.parametrize("name", [*UNFINISHED_FILES, "truncated_tail.tif", "empty.tif"])
def test_an_unfinished_file_is_incomplete_and_says_what_lacks(data: Path, name: str) -> None:
    structure = read_structure(data / name)
    assert structure.state == "incomplete"
    with pytest.raises(IncompleteFileError, match=name) as caught:
        structure.require_complete(data / name)
    assert structure.problem in str(caught.value)


def test_no_prefix_of_a_qxrd_file_is_complete(data: Path, tmp_path: Path) -> None:
    cut = Path(shutil.copy(data / "qxrd_f32_64.tif", tmp_path / "cut.tif"))
    size = cut.stat().st_size
    for length in [*reversed(range(size - 400, size)), *reversed(range(300))]:
        os.truncate(cut, length)
        assert read_structure(cut).state == "incomplete", f"the first {length} of {size} bytes"


def test_another_file_is_no_tiff_and_a_missing_one_is_named(data: Path, tmp_path: Path) -> None:
    structure = read_structure(data / "not_a_tiff.tif")
    assert structure.state == "not_tiff"
    with pytest.raises(NotATiffError, match="starts with") as caught:
        structure.require_complete(data / "not_a_tiff.tif")
    assert "not_a_tiff.tif: not a TIFF" in str(caught.value)
    with pytest.raises(SourceMissingError, match=r"nothing\.tif: no such file"):
        read_structure(tmp_path / "nothing.tif")


@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 5}, {"tile": (16, 16)}], ids=["strip", "strips", "tiles"])
def test_a_directory_that_comes_first_proves_nothing(tmp_path: Path, options: dict[str, object]) -> None:
    path = tmp_path / "other.tif"
    for byteorder, bigtiff in product("<>", (False, True)):
        image = np.arange(30 * 40, dtype=f"{byteorder}u2").reshape(30, 40)
        tifffile.imwrite(path, image, byteorder=byteorder, bigtiff=bigtiff, **options)
        found = read_structure(path)
        assert (found.byte_order, found.big, found.state) == (byteorder, bigtiff, "complete")
        assert (found.ifd_last, found.pages[0].shape) == (False, (30, 40)), (byteorder, bigtiff)


def test_directories_in_a_loop_end(tmp_path: Path, data: Path) -> None:
    whole = bytearray((data / "qxrd_f32_64.tif").read_bytes())
    start = int.from_bytes(whole[4:8], "little")
    entries = int.from_bytes(whole[start : start + 2], "little")
    next_at = start + 2 + 12 * entries
    whole[next_at : next_at + 4] = start.to_bytes(4, "little")
    path = tmp_path / "loop.tif"
    path.write_bytes(whole)
    assert read_structure(path).state == "damaged"


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=12),
    tail=st.booleans(),
)
def test_damage_is_a_finding(tmp_path: Path, data: Path, changes: list[tuple[int, int]], tail: bool) -> None:
    whole = bytearray((data / "qxrd_f32_64.tif").read_bytes())
    for place, value in changes:
        whole[-1 - place if tail else place] = value
    path = tmp_path / "damaged.tif"
    path.write_bytes(whole)
    structure = read_structure(path)
    assert structure.state in {"complete", "incomplete", "damaged", "not_tiff"}
    for page in structure.pages:
        assert all(offset + count <= len(whole) for offset, count in zip(page.offsets, page.counts, strict=True))


def test_a_strip_without_a_place_is_damage_without_a_length_the_rest(tmp_path: Path, data: Path) -> None:
    original = read_structure(data / "qxrd_f32_64.tif")
    for missing in (273, 279):
        whole = bytearray((data / "qxrd_f32_64.tif").read_bytes())
        with tifffile.TiffFile(data / "qxrd_f32_64.tif") as tiff:
            place = tiff.pages[0].tags[missing].offset
        whole[place : place + 2] = (65_000).to_bytes(2, "little")  # a tag that nobody knows
        path = tmp_path / "without.tif"
        path.write_bytes(whole)
        structure = read_structure(path)
        if missing == 273:
            assert structure.state == "damaged"
            assert "0 strips or tiles, but 1 lengths" in structure.problem
        else:
            (page,), (whole_page,) = structure.pages, original.pages
            assert structure.state == "complete"
            assert (page.offsets, page.counts) == (whole_page.offsets, whole_page.counts)


@pytest.mark.parametrize("written", [b"", b"II*\0\x08\0\0\0"], ids=["nothing", "the header"])
def test_a_hole_in_place_of_a_directory_is_incomplete(tmp_path: Path, data: Path, written: bytes) -> None:
    path = tmp_path / "hole.tif"
    path.write_bytes(written.ljust(4096, b"\0") + (data / "qxrd_f32_64.tif").read_bytes()[4096:])
    structure = read_structure(path)
    assert structure.state == "incomplete"
    assert "not written yet" in structure.problem


def test_long_texts_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "wordy.tif"
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8), description="d" * 70_000, metadata=None)
    assert read_structure(path).pages[0].texts["description"] == "d" * MAX_TEXT


class Dribbling(io.FileIO):
    """A file that gives three bytes at a time, as network file systems may."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size or 0, 3))


def test_a_file_that_comes_in_small_pieces_is_read_whole(data: Path) -> None:
    with Dribbling(data / "qxrd_f32_64.tif") as file:
        assert parse_structure(file) == read_structure(data / "qxrd_f32_64.tif")
