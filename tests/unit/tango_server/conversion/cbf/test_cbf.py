"""CBF frames: fabio's pixels exactly, or a typed error; never pixels of a file that is cut, changed or strange."""

import logging
import shutil
import time
from pathlib import Path
from typing import Any

import fabio
import numpy as np
import pytest
from fabio.cbfimage import CbfImage
from fabio.ext import byte_offset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tango_server.conversion.cbf.reader import check_cbf, open_cbf
from tango_server.conversion.errors import (
    IncompleteFileError,
    OutsideRootsError,
    SourceError,
    SourceMissingError,
    SourceUnreadableError,
    UnsupportedImageError,
)
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.frame_header import FrameHeader, Rotation
from tango_server.conversion.image.buffers import Workspace
from tests.conftest import DATA

CBF = DATA / "made" / "10_cbf"
REAL = Path(__file__).parents[6] / "shared" / "data" / "cbf" / "in16c_010001.cbf"
SECTION = b"--CIF-BINARY-FORMAT-SECTION--"
PIXELS = b"\x0c\x1a\x04\xd5"
TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "fabio")


def read(path: Path, roots: Roots = ANYWHERE) -> Array:
    with open_cbf(FrameLocation.of(path), Workspace(), roots) as source:
        (image,) = source.read()
        (info,) = source.images
        assert (image.shape, image.dtype) == (info.shape, info.pixel_type)
        return image.copy()


def by_fabio(path: Path) -> Array | None:
    """Return fabio's pixels, None where it cannot read the text."""
    try:
        return fabio.open(str(path)).data
    except (OSError, RuntimeError, ValueError, LookupError, UnicodeError, AssertionError, TypeError):
        return None


def written(path: Path, image: Array) -> Path:
    CbfImage(data=image).write(str(path))
    return path


def changed(path: Path, *changes: tuple[bytes, bytes], to: Path) -> Path:
    content = path.read_bytes()
    for old, new in changes:
        assert old in content
        content = content.replace(old, new, 1)
    to.write_bytes(content)
    return to


def streamed(path: Path, data: bytes, shape: tuple[int, int], kind: str = "signed 32-bit integer") -> Path:
    """Write a CBF with the given data, without an MD5."""
    header = (
        f"###CBF: VERSION 1.5\r\ndata_x\r\n_array_data.data\r\n;\r\n{SECTION.decode()}\r\n"
        'Content-Type: application/octet-stream;\r\n     conversions="x-CBF_BYTE_OFFSET"\r\n'
        f'X-Binary-Size: {len(data)}\r\nX-Binary-Element-Type: "{kind}"\r\n'
        f"X-Binary-Size-Fastest-Dimension: {shape[1]}\r\nX-Binary-Size-Second-Dimension: {shape[0]}\r\n\r\n"
    )
    path.write_bytes(header.encode() + PIXELS + data + b"\r\n" + SECTION + b"--\r\n;\r\n")
    return path


@pytest.mark.parametrize("name", ["good", "no_md5_xds", "small_4x3"])
def test_complete_files_are_read_as_by_fabio(name: str) -> None:
    path = CBF / f"{name}.cbf"
    state = check_cbf(FrameLocation.of(path))
    assert (state.state, state.frames, state.size) == ("complete", None, path.stat().st_size)
    assert ("MD5" in state.proof) == (name != "no_md5_xds")
    np.testing.assert_array_equal(read(path), fabio.open(str(path)).data)


@pytest.mark.parametrize("name", ["good", "no_md5_xds"])
def test_header_mask_and_overexposed_pixels(name: str) -> None:
    with open_cbf(FrameLocation.of(CBF / f"{name}.cbf"), Workspace()) as source:
        (image,) = source.read()
        assert source.own_mask is not None
        masked = source.own_mask.of(image)
        assert (int(masked.sum()), source.own_mask.always) == (33, False)
        assert source.header.saturation is not None
        assert int((image[~masked] >= source.header.saturation).sum()) == 2
        assert source.header.rotations == (Rotation("omega", 0.0, 0.1),)


@pytest.mark.skipif(not REAL.exists(), reason="the real files are not here")
def test_real_pilatus_300k() -> None:
    with open_cbf(FrameLocation.of(REAL), Workspace()) as source:
        (image,) = source.read()
        np.testing.assert_array_equal(image, fabio.open(str(REAL)).data)
        assert source.header == FrameHeader(
            detector="PILATUS 300K, S/N 3-0118, Universite de Geneve",
            exposure=1.0,
            wavelength=1.542,
            distance=40.0,
            beam_center_x=244.0,
            beam_center_y=308.0,
            pixel_size_x=pytest.approx(0.172),
            pixel_size_y=pytest.approx(0.172),
            saturation=1302749.0,
            rotations=(Rotation("omega", 0.0, 0.1),),
            taken="2011:11:01 17:59:04",
        )


