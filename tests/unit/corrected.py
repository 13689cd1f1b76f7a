"""The corrections once more, on whole images in float64, independent of blocks, float32 and turned masters."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.unit.reference import convert, oriented

Image = np.ndarray[Any, Any]


@dataclass
class Corrected:
    """The corrected frame as stored, before it is turned: `values` in float64, and which pixels are masked."""

    values: Image
    masked: Image

    def turned(self, rotation: int, flip: str) -> "Corrected":
        return Corrected(oriented(self.values, rotation, flip), oriented(self.masked, rotation, flip))


def corrected(raw: Image, dark: Image | None = None, flat: Image | None = None, mask: Image | None = None) -> Corrected:
    values = raw.astype(np.float64)
    masked = np.zeros(raw.shape, bool) if mask is None else mask != 0
    for each in (raw, dark, flat):
        if each is not None:
            masked |= ~np.isfinite(each)
    with np.errstate(all="ignore"):
        if dark is not None:
            values = values - dark.astype(np.float64)
        if flat is not None:
            values = values / flat.astype(np.float64)
    return Corrected(values, masked | ~np.isfinite(values))


def ulps(got: Image, wanted: Image) -> int:
    """The largest distance of two float32 images, in units of the last place."""
    places = [np.ascontiguousarray(each, np.float32).view(np.int32).astype(np.int64) for each in (got, wanted)]
    ordered = [np.where(each < 0, -(2**31) - each, each) for each in places]
    return int(np.abs(ordered[0] - ordered[1]).max(initial=0))


def require_equal(got: Image, wanted: Corrected, pixel_type: str, invalid_value: int, *, exact: bool) -> None:
    """Fail unless an output is the reference: within one ulp of float32, or one count."""
    free = ~wanted.masked
    marked = got[wanted.masked]
    if np.dtype(pixel_type).kind == "f":
        assert np.isnan(marked).all()
        with np.errstate(over="ignore"):
            reference = wanted.values[free].astype(pixel_type)
        if exact or pixel_type == "float64":
            np.testing.assert_allclose(got[free], reference, rtol=0 if exact else 1e-6)
        else:
            assert ulps(got[free], reference) <= 1
        return
    limits = np.iinfo(pixel_type)
    assert (marked == min(max(invalid_value, limits.min), limits.max)).all()
    reference, _ = convert(wanted.values[free][None], pixel_type)
    distance = np.abs(got[free].astype(np.float64) - reference[0].astype(np.float64))
    scale = 0 if exact else np.maximum(1, np.abs(wanted.values[free]) * 2.0**-22)
    assert (distance <= scale).all()
