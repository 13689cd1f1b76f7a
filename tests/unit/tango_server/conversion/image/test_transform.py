"""Rotation, flip and pixel type against references: numpy's own functions, and exact Python integers for the casts."""

import math
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tango_server.conversion.image.orientation import AS_STORED, Orientation
from tango_server.conversion.image.pixels import InexactPixelsError, PixelConverter
from tango_server.conversion.image.transform import Turning, transform
from tango_server.messages import PixelCounts
from tango_server.recipe import Flip, PixelType, Recipe, Rotation, Rounding
from tests.unit.reference import convert, oriented, touched

ROTATIONS, FLIPS, TYPES, ROUNDINGS = map(get_args, (Rotation, Flip, PixelType, Rounding))
SOURCES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64", "int64", "uint64")


def difficult(source: str) -> np.ndarray[Any, Any]:
    """Every value at which a cast may go wrong, as a 2-D image of this type."""
    values: list[float] = [0, 1, 2, 3, 100, 127, 128, 254, 255, 256, 32767, 32768, 65535, 65536]
    values += [2**31 - 129, 2**31 - 128, 2**31 - 1, 2**31, 2**32 - 257, 2**32 - 1, 2**32, 2**53, 2**63 - 1025, 2**63]
    values += [-value for value in values]
    kind = np.dtype(source)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        kept = [int(value) for value in values if limits.min <= value <= limits.max] + [limits.min, limits.max]
    else:
        values += [0.25, 0.5, 0.75, 1.5, 2.5, -0.25, -0.5, -1.5, 127.5, 255.5, 65535.5, 4294967295.5, 2147483647.5]
        values += [1e39, -1e39, float(np.finfo(np.float32).max), float(np.finfo(np.float32).min), 1e300, -1e300]
        values += [-2147483648.5, -2147483649.0, 1e30, -1e30, math.inf, -math.inf, math.nan, -math.nan]
        with np.errstate(over="ignore"):
            return np.array((values + [0.0] * (-len(values) % 7)), dtype=kind).reshape(-1, 7)
    kept += [0] * (-len(kept) % 7)
    return np.array(kept, dtype=kind).reshape(-1, 7)