def test_wrong_md5_is_not_complete() -> None:
    location = FrameLocation.of(CBF / "wrong_md5.cbf")
    state = check_cbf(location)
    assert (state.state, state.proof) == ("incomplete", "")
    assert "MD5 differs" in state.problem
    with pytest.raises(IncompleteFileError, match="MD5 differs"), open_cbf(location, Workspace()):
        pass


def test_md5_is_compared_once_for_a_file_that_stays_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.cbf"
    path.write_bytes((CBF / "good.cbf").read_bytes())
    checked = FrameLocation(path, proven=check_cbf(FrameLocation(path)).identity)
    content = bytearray(path.read_bytes())
    content[content.index(PIXELS) + 10] ^= 1
    path.write_bytes(content)  # another modification time: it is compared again
    with pytest.raises(IncompleteFileError, match="MD5 differs"), open_cbf(checked, Workspace()):
        pass
    status = path.stat()
    unseen = FrameLocation(path, proven=(status.st_ino, status.st_size, status.st_mtime_ns))
    with open_cbf(unseen, Workspace()) as source:
        assert next(source.read()).shape == (32, 48)


def test_truncated_file_is_incomplete_until_its_last_byte(tmp_path: Path) -> None:
    assert check_cbf(FrameLocation.of(CBF / "truncated.cbf")).state == "incomplete"
    whole = (CBF / "good.cbf").read_bytes()
    end = whole.index(PIXELS) + 4 + 1694
    path = tmp_path / "grows.cbf"
    for length in [*range(0, end, 37), end - 1]:
        path.write_bytes(whole[:length])
        assert check_cbf(FrameLocation.of(path)).state == "incomplete", length
        with pytest.raises(IncompleteFileError):
            read(path)
    path.write_bytes(whole[:end])
    np.testing.assert_array_equal(read(path), fabio.open(str(CBF / "good.cbf")).data)


def test_unfinished_text_that_names_fit2d_is_waited_for(tmp_path: Path) -> None:
    content = (CBF / "good.cbf").read_bytes().replace(b"# Wavelength", b"# Image_path: /data/fit2d/\r\n# Wavelength")
    path = tmp_path / "grows.cbf"
    path.write_bytes(content[: content.index(SECTION)])
    assert check_cbf(FrameLocation.of(path)).state == "incomplete"


def test_file_that_starts_with_zeros_is_incomplete(tmp_path: Path) -> None:
    path = tmp_path / "hole.cbf"
    path.write_bytes(bytes(100_000))
    assert check_cbf(FrameLocation.of(path)).state == "incomplete"


STRANGERS = {
    "x-CBF_CANONICAL": ((b"x-CBF_BYTE_OFFSET", b"x-CBF_CANONICAL"),),
    "no compression": ((b'conversions="x-CBF_BYTE_OFFSET"', b"padding"),),
    "BASE64": ((b"Encoding: BINARY", b"Encoding: BASE64"),),
    "BIG_ENDIAN": ((b"LITTLE_ENDIAN", b"BIG_ENDIAN"),),
    "32-bit real IEEE": ((b"signed 32-bit integer", b"signed 32-bit real IEEE"),),
    "third dimension": ((b"X-Binary-Size-Padding: 0", b"X-Binary-Size-Third-Dimension: 3"),),
    "in a loop": ((b"_array_data.data", b"loop_\r\n_array_data.array_id\r\n_array_data.data\r\nA 1"),),
    "several binary sections": ((SECTION + b"--", SECTION + b"--\r\n;\r\n;\r\n" + SECTION + b"\r\n"),),
    "FIT2D": ((SECTION, b"# FIT2D START OF BINARY SECTION"), (SECTION, b"")),
}


@pytest.mark.parametrize("what", STRANGERS)
def test_other_kinds_are_refused_at_once_by_name(what: str, tmp_path: Path) -> None:
    path = changed(CBF / "good.cbf", *STRANGERS[what], to=tmp_path / "strange.cbf")
    with pytest.raises(UnsupportedImageError, match=what):
        check_cbf(FrameLocation.of(path))


def test_packed_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedImageError, match="x-CBF_PACKED"):
        check_cbf(FrameLocation.of(CBF / "packed.cbf"))


LIES = {
    "elements": ((b"Number-of-Elements: 1536", b"Number-of-Elements: 1537"),),
    "shape": ((b"Fastest-Dimension: 48", b"Fastest-Dimension: 47"),),
    "no pixels": ((b"Second-Dimension: 32", b"Second-Dimension: 0"),),
    "negative": ((b"Second-Dimension: 32", b"Second-Dimension: -32"),),
    "word": ((b"X-Binary-Size: 1694", b"X-Binary-Size: many"),),
    "missing": ((b"X-Binary-Size: 1694", b"X-Nothing: 1694"),),
    "more pixels than bytes": (
        (b"Number-of-Elements: 1536", b"Number-of-Elements: 1000000000000"),
        (b"Fastest-Dimension: 48", b"Fastest-Dimension: 1000000"),
        (b"Second-Dimension: 32", b"Second-Dimension: 1000000"),
    ),
    "more bytes than pixels": ((b"X-Binary-Size: 1694", b"X-Binary-Size: 999999999999"),),
}


