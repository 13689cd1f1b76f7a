"""Every method of combining pixels against numpy in float64, and against pyFAI."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tango_server.conversion.combining.bands import can_clip
from tango_server.conversion.combining.combine import Combination, CombinedImage, Frames, combined_type
from tango_server.conversion.image.correction import Correction
from tango_server.conversion.image.orientation import AS_STORED, Orientation
from tango_server.conversion.image.pixels import InexactPixelsError
from tango_server.conversion.image.transform import Turning
from tango_server.recipe import Recipe
from tango_server.recipe.combine import Method
from tests.unit.reference import oriented

Image = NDArray[Any]
METHODS = get_args(Method)
MASK_CODE = 99
"""A value that marks a masked pixel, as that of an Eiger."""


def clipped(values: Image, sigma: float) -> Image:
    centre, deviation = np.nanmedian(values, axis=0), np.nanstd(values, axis=0)
    return np.asarray(np.nanmean(np.where(np.abs(values - centre) <= sigma * deviation, values, np.nan), axis=0))


REFERENCES: dict[str, Callable[[Image], Image]] = {
    "sum": lambda values: values.sum(axis=0),  # NaN in one makes it NaN
    "mean": lambda values: np.nanmean(values, axis=0),
    "median": lambda values: np.nanmedian(values, axis=0),
    "max": lambda values: np.nanmax(values, axis=0),
    "min": lambda values: np.nanmin(values, axis=0),
    "sigma_clip": lambda values: clipped(values, 1.5),
}


def reference(method: str, values: Image) -> Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pixels without any value
        return REFERENCES[method](values)


def combined(
    stack: Image, method: Method, recipe: Recipe, correction: Correction | None = None, band_bytes: int = 2**20
) -> Image:
    """Return the combination in float64, with NaN in masked pixels."""

    def read(together: int) -> Iterator[list[Turning]]:
        for start in range(0, len(stack), together):
            yield [Turning(image.copy(), recipe, correction=correction) for image in stack[start : start + together]]

    kind = (correction.work if correction else None) or stack.dtype
    shape = recipe.output_shape((stack.shape[1], stack.shape[2]))
    frames = Frames(len(stack), shape, kind, read)
    combination = Combination(method, 1.5, band_bytes=band_bytes)
    output = CombinedImage(combination, frames, AS_STORED, recipe, np.dtype("float64"))
    result = output.whole()
    assert output.counts().masked == np.count_nonzero(np.isnan(result))
    return result


@given(
    data=st.data(),
    method=st.sampled_from(METHODS),
    kind=st.sampled_from(["uint8", "int16", "uint16", "int32", "uint32", "float32", "float64", "int64"]),
    count=st.integers(1, 40),
    rotation=st.sampled_from([0, 90, 270]),
    with_dark=st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_methods_equal_numpy_within_one_ulp(
    data: st.DataObject, method: Method, kind: str, count: int, rotation: int, *, with_dark: bool
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    recipe = Recipe.model_validate({"rotation": rotation, "flip": "1", "combine": {"of": "run", "method": method}})
    shape = (7, 5)
    stack = rng.integers(0, 98, (count, *shape)).astype(kind)
    stack[:, 1, 1] = 7  # no deviation
    stack[rng.random(stack.shape) < data.draw(st.sampled_from([0, 0.02, 0.3]))] = MASK_CODE
    values = np.where(stack == MASK_CODE, np.nan, stack.astype(np.float64))
    if np.dtype(kind).kind == "f":
        stack = (stack * rng.normal(1, 0.5)).astype(kind)
        unusable = rng.random(stack.shape) < 0.05
        stack[unusable] = rng.choice([np.nan, np.inf, -np.inf], stack.shape)[unusable]
        stack[np.isnan(values)] = MASK_CODE
        values = np.where(np.isfinite(stack) & (stack != MASK_CODE), stack.astype(np.float64), np.nan)
    always = np.zeros(shape, bool)
    always[3, 2] = True
    values[:, always] = np.nan
    turn = Orientation.of(recipe)
    dark = rng.integers(0, 9, shape).astype(np.float64) if with_dark else None
    correction = Correction(
        shape=turn.shape(shape),
        work=np.dtype("float64") if with_dark else None,
        dark=None if dark is None else np.ascontiguousarray(turn.apply(dark)),
        masked=np.flatnonzero(turn.apply(always)),
        codes=(MASK_CODE,),
    )
    if dark is not None:
        values = values - dark
    band = data.draw(st.sampled_from([1, 3 * 7 * 8 * count, 2**20]))
    found = combined(stack, method, recipe, correction, band)
    expected = oriented(reference(method, values), rotation, "1")
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    free = ~np.isnan(expected)
    np.testing.assert_array_max_ulp(found[free], expected[free], 1)


@pytest.mark.parametrize("method", ["median", "sigma_clip"])
def test_pyfai_agrees_where_all_members_are_valid(method: Method) -> None:
    from pyFAI.average import average_dark

    rng = np.random.default_rng(3)
    stack = rng.normal(1000, 30, (10, 40, 30)).astype(np.float32)
    stack[2, ::3] *= 3
    cutoff = 1.5 if method == "sigma_clip" else None
    theirs = average_dark(list(stack), center_method="median", cutoff=cutoff)
    recipe = Recipe.model_validate({"combine": {"of": "run", "method": method}})
    np.testing.assert_allclose(combined(stack, method, recipe), theirs, rtol=1e-5)


@pytest.mark.parametrize("method", ["sum", "max", "min", "mean"])
def test_pyfai_filters_agree(method: Method) -> None:
    from pyFAI import average

    stack = np.random.default_rng(4).uniform(1, 5000, (6, 20, 30)).astype(np.float32)
    recipe = Recipe.model_validate({"combine": {"of": "run", "method": method}})
    theirs = getattr(average, f"{method.title()}Averaging")()
    theirs.init(len(stack))
    for image in stack:
        theirs.add_image(image)
    np.testing.assert_allclose(combined(stack, method, recipe), theirs.get_result(), rtol=1e-5)


@pytest.mark.parametrize("frames", [2, 3, 7, 8, 12])
def test_it_is_known_when_nothing_can_be_clipped(frames: int) -> None:
    half = frames // 2
    worst = np.zeros(frames)  # one half at the median, one value far away, the rest of its half at the mean
    worst[-1] = 1.0
    above = max(half - 1 if frames % 2 else half - 2, 0)
    worst[-1 - above : -1] = 1 / (frames - above)
    ratio = abs(worst[-1] - np.median(worst)) / worst.std()
    assert can_clip(frames, ratio * 0.999)
    assert not can_clip(frames, ratio * 1.001)
    random = np.random.default_rng(frames).standard_cauchy((20_000, frames))
    deviations = np.abs(random - np.median(random, axis=1, keepdims=True)) / random.std(axis=1, keepdims=True)
    assert deviations.max() <= ratio * 1.000001


def test_sums_of_64_bit_integers_are_exact_or_refused() -> None:
    recipe = Recipe.model_validate({"combine": {"of": "run", "method": "sum"}})

    def total(*values: int) -> Any:
        stack = np.array(values, np.int64).reshape(-1, 1, 1)
        frames = Frames(len(values), (1, 1), stack.dtype, lambda _: ([Turning(each, recipe)] for each in stack))
        return Combination("sum").of(frames).values[0, 0]

    assert total(2**62, 2**62 - 1) == 2**63 - 1
    assert total(-(2**62), -(2**62)) == -(2**63)
    with pytest.raises(InexactPixelsError, match="64-bit"):
        total(2**62, 2**62)


@pytest.mark.parametrize(
    ("method", "source", "expected"),
    [
        ("sum", "uint16", "uint32"), ("sum", "int8", "int32"), ("sum", "int32", "float64"),
        ("sum", "float32", "float32"), ("mean", "uint16", "float32"), ("median", "float32", "float32"),
        ("sigma_clip", "uint32", "float64"), ("max", "uint16", "uint16"), ("min", "int32", "int32"),
    ],
)  # fmt: skip
def test_pixel_type_without_one_in_the_recipe(method: Method, source: str, expected: str) -> None:
    assert combined_type(Recipe(), method, np.dtype(source)) == expected
    assert combined_type(Recipe(pixel_type="int32"), method, np.dtype(source)) == "int32"