def layouts(image: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The same image in memory in many ways."""
    doubled = np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)
    return {
        "contiguous": image,
        "fortran": np.asfortranarray(image),
        "strided": doubled[::2, ::2],
        "reversed": np.ascontiguousarray(image[::-1, ::-1])[::-1, ::-1],
        "swapped": image.astype(image.dtype.newbyteorder("S")),
        "padded rows": np.pad(image, ((0, 0), (0, 3)))[:, :-3],
    }


@pytest.mark.parametrize("block", [2 * 2**20, 1], ids=["one block", "blocks of one row"])
@pytest.mark.parametrize("source", SOURCES)
def test_pixels_and_counts_equal_the_exact_reference(source: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tango_server.conversion.image.transform._BLOCK_BYTES", block)
    for target, rounding in product(TYPES, ROUNDINGS):
        image = difficult(source)
        if source in {"int64", "uint64"} and np.dtype(target).kind == "f":
            image = np.clip(image, -(2**24) if source == "int64" else 0, 2**24)
        finite = image[np.isfinite(image)]
        expected, counts = convert(image, target, rounding, invalid_value=7)
        recipe = Recipe(pixel_type=target, rounding=rounding, invalid_value=7)
        arrangements = layouts(image)
        if block == 1:  # each pixel alone: no other one decides how it is cast
            arrangements, expected = {"one column": image.reshape(-1, 1)}, expected.reshape(-1, 1)
        for layout, arranged in arrangements.items():
            case = f"to {target}, {rounding}, {layout}"
            before = arranged.copy()
            assert {part.dtype for part in Turning(arranged, recipe).blocks()} == {np.dtype(target)}, case
            result, found = transform(arranged, recipe)
            np.testing.assert_array_equal(result, expected, err_msg=case, strict=True)
            assert touched(found) == counts, case
            assert (found.minimum, found.maximum) == (float(finite.min()), float(finite.max())), case
            np.testing.assert_array_equal(arranged, before, err_msg=f"{case}: the source was changed")


@pytest.mark.parametrize("block", [2 * 2**20, 500], ids=["one block", "many blocks"])
@pytest.mark.parametrize("source", SOURCES)
def test_orientations_equal_numpys(source: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tango_server.conversion.image.transform._BLOCK_BYTES", block)
    for shape, rotation, flip in product([(5, 3), (1, 9), (30, 70)], ROTATIONS, FLIPS):
        case = f"{shape} rotated by {rotation}, flipped: {flip}"
        image = (np.arange(math.prod(shape)) % 101).reshape(shape).astype(source)
        recipe = Recipe(rotation=rotation, flip=flip)
        result, _ = transform(image, recipe)
        np.testing.assert_array_equal(result, oriented(image, rotation, flip), err_msg=case, strict=True)
        assert result.shape == recipe.output_shape(shape), case
        heights = [len(part) for part in Turning(image, recipe).blocks()]
        fitting = max(1, block // (result.shape[1] * image.itemsize))
        assert (max(heights), sum(heights)) == (min(fitting, len(result)), len(result)), case


def test_an_orientation_moves_points_as_it_moves_pixels() -> None:
    image = np.arange(15).reshape(5, 3)
    for rotation, flip in product(ROTATIONS, FLIPS):
        turn, case = Orientation.of(Recipe(rotation=rotation, flip=flip)), f"rotated by {rotation}, flipped: {flip}"
        turned = turn.apply(image)
        np.testing.assert_array_equal(turned, oriented(image, rotation, flip), err_msg=case)
        np.testing.assert_array_equal(turn.inverse().apply(turned), image, err_msg=case)
        assert turn.then(turn.inverse()) == AS_STORED, case
        origin = turn.point(0, 0, image.shape)
        for row, column in np.ndindex(image.shape):
            x, y = turn.point(column, row, image.shape)
            assert turned[int(y), int(x)] == image[row, column], case
            assert turn.direction(column, row) == (x - origin[0], y - origin[1]), case


@pytest.mark.parametrize("layout", ["contiguous", "strided"])
def test_every_step_together(layout: str) -> None:
    for rotation, flip, target in product(ROTATIONS, FLIPS, TYPES):
        image = layouts(difficult("float32"))[layout]
        expected, counts = convert(oriented(image, rotation, flip), target)
        result, found = transform(image, Recipe(rotation=rotation, flip=flip, pixel_type=target))
        case = f"to {target}, rotated by {rotation}, flipped: {flip}"
        np.testing.assert_array_equal(result, expected, err_msg=case)
        assert touched(found) == counts, case


@settings(max_examples=60)
@given(
    image=hnp.arrays(
        dtype=st.sampled_from([np.float32, np.float64]),
        shape=hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements={"allow_subnormal": False},
    ),
    rotation=st.sampled_from(ROTATIONS),
    flip=st.sampled_from(FLIPS),
    target=st.sampled_from(TYPES),
    rounding=st.sampled_from(ROUNDINGS),
)
def test_any_image_equals_the_reference(
    image: np.ndarray[Any, Any], rotation: int, flip: str, target: str, rounding: str
) -> None:
    expected, counts = convert(oriented(image, rotation, flip), target, rounding)
    result, found = transform(image, Recipe(rotation=rotation, flip=flip, pixel_type=target, rounding=rounding))
    np.testing.assert_array_equal(result, expected)
    assert touched(found) == counts


def test_large_frames_are_the_same_in_every_block() -> None:
    generator = np.random.default_rng(1)
    image = generator.normal(1000, 5000, (800, 1000)).astype(np.float32)
    image[generator.random(image.shape) < 1e-4] = np.nan
    image[generator.random(image.shape) < 1e-4] = np.inf
    result, found = transform(image, Recipe(rotation=90, flip="0", pixel_type="uint16"))
    turned = oriented(image, 90, "0")
    finite = np.where(np.isnan(turned), 0, np.clip(turned, 0, 65535))
    np.testing.assert_array_equal(result, finite.astype(np.uint16))
    assert found.nan == np.count_nonzero(np.isnan(image))
    assert found.negative == np.count_nonzero(image < 0)
    assert found.saturated_high == np.count_nonzero(image >= 65536)
    finite_source = image[np.isfinite(image)]
    assert (found.minimum, found.maximum) == (finite_source.min(), finite_source.max())


def test_only_an_image_with_a_finite_pixel_has_a_range() -> None:
    _, counts = transform(np.full((3, 3), np.nan, np.float32), Recipe(pixel_type="int32"))
    assert counts == PixelCounts(nan=9)
    _, counts = transform(np.full((3, 3), 4, np.float32), Recipe(pixel_type="int32"))
    assert counts == PixelCounts(minimum=4.0, maximum=4.0)


@pytest.mark.parametrize(("source", "target", "value"), [("int64", "float64", 2**53 + 1), ("uint64", "float32", 2**25)])
def test_integers_that_a_float_type_cannot_hold_are_refused(source: str, target: str, value: int) -> None:
    with pytest.raises(InexactPixelsError, match=str(value)):
        transform(np.array([[0, value]], dtype=source), Recipe(pixel_type=target))


def test_signalling_nans_are_nans() -> None:
    bits = np.array([[0x7FA00000, 0x7FC00000, 0xFFA00000, 0x3F800000]], np.uint32)
    result, counts = transform(bits.view(np.float32), Recipe(pixel_type="int32", invalid_value=-7))
    assert result.tolist() == [[-7, -7, -7, 1]]
    assert counts.nan == 3


@pytest.mark.parametrize("source", SOURCES)
def test_total_of_a_map_is_the_sum_of_the_finite_pixels(source: str) -> None:
    rng = np.random.default_rng(24)
    image = rng.integers(0, 100, (70, 50)).astype(source)
    if image.dtype.kind == "f":
        image[3, 4], image[5, 6], image[7, 8] = np.nan, np.inf, -np.inf
    recipe = Recipe.preset("xdi", rotation=90, map={})
    for each in layouts(image).values():
        total = transform(each, recipe)[1].total
        assert total == pytest.approx(float(image[np.isfinite(image)].sum(dtype=np.float64)), rel=1e-6)
    assert transform(image, Recipe.preset("xdi"))[1].total is None


@given(
    hnp.arrays(np.float32, (4, 5), elements=st.floats(-1000, 1000, width=32) | st.just(np.nan)),
    st.sets(st.integers(0, 19)),
)
def test_total_leaves_out_masked_pixels(block: np.ndarray[Any, Any], masked: set[int]) -> None:
    pixels = PixelConverter(np.dtype(np.float32), np.dtype(np.int32), totals=True)
    marked = np.zeros(block.size, bool)
    marked[list(masked)] = True
    left = block.reshape(-1)[~marked & np.isfinite(block.reshape(-1))].astype(np.float64)
    pixels.convert_masked(block.copy(), np.flatnonzero(marked))
    total = pixels.counts().total
    assert total == (pytest.approx(left.sum(), abs=1e-2) if left.size else None)
