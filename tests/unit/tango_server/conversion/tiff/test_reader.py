"""Every TIFF that tifffile reads with one 2-D sample per pixel: converted exactly, or refused by name."""

import os
from dataclasses import dataclass, replace
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
from tango_server.conversion.image.transform import transform
from tango_server.conversion.tiff.reader import TiffFile, open_tiff, read_first_image
from tango_server.recipe import Flip, PixelType, Recipe, Rotation, Rounding
from tests.unit.reference import convert, oriented, touched

PIXEL_TYPES = ("u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8", "i8", "u8")
LAYOUTS: dict[str, dict[str, Any]] = {
    "one strip": {},
    "many strips": {"rowsperstrip": 7},
    "tiles": {"tile": (16, 32)},
}
PREDICTED = ("lzw", "deflate", "zstd")
SCHEMES = [(name, False) for name in ("none", "packbits", *PREDICTED)] + [(name, True) for name in PREDICTED]
ENDS = list(product("<>", (False, True)))  # byte order, BigTIFF
ROTATIONS, FLIPS, TARGETS, ROUNDINGS = map(get_args, (Rotation, Flip, PixelType, Rounding))
SHAPE = (37, 53)


def image_of(pixel_type: str) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng(7)
    if pixel_type[0] == "f":
        image = generator.normal(100, 300, SHAPE).astype(pixel_type)
        image[3, 5], image[4, 6], image[5, 7] = np.nan, np.inf, -np.inf
        return image
    return generator.integers(0, 120, SHAPE).astype(pixel_type)


@dataclass(frozen=True)
class Kind:
    """How an image lies in a file: its type, layout, compression and predictor, byte order, and BigTIFF or not."""

    pixel_type: str = "u2"
    layout: str = "one strip"
    scheme: tuple[str, bool] = ("none", False)
    ends: tuple[str, bool] = ("<", False)

    def write(self, path: Path) -> np.ndarray[Any, Any]:
        """Write an image of this kind, and return it."""
        image = image_of(self.pixel_type)
        compression, predicted = self.scheme
        tifffile.imwrite(
            path,
            image,
            photometric="minisblack",
            compression=None if compression == "none" else compression,
            predictor=(3 if image.dtype.kind == "f" else 2) if predicted else None,
            metadata=None,
            byteorder=self.ends[0],
            bigtiff=self.ends[1],
            **LAYOUTS[self.layout],
        )
        return image


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "raw" / "frame.tif"
    path.parent.mkdir()
    return path


@pytest.mark.parametrize("pixel_type", PIXEL_TYPES)
def test_every_kind_of_file_is_read_exactly(path: Path, pixel_type: str) -> None:
    layouts = list(LAYOUTS)[PIXEL_TYPES.index(pixel_type) % 3 :] + list(LAYOUTS) * 3  # each with each scheme
    kinds = [Kind(pixel_type, layout, scheme) for scheme, layout in zip(SCHEMES, layouts, strict=False)]
    for kind in [replace(kind, ends=ends) for kind, ends in product([*kinds, Kind(pixel_type)], ENDS)]:
        image = kind.write(path)
        found = read_first_image(path)
        np.testing.assert_array_equal(found, image, err_msg=str(kind))
        assert found.dtype.newbyteorder("=") == np.dtype(pixel_type), kind


def convert_and_compare(path: Path, kind: Kind, recipe: Recipe) -> None:
    image = kind.write(path)
    expected, counts = convert(
        oriented(image, recipe.rotation, recipe.flip), str(recipe.pixel_type), recipe.rounding, recipe.invalid_value
    )
    case = f"{kind} by {recipe!r}"
    report = convert_file(path, recipe)
    np.testing.assert_array_equal(tifffile.imread(report.output), expected, err_msg=case, strict=True)
    finite = image[np.isfinite(image)]
    assert touched(report.pixels) == counts, case
    assert (report.pixels.minimum, report.pixels.maximum) == (finite.min(), finite.max()), case
    strided = np.repeat(np.repeat(read_first_image(path), 2, axis=0), 3, axis=1)[::2, ::3]
    result, found = transform(strided, recipe)
    np.testing.assert_array_equal(result, expected, err_msg=f"strided {case}", strict=True)
    assert found == report.pixels, case