@pytest.mark.parametrize("what", LIES)
def test_header_that_lies_is_damaged(what: str, tmp_path: Path) -> None:
    path = changed(CBF / "no_md5_xds.cbf", *LIES[what], to=tmp_path / "lies.cbf")
    assert check_cbf(FrameLocation.of(path)).state == "damaged"
    with pytest.raises(SourceUnreadableError):
        read(path)


def test_other_content_is_no_cbf(tmp_path: Path) -> None:
    path = tmp_path / "text.cbf"
    path.write_bytes(b"II*\0" + bytes(100))
    assert "not a CBF" in check_cbf(FrameLocation.of(path)).problem


def test_long_text_without_pixels_ends_in_time(tmp_path: Path) -> None:
    path = tmp_path / "long.cbf"
    for filling in (b"\n", b"loop_ ", b"_a ", SECTION + b"\n", b"conversions = "):
        path.write_bytes(b"###CBF" + filling * (3_000_000 // len(filling)))
        began = time.process_time()
        assert check_cbf(FrameLocation.of(path)).state == "damaged"
        assert time.process_time() - began < 1


@pytest.mark.parametrize("escape", [b"\x80", b"\x80\x01", b"\x80\x00\x80\x01", b"\x80\x00\x80\x00\x00\x00\x80\x01"])
@pytest.mark.parametrize("kind", ["signed 32-bit integer", "signed 64-bit integer"])
def test_data_that_stop_within_an_escape_are_refused(escape: bytes, kind: str, tmp_path: Path) -> None:
    path = streamed(tmp_path / "escape.cbf", b"\1\1\1" + escape, (1, 4), kind)
    with pytest.raises(SourceUnreadableError, match="decode"):
        read(path)


def test_data_of_another_number_of_pixels_are_refused(tmp_path: Path) -> None:
    for number in (5, 7, 12):
        path = streamed(tmp_path / "other.cbf", b"\1" * number, (2, 3))
        with pytest.raises(SourceUnreadableError):
            read(path)


def test_values_beyond_the_type_are_refused(tmp_path: Path) -> None:
    data = byte_offset.comp_cbf(np.array([[1, 70_000]])).tobytes()
    with pytest.raises(SourceUnreadableError, match="uint16"):
        read(streamed(tmp_path / "beyond.cbf", data, (1, 2), "unsigned 16-bit integer"))


def test_steps_beyond_int32_are_read(tmp_path: Path) -> None:
    image = np.array([[-(2**31), 2**31 - 1], [0, -1]])
    data = byte_offset.comp_cbf(image).tobytes()
    np.testing.assert_array_equal(read(streamed(tmp_path / "steps.cbf", data, (2, 2))), image)


def test_only_frame_has_no_other_index() -> None:
    with pytest.raises(SourceUnreadableError), open_cbf(FrameLocation.of(CBF / "good.cbf", 1), Workspace()):
        pass


def test_files_outside_of_the_roots_are_not_opened(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.cbf").symlink_to(CBF / "good.cbf")
    roots = Roots.of([inside])
    with pytest.raises(OutsideRootsError):
        check_cbf(FrameLocation.of(inside / "link.cbf"), roots)
    with pytest.raises(OutsideRootsError):
        read(inside / "link.cbf", roots)
    shutil.copy(CBF / "good.cbf", inside / "own.cbf")
    assert read(inside / "own.cbf", roots).shape == (32, 48)
    with pytest.raises(SourceMissingError):
        check_cbf(FrameLocation.of(inside / "none.cbf"), roots)


@given(
    kind=st.sampled_from(TYPES),
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    spread=st.sampled_from([3, 200, 2**15, 2**31]),
)
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_images_are_read_as_by_fabio(
    tmp_path: Path, kind: str, rows: int, columns: int, seed: int, spread: int
) -> None:
    limits = np.iinfo(kind)
    low, high = max(-spread, limits.min // 2), min(spread, limits.max // 2)
    image = np.random.default_rng(seed).integers(low if limits.min else 0, high, (rows, columns)).astype(kind)
    path = written(tmp_path / "random.cbf", image)
    np.testing.assert_array_equal(read(path), image)
    assert read(path).dtype == fabio.open(str(path)).data.dtype


@given(
    name=st.sampled_from(["good", "no_md5_xds", "small_4x3"]),
    changes=st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=4),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_bytes_give_an_error_or_fabios_pixels(
    tmp_path: Path, name: str, changes: list[tuple[int, int]]
) -> None:
    content = bytearray((CBF / f"{name}.cbf").read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    path = tmp_path / "changed.cbf"
    path.write_bytes(content)
    try:
        image = read(path)
    except SourceError:
        return
    theirs = by_fabio(path)
    if theirs is not None:
        np.testing.assert_array_equal(image, theirs)
