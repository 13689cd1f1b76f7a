"""What is written can be read: by fabio, tifffile and PIL, and by programs that refuse QXRD's own files."""

import shutil
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import fabio
import numpy as np
import pytest
import tifffile
from PIL import Image

from petif_bluesky.sim.qxrd_file import write_frame
from tango_server.conversion import convert_file
from tango_server.conversion.tiff import tifffile_writer, writer
from tango_server.conversion.tiff.writer import tiff_header
from tango_server.recipe import Recipe

pyvips = pytest.importorskip("pyvips", exc_type=ImportError)
MAGICK = shutil.which("identify")


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    path = tmp_path / "raw" / "frame.tif"
    path.parent.mkdir()
    image = np.random.default_rng(3).normal(500, 400, (70, 90)).astype(np.float32)
    write_frame(path, image, document_name="frame.tif", acquired=datetime(2024, 5, 17))
    return path


def expected(path: Path, pixel_type: str) -> np.ndarray[Any, Any]:
    limits = np.iinfo(pixel_type)
    return np.clip(np.trunc(np.rot90(tifffile.imread(path))), limits.min, limits.max).astype(pixel_type)


@pytest.mark.parametrize("pixel_type", ["uint8", "uint16", "int16", "uint32", "int32"])
def test_every_reader_finds_the_same_pixels(frame: Path, pixel_type: str) -> None:
    output = convert_file(frame, Recipe(rotation=90, pixel_type=pixel_type)).output
    assert output is not None
    image = expected(frame, pixel_type)
    with fabio.open(output) as read:
        np.testing.assert_array_equal(read.data, image)
    np.testing.assert_array_equal(tifffile.imread(output), image)
    np.testing.assert_array_equal(pyvips.Image.new_from_file(output).numpy().squeeze(), image)
    if pixel_type in {"uint8", "uint16", "int32"}:
        with Image.open(output) as read:
            np.testing.assert_array_equal(np.asarray(read), image)
    if pixel_type in {"uint8", "uint16", "int16", "int32"}:
        np.testing.assert_array_equal(cv2.imread(output, cv2.IMREAD_UNCHANGED), image)


@pytest.mark.skipif(MAGICK is None, reason="ImageMagick is not installed")
def test_imagemagick_reads_what_it_refused_before(frame: Path) -> None:
    output = convert_file(frame, Recipe(rotation=90, pixel_type="uint16")).output
    command = [str(MAGICK), "-format", "%w %h %z"]
    before = subprocess.run([*command, str(frame)], capture_output=True, text=True, check=False)
    after = subprocess.run([*command, str(output)], capture_output=True, text=True, check=False)
    assert before.returncode != 0
    assert (after.returncode, after.stdout) == (0, "70 90 16")


@pytest.mark.parametrize("compression", ["deflate", "lzw", "zstd"])
def test_compression_loses_nothing(frame: Path, compression: str) -> None:
    for pixel_type in ("int32", "uint16", "float32"):
        plain = convert_file(frame, Recipe(pixel_type=pixel_type))
        pixels = tifffile.imread(plain.output)
        small = convert_file(frame, Recipe(pixel_type=pixel_type, compression=compression))
        np.testing.assert_array_equal(tifffile.imread(small.output), pixels, err_msg=pixel_type, strict=True)
        assert small.pixels == plain.pixels, pixel_type
        with tifffile.TiffFile(small.output) as tiff:
            assert tiff.pages[0].compression.name in {"ADOBE_DEFLATE", "LZW", "ZSTD"}, pixel_type
            assert "petif" in tiff.pages[0].description, pixel_type
            assert tiff.pages[0].tags["DateTime"].value == "2024:05:17 00:00:00", pixel_type
            assert tiff.pages[0].tags["Software"].value.startswith("petif-bluesky "), pixel_type
        again = convert_file(frame, Recipe(pixel_type=pixel_type, compression=compression))
        assert again.outcome == "converted", pixel_type


def test_a_frame_beyond_4_gib_becomes_a_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame: Path) -> None:
    for module in (writer, tifffile_writer):
        monkeypatch.setattr(module, "CLASSIC_LIMIT", 1000)  # so that a small frame counts as too large
    output = convert_file(frame, Recipe.preset("xdi", rotation=90)).output
    with tifffile.TiffFile(output) as tiff:
        assert tiff.is_bigtiff
        np.testing.assert_array_equal(tiff.asarray(), expected(frame, "int32"))


@pytest.mark.parametrize("length", [0, 1, 2, 3, 500])
def test_the_strip_is_aligned_however_long_the_texts_are(length: int) -> None:
    head = tiff_header((2, 3), np.dtype("int32"), description="d" * length, software="s", taken="2024:05:17 00:00:00")
    assert len(head) % 4 == 0
