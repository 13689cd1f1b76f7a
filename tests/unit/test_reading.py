"""Every TIFF that tifffile reads with one 2-D sample per pixel: converted exactly, or refused by name."""

from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tango_server.conversion import convert_file
from tango_server.conversion.errors import ConversionError, IncompleteFileError, SourceError, UnsupportedImageError
from tango_server.conversion.reading import open_source, read_first_image
from tango_server.conversion.transform import transform
from tango_server.recipe import Flip, PixelType, Recipe, Rotation
from tests.unit.reference import COUNTED, convert, oriented

PIXEL_TYPES = ("u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8", "i8", "u8")
LAYOUTS: dict[str, dict[str, Any]] = {
    "one strip": {},
    "many strips": {"rowsperstrip": 7},
    "tiles": {"tile": (16, 32)},
}
COMPRESSIONS = ("none", "lzw", "deflate", "packbits", "zstd")
SHAPE = (37, 53)


def image_of(pixel_type: str) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng(7)
    if pixel_type[0] == "f":
        image = generator.normal(100, 300, SHAPE).astype(pixel_type)
        image[3, 5], image[4, 6], image[5, 7] = np.nan, np.inf, -np.inf
        return image
    return generator.integers(0, 120, SHAPE).astype(pixel_type)


def kinds() -> Iterator[Any]:
    for pixel_type in PIXEL_TYPES:
        for layout in LAYOUTS:
            for compression in COMPRESSIONS:
                for predictor in (1, 2, 3):
                    fits = {1: True, 2: pixel_type[0] != "f", 3: pixel_type[0] == "f"}[predictor]
                    if fits and (predictor == 1 or compression in {"lzw", "deflate", "zstd"}):
                        name = f"{pixel_type}-{layout}-{compression}-predictor {predictor}"
                        yield pytest.param(pixel_type, layout, compression, predictor, id=name)


def write(path: Path, image: np.ndarray[Any, Any], layout: str, compression: str, predictor: int, **more: Any) -> None:
    tifffile.imwrite(
        path,
        image,
        photometric="minisblack",
        compression=None if compression == "none" else compression,
        predictor=predictor if predictor > 1 else None,
        metadata=None,
        **LAYOUTS[layout],
        **more,
    )


@pytest.mark.parametrize(("pixel_type", "layout", "compression", "predictor"), list(kinds()))
def test_every_kind_of_file_is_read_exactly(
    tmp_path: Path, pixel_type: str, layout: str, compression: str, predictor: int
) -> None:
    image = image_of(pixel_type)
    for byteorder in "<>":
        for bigtiff in (False, True):
            path = tmp_path / f"{ord(byteorder)}{bigtiff}.tif"
            write(path, image, layout, compression, predictor, byteorder=byteorder, bigtiff=bigtiff)
            found = read_first_image(path)
            assert found.dtype.newbyteorder("=") == np.dtype(pixel_type)
            np.testing.assert_array_equal(found, image)


@cache
def reference_of(pixel_type: str, target: str) -> tuple[np.ndarray[Any, Any], dict[str, int]]:
    return convert(image_of(pixel_type), target)


@pytest.mark.parametrize(("pixel_type", "layout", "compression", "predictor"), list(kinds()))
def test_every_kind_by_every_recipe_in_every_memory_layout(
    tmp_path: Path, pixel_type: str, layout: str, compression: str, predictor: int
) -> None:
    path = tmp_path / "kind.tif"
    write(path, image_of(pixel_type), layout, compression, predictor, byteorder=">")
    contiguous = read_first_image(path)
    strided = np.repeat(np.repeat(contiguous, 2, axis=0), 3, axis=1)[::2, ::3]
    for rotation, flip, target in product(get_args(Rotation), get_args(Flip), get_args(PixelType)):
        expected, counts = reference_of(pixel_type, target)
        recipe = Recipe(rotation=rotation, flip=flip, pixel_type=target)
        for image in (contiguous, strided):
            result, found = transform(image, recipe)
            assert result.dtype == np.dtype(target)
            np.testing.assert_array_equal(result, oriented(expected, rotation, flip))
            assert {name: getattr(found, name) for name in COUNTED} == counts


@pytest.mark.parametrize("rotation", get_args(Rotation))
@pytest.mark.parametrize("flip", get_args(Flip))
@pytest.mark.parametrize("target", get_args(PixelType))
@pytest.mark.parametrize("source", ["u2", "i4", "f2", "f4", "f8"])
def test_every_recipe_on_files_of_every_layout(
    tmp_path: Path, rotation: int, flip: str, target: str, source: str
) -> None:
    image = image_of(source)
    expected, counts = convert(oriented(image, rotation, flip), target)
    for number, (layout, compression, byteorder) in enumerate(
        [("one strip", "none", "<"), ("one strip", "none", ">"), ("tiles", "lzw", ">"), ("many strips", "zstd", "<")]
    ):
        path = tmp_path / "raw" / f"{number}.tif"
        path.parent.mkdir(exist_ok=True)
        write(path, image, layout, compression, 1, byteorder=byteorder)
        report = convert_file(path, Recipe(rotation=rotation, flip=flip, pixel_type=target))
        assert report.output is not None
        output = tifffile.imread(report.output)
        assert output.dtype == np.dtype(target)
        np.testing.assert_array_equal(output, expected)
        assert {name: getattr(report.pixels, name) for name in COUNTED} == counts
        finite = image[np.isfinite(image)]
        assert (report.pixels.minimum, report.pixels.maximum) == (finite.min(), finite.max())