KINDS = st.builds(Kind, *map(st.sampled_from, (PIXEL_TYPES, list(LAYOUTS), SCHEMES, ENDS)))
RECIPES = st.builds(
    Recipe,
    rotation=st.sampled_from(ROTATIONS),
    flip=st.sampled_from(FLIPS),
    pixel_type=st.sampled_from(TARGETS),
    rounding=st.sampled_from(ROUNDINGS),
    invalid_value=st.sampled_from([0, 7, -7]),
)


@pytest.mark.parametrize("number", range(44))
def test_every_kind_by_every_recipe(path: Path, number: int) -> None:
    """Each pixel type with each layout, byte order, rotation and flip; each layout with each compression and target."""
    kind = Kind(
        PIXEL_TYPES[number % 11], list(LAYOUTS)[number % 3], SCHEMES[number % 8], ENDS[(number // 11 + number) % 4]
    )
    rotation, flip, target = ROTATIONS[number // 11], FLIPS[number % 4], TARGETS[(number + number // 8) % 8]
    convert_and_compare(path, kind, Recipe(rotation=rotation, flip=flip, pixel_type=target))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=KINDS, recipe=RECIPES)
def test_any_kind_by_any_recipe(path: Path, kind: Kind, recipe: Recipe) -> None:
    convert_and_compare(path, kind, recipe)


@pytest.mark.parametrize("tag", range(1, 9))
def test_the_orientation_tag_is_honoured_as_pil_does(path: Path, tag: int) -> None:
    from PIL import Image, ImageOps

    image = np.arange(12 * 9, dtype=np.uint8).reshape(12, 9)
    tifffile.imwrite(path, image, metadata=None, extratags=[(274, 3, 1, tag, True)])
    stored = Image.fromarray(image)  # PIL's own reading of a TIFF with a tag of 5 to 8 scrambles the pixels
    stored.getexif()[274] = tag
    upright = np.asarray(ImageOps.exif_transpose(stored))
    report = convert_file(path, Recipe(rotation=90, flip="0"))
    np.testing.assert_array_equal(tifffile.imread(report.output), oriented(upright, 90, "0"))


def test_every_page_is_converted(path: Path) -> None:
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


def test_one_bad_page_refuses_the_file(path: Path) -> None:
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.zeros((4, 4), np.uint8), photometric="minisblack", metadata=None)
        writer.write(np.zeros((4, 4, 3), np.uint8), photometric="rgb", metadata=None)
    with pytest.raises(UnsupportedImageError, match="an RGB image"):
        convert_file(path, Recipe.preset("xdi"))
    assert not (path.parent.parent / "processed").exists()


def test_pixels_belong_to_the_structure_after_a_replacement(path: Path, data: Path) -> None:
    path.write_bytes((data / "qxrd_f32_64.tif").read_bytes())
    expected = tifffile.imread(path)
    with open_tiff(path) as source:
        other = path.with_name("other.tif")
        tifffile.imwrite(other, np.zeros((8, 8), np.uint8))
        other.replace(path)
        np.testing.assert_array_equal(next(source.images()), expected)


def with_long(content: bytes, path: Path, tag: int, value: int) -> bytes:
    """Return the content of the file with another value of a LONG that stands in its directory."""
    with tifffile.TiffFile(path) as tiff:
        entry = tiff.pages[0].tags[tag]
        assert entry.dtype == 4
    return content[: entry.valueoffset] + value.to_bytes(4, "little") + content[entry.valueoffset + 4 :]


@pytest.mark.parametrize("compression", ["none", "lzw"])
def test_a_file_that_promises_terabytes_is_refused_at_once(path: Path, compression: str) -> None:
    Kind(scheme=(compression, False)).write(path)
    content = with_long(path.read_bytes(), path, 256, 2**31 - 1)
    path.write_bytes(with_long(content, path, 257, 2**31 - 1))
    with pytest.raises(SourceError) as caught:
        read_first_image(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("tag", [256, 257])
def test_an_image_without_rows_or_columns_is_refused(path: Path, tag: int) -> None:
    Kind().write(path)
    path.write_bytes(with_long(path.read_bytes(), path, tag, 0))
    with pytest.raises(UnsupportedImageError, match="a zero-sized image"):
        read_first_image(path)


def test_a_file_that_shrinks_while_it_is_read_is_refused(path: Path) -> None:
    Kind().write(path)
    with open_tiff(path) as source:
        os.truncate(path, 1000)
        with pytest.raises(IncompleteFileError, match="shrank") as caught:
            next(source.images())
    assert str(path) in str(caught.value)


def test_only_what_is_no_plain_strip_is_left_to_tifffile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[tuple[Any, ...]] = []
    monkeypatch.setattr(TiffFile, "_decoded", lambda *arguments: decoded.append(arguments))
    for scheme, layout in product([("none", False), ("lzw", False), ("lzw", True)], LAYOUTS):
        kind = Kind("u2", layout, scheme, (">", False))
        image = kind.write(path)
        found = read_first_image(path)
        if scheme == ("none", False) and layout == "one strip":
            np.testing.assert_array_equal(found, image)
        else:
            assert decoded.pop()[1] == 0, kind
    assert not decoded


def test_a_strip_that_was_never_filled_is_refused(path: Path) -> None:
    Kind("u4", "tiles", ("deflate", False)).write(path)
    with tifffile.TiffFile(path) as tiff:
        counts = tiff.pages[0].tags["TileByteCounts"]
        assert counts.dtype == 3
    content = bytearray(path.read_bytes())
    content[counts.valueoffset : counts.valueoffset + 2] = b"\0\0"  # a SHORT
    path.write_bytes(content)
    with pytest.raises(IncompleteFileError, match="never filled"):
        read_first_image(path)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(compression="none", damage=[(78, 0)])
@example(compression="lzw", damage=[(78, 0)])
@example(compression="deflate", damage=[(78, 0)])
@example(compression="zstd", damage=[(78, 0)])
@given(
    compression=st.sampled_from(["none", *PREDICTED]),
    damage=st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damage_gives_an_image_or_a_typed_error(path: Path, compression: str, damage: list[tuple[int, int]]) -> None:
    Kind("u2", "many strips", (compression, False)).write(path)
    content = bytearray(path.read_bytes())
    for place, value in damage:
        content[place % len(content)] = value
    path.write_bytes(content)
    output = path.parent.parent / "processed" / path.name
    output.unlink(missing_ok=True)
    message = ""
    try:
        convert_file(path, Recipe.preset("xdi", rotation=90))
    except ConversionError as error:
        message = str(error)
    if message:
        assert str(path) in message
        assert not output.exists()
    else:
        assert tifffile.imread(output).dtype == np.int32
    assert path.read_bytes() == content
    assert not list(path.parent.parent.rglob("*.petif-tmp"))


@pytest.mark.parametrize("layout", ["many strips", "tiles"])
@pytest.mark.parametrize("tag", [256, 257])
@pytest.mark.parametrize("size", [1000, 2**23])
def test_fewer_strips_or_tiles_than_the_size_takes_are_refused(path: Path, layout: str, tag: int, size: int) -> None:
    Kind("u2", layout, ("deflate", False)).write(path)
    path.write_bytes(with_long(path.read_bytes(), path, tag, size))
    if layout == "many strips" and tag == 256:
        with pytest.raises(SourceError):  # as many strips as before, but too short ones
            read_first_image(path)
        return
    with pytest.raises(IncompleteFileError, match="strips or tiles"):
        read_first_image(path)
