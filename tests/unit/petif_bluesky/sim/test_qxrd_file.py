"""The simulator's TIFF against files that libtiff wrote with QXRD's calls."""

from datetime import datetime
from pathlib import Path

import fabio
import numpy as np
import pytest
import tifffile

from petif_bluesky.sim.qxrd_file import Stage, free_name, write_frame, write_stages

DATA = Path(__file__).parents[3] / "data"
SHARED = Path(__file__).parents[5] / "shared" / "data" / "qxrd"
ACQUIRED = datetime(2024, 5, 17, 12, 34, 56)
NAME = "Y:/p02/raw/sample-00001.tif"


@pytest.fixture
def real_pixels():
    return tifffile.imread(DATA / "qxrd_f32_64.tif")


def rewrite(real, path):
    """Write the pixels, name and time of a real file with the simulator."""
    with tifffile.TiffFile(real) as tiff:
        tags = tiff.pages[0].tags
        acquired = datetime.strptime(tags["DateTime"].value, "%Y:%m:%d %H:%M:%S")
        write_frame(path, tiff.asarray(), document_name=tags["DocumentName"].value, acquired=acquired)


@pytest.mark.parametrize("name", ["qxrd_f32_64.tif", "qxrd_r16_64.tif", "qxrd_r32_64.tif"])
def test_every_byte_matches_the_real_file(name, tmp_path):
    rewrite(DATA / name, tmp_path / name)
    assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()


@pytest.mark.skipif(not SHARED.is_dir(), reason="the full-size frame is not in the repository")
def test_every_byte_of_a_full_size_frame_matches(tmp_path):
    rewrite(SHARED / "qxrd_f32_2048.tif", tmp_path / "frame.tif")
    assert (tmp_path / "frame.tif").read_bytes() == (SHARED / "qxrd_f32_2048.tif").read_bytes()


def test_file_grows_as_with_libtiff(real_pixels, tmp_path):
    path = tmp_path / "frame.tif"
    seen = {
        stage: path.read_bytes() for stage in write_stages(path, real_pixels, document_name=NAME, acquired=ACQUIRED)
    }
    finished = (DATA / "qxrd_f32_64.tif").read_bytes()
    assert list(seen) == list(Stage)
    assert seen[Stage.HEADER] == (DATA / "unfinished_header_only.tif").read_bytes()
    assert seen[Stage.HALF_PIXELS] == seen[Stage.PIXELS][: 8 + real_pixels.nbytes // 2]
    assert seen[Stage.PIXELS] == (DATA / "unfinished_no_ifd_zero_offset.tif").read_bytes()
    assert seen[Stage.OFFSET] == (DATA / "unfinished_no_ifd.tif").read_bytes()
    assert seen[Stage.DOCUMENT_NAME] == seen[Stage.OFFSET] + bytes(138) + NAME.encode() + b"\0"
    assert seen[Stage.DATE_TIME] == seen[Stage.DOCUMENT_NAME] + b"2024:05:17 12:34:56\0"
    assert len(seen[Stage.DATE_TIME]) == len(finished)
    assert seen[Stage.IFD] == finished


@pytest.mark.parametrize("last", list(Stage))
def test_tifffile_reads_a_frame_only_with_its_ifd(last, real_pixels, tmp_path):
    path = tmp_path / "frame.tif"
    stages = write_stages(path, real_pixels, document_name=NAME, acquired=ACQUIRED)
    while next(stages) is not last:
        pass
    stages.close()
    with tifffile.TiffFile(path) as tiff:
        found = [page for page in tiff.pages if page.shape == real_pixels.shape]
    assert len(found) == (last is Stage.IFD)


NAMES = {name: name for name in ("", "a", "abc", "abcd", "odd.tif", "even.tif", "/data/raw/a long one.tif")}
NAMES["/data/\xc5_\u03a9.tif"] = "/data/\xc5_?.tif"  # the tag holds Latin-1


@pytest.mark.parametrize(("name", "written"), NAMES.items(), ids=ascii)
def test_names_of_any_length_can_be_read(name, written, real_pixels, tmp_path):
    path = tmp_path / "frame.tif"
    write_frame(path, real_pixels, document_name=name, acquired=ACQUIRED)
    assert written.encode("latin-1") + b"\0" in path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        if written.isascii():
            assert tiff.pages[0].tags["DocumentName"].value == name
        assert tiff.pages[0].tags["DateTime"].value == "2024:05:17 12:34:56"
        np.testing.assert_array_equal(tiff.asarray(), real_pixels)
    np.testing.assert_array_equal(fabio.open(path).data, real_pixels)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 32), (7, 300)], ids=str)
@pytest.mark.parametrize("pixel_type", ["float32", "uint16", "uint32"])
def test_any_shape_is_read_back(shape, pixel_type, tmp_path):
    image = np.arange(shape[0] * shape[1]).reshape(shape).astype(pixel_type)
    path = tmp_path / "frame.tif"
    write_frame(path, image, document_name=str(path), acquired=ACQUIRED)
    read = tifffile.imread(path)
    assert read.dtype == pixel_type
    np.testing.assert_array_equal(read, image)
    np.testing.assert_array_equal(fabio.open(path).data, image)


@pytest.mark.parametrize("view", [np.asfortranarray, lambda a: a.astype(">f4"), lambda a: np.repeat(a, 2, 1)[:, ::2]])
def test_memory_layout_does_not_matter(view, real_pixels, tmp_path):
    path = tmp_path / "frame.tif"
    write_frame(path, view(real_pixels), document_name=NAME, acquired=ACQUIRED)
    assert path.read_bytes() == (DATA / "qxrd_f32_64.tif").read_bytes()


@pytest.mark.parametrize(
    ("shape", "pixel_type", "error", "words"),
    [((4, 4), name, TypeError, name) for name in ("float64", "int32", "uint8", "float16")]
    + [(shape, "float32", ValueError, "shape") for shape in ((4,), (2, 4, 4), (0, 4))],
    ids=str,
)
def test_unsupported_images_are_refused(shape, pixel_type, error, words, tmp_path):
    path = tmp_path / "frame.tif"
    with pytest.raises(error, match=words):
        write_frame(path, np.zeros(shape, pixel_type), document_name="a.tif", acquired=ACQUIRED)
    assert not path.exists()


def test_a_frame_is_never_overwritten(real_pixels, tmp_path):
    path = tmp_path / "frame.tif"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        write_frame(path, real_pixels, document_name=NAME, acquired=ACQUIRED)
    assert path.read_bytes() == b"precious"


def test_free_name_counts_up(tmp_path):
    path = tmp_path / "a.b-00007.tif"
    assert free_name(path) == path
    path.touch()
    assert free_name(path).name == "a.b-00007-00001.tif"
    (tmp_path / "a.b-00007-00001.tif").touch()
    (tmp_path / "a.b-00007-00003.tif").touch()
    assert free_name(path).name == "a.b-00007-00002.tif"