@pytest.mark.parametrize("tag", range(1, 9))
def test_the_orientation_tag_is_honoured_as_pil_does(tmp_path: Path, tag: int) -> None:
    from PIL import Image, ImageOps

    image = np.arange(12 * 9, dtype=np.uint8).reshape(12, 9)
    path = tmp_path / "raw" / "turned.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, image, metadata=None, extratags=[(274, 3, 1, tag, True)])
    stored = Image.fromarray(image)  # PIL's own reading of a TIFF with a tag of 5 to 8 scrambles the pixels
    stored.getexif()[274] = tag
    upright = np.asarray(ImageOps.exif_transpose(stored))
    report = convert_file(path, Recipe(rotation=90, flip="0"))
    np.testing.assert_array_equal(tifffile.imread(report.output), oriented(upright, 90, "0"))


def test_every_page_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "raw" / "pages.tif"
    path.parent.mkdir()
    pages = [np.full((5 + number, 9), number - 1, np.float32) for number in range(4)]
    with tifffile.TiffWriter(path) as writer:
        for page in pages:
            writer.write(page, photometric="minisblack", metadata=None)
    report = convert_file(path, Recipe.preset("xdi-unsigned", rotation=90))
    assert (report.pages, report.pixels.negative) == (4, 5 * 9)
    with tifffile.TiffFile(report.output) as output:
        assert len(output.pages) == 4
        for page, image in zip(output.pages, pages, strict=True):
            np.testing.assert_array_equal(page.asarray(), np.rot90(np.maximum(image, 0)).astype(np.uint32))
    np.testing.assert_array_equal(tifffile.imread(path, key=3), pages[3])


def test_one_bad_page_refuses_the_file(tmp_path: Path) -> None:
    path = tmp_path / "raw" / "pages.tif"
    path.parent.mkdir()
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.zeros((4, 4), np.uint8), photometric="minisblack", metadata=None)
        writer.write(np.zeros((4, 4, 3), np.uint8), photometric="rgb", metadata=None)
    with pytest.raises(UnsupportedImageError, match="an RGB image"):
        convert_file(path, Recipe.preset("xdi"))
    assert not (tmp_path / "processed").exists()


def test_a_structure_belongs_to_the_pixels_even_if_the_file_is_replaced(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "frame.tif"
    path.write_bytes((data / "qxrd_f32_64.tif").read_bytes())
    expected = tifffile.imread(path)
    with open_source(path) as source:
        other = tmp_path / "other.tif"
        tifffile.imwrite(other, np.zeros((8, 8), np.uint8))
        other.replace(path)
        np.testing.assert_array_equal(next(source.images()), expected)


@pytest.mark.parametrize("compression", ["none", "lzw"])
def test_a_file_that_promises_terabytes_is_refused_at_once(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "huge.tif"
    write(path, np.zeros((64, 64), np.uint16), "one strip", compression, 1)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        tags = tiff.pages[0].tags
        places = [tags[code].valueoffset for code in (256, 257)]
    for place in places:
        content[place : place + 4] = (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        read_first_image(path)
    assert str(path) in str(caught.value)


def test_a_strip_that_was_never_filled_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    write(path, image_of("u4"), "tiles", "deflate", 1)
    with tifffile.TiffFile(path) as tiff:
        counts = tiff.pages[0].tags["TileByteCounts"]
        assert counts.dtype == 3
    content = bytearray(path.read_bytes())
    content[counts.valueoffset : counts.valueoffset + 2] = b"\0\0"  # a SHORT
    path.write_bytes(content)
    with pytest.raises(IncompleteFileError, match="never filled"):
        read_first_image(path)


@pytest.mark.parametrize("compression", ["none", "lzw", "deflate", "zstd"])
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(damage=[(78, 0)])
@given(damage=st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), min_size=1, max_size=8))
def test_damage_gives_an_image_or_a_typed_error(
    tmp_path: Path, compression: str, damage: list[tuple[int, int]]
) -> None:
    path = tmp_path / "raw" / "damaged.tif"
    path.parent.mkdir(exist_ok=True)
    write(path, image_of("u2"), "many strips", compression, 1)
    content = bytearray(path.read_bytes())
    for place, value in damage:
        content[place % len(content)] = value
    path.write_bytes(content)
    output = tmp_path / "processed" / "damaged.tif"
    output.unlink(missing_ok=True)
    try:
        convert_file(path, Recipe.preset("xdi", rotation=90))
        message = ""
    except ConversionError as error:
        message = str(error)
    if message:
        assert str(path) in message
        assert not output.exists()
    else:
        assert tifffile.imread(output).dtype == np.int32
    assert path.read_bytes() == content
    assert not list(tmp_path.rglob("*.petif-tmp"))


@pytest.mark.parametrize("layout", ["many strips", "tiles"])
@pytest.mark.parametrize("tag", [256, 257])
@pytest.mark.parametrize("size", [1000, 2**23])
def test_a_file_with_fewer_strips_or_tiles_than_its_size_takes_is_refused(
    tmp_path: Path, layout: str, tag: int, size: int
) -> None:
    path = tmp_path / "short.tif"
    write(path, image_of("u2"), layout, "deflate", 1)
    with tifffile.TiffFile(path) as tiff:
        entry = tiff.pages[0].tags[tag]
        assert entry.dtype == 4
    content = bytearray(path.read_bytes())
    content[entry.valueoffset : entry.valueoffset + 4] = size.to_bytes(4, "little")
    path.write_bytes(content)
    if layout == "many strips" and tag == 256:
        with pytest.raises(SourceError):  # as many strips as before, but too short ones
            read_first_image(path)
        return
    with pytest.raises(IncompleteFileError, match="strips or tiles"):
        read_first_image(path)
