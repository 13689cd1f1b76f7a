"""The recipe's semantics once more, pixel by pixel in Python's exact integers: slow, independent of numpy's casts."""

import math
from typing import Any

import numpy as np

from tango_server.messages import PixelCounts

COUNTED = ("nan", "saturated_low", "saturated_high", "negative")


def convert_pixel(value: Any, target: np.dtype[Any], rounding: str, invalid_value: int) -> tuple[Any, str]:
    """Return the converted pixel and which rule touched it (empty: none)."""
    if target.kind == "f":
        limit = float(np.finfo(target).max)
        if isinstance(value, float) and math.isfinite(value) and abs(value) > limit:
            return math.copysign(limit, value), "saturated_high" if value > 0 else "saturated_low"
        return value, ""
    low, high = int(np.iinfo(target).min), int(np.iinfo(target).max)
    if isinstance(value, float) and math.isnan(value):
        return min(max(invalid_value, low), high), "nan"
    if low == 0 and value < 0:
        return 0, "negative"
    if isinstance(value, float) and math.isinf(value):
        return (high, "saturated_high") if value > 0 else (low, "saturated_low")
    whole = int(value) if rounding == "truncate" or isinstance(value, int) else round(value)
    if whole > high:
        return high, "saturated_high"
    if whole < low:
        return low, "saturated_low"
    return whole, ""


def convert(
    image: np.ndarray[Any, Any], pixel_type: str, rounding: str = "truncate", invalid_value: int = 0
) -> tuple[np.ndarray[Any, Any], dict[str, int]]:
    """Return the converted image and the counts."""
    target = np.dtype(pixel_type)
    result = np.empty(image.shape, target)
    counts = dict.fromkeys(COUNTED, 0)
    for place, value in np.ndenumerate(image):
        result[place], rule = convert_pixel(value.item(), target, rounding, invalid_value)
        if rule:
            counts[rule] += 1
    return result, counts


def touched(counts: PixelCounts) -> dict[str, int]:
    """Return what a conversion counted, as `convert` does."""
    return {name: getattr(counts, name) for name in COUNTED}


def oriented(image: np.ndarray[Any, Any], rotation: int, flip: str) -> np.ndarray[Any, Any]:
    """Return the image rotated and flipped by numpy's own functions."""
    rotated = np.rot90(image, rotation // 90)
    return {"none": rotated, "0": np.flip(rotated, 0), "1": np.flip(rotated, 1), "both": np.flip(rotated)}[flip]
