"""Median and sigma-clipped mean of a band of rows of all frames.

Pixels that are masked in no frame are computed as whole arrays, in blocks that fit into a processor's cache. Those
that are masked in some are few, and computed once more by themselves.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.combining.network import mean_of_middle
from tango_server.conversion.combining.streaming import as_floats
from tango_server.conversion.image.correction import Indices
from tango_server.conversion.image.pixels import Image

Floats = NDArray[np.float64]

_BLOCK_BYTES = 2**20  # of all frames


def combined_band(stack: Image, masked: Sequence[Indices], sigma: float | None) -> Floats:
    """Return the median of frames along the first axis, or with `sigma` the sigma-clipped mean. `stack` is changed.

    Parameters
    ----------
    stack: (frames, rows, columns)
    masked: positions in the band that are masked in each frame, those of NaN and Inf included
    sigma: values deviate from the median by at most `sigma` standard deviations about the mean (with ddof 0)

    Returns
    -------
    NDArray
        of float64; NaN where no value is left.

    """
    frames, rows, columns = stack.shape
    flat = stack.reshape(frames, -1)
    places = np.unique(np.concatenate(masked)) if any(map(len, masked)) else np.empty(0, np.int64)
    exceptions = as_floats(flat[:, places])
    for number, positions in enumerate(masked):
        exceptions[number, np.searchsorted(places, positions)] = np.nan
        flat[number, positions] = 0  # neither NaN nor a warning in the blocks
    result = np.empty((rows, columns))
    height = max(1, _BLOCK_BYTES // (frames * columns * stack.itemsize))
    for start in range(0, rows, height):
        block = stack[:, start : start + height]
        result[start : start + height] = _whole(block, sigma)
    if len(places):
        result.reshape(-1)[places] = _with_gaps(exceptions, sigma)
    return result


def can_clip(frames: int, sigma: float) -> bool:
    """Return whether the value of one of `frames` can deviate by more than `sigma` standard deviations.

    The deviation from the median is largest if one value is far away, the rest of its half is at the mean and the other
    half is at the median.

    >>> can_clip(7, 3.0), can_clip(8, 3.0)
    (False, True)
    """
    if frames <= 2:  # noqa: PLR2004 - two values are one deviation away from their median
        return frames == 2 and sigma < 1  # noqa: PLR2004
    half = frames // 2
    return sigma < math.sqrt(frames * (half + 2) / (half + 1))


def _whole(block: Image, sigma: float | None) -> Floats:
    """Return the result for pixels without masked values; `block` is changed."""
    if sigma is None:
        if block.dtype.kind != "f" and block.itemsize > 4:  # noqa: PLR2004 - bytes
            block = as_floats(block)
        return mean_of_middle(block)
    values = as_floats(block)
    centre = mean_of_middle(block if block.dtype.kind == "f" or block.itemsize <= 4 else values.copy())  # noqa: PLR2004
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _near_mean(values, centre, sigma, len(values))


def _near_mean(values: Floats, centre: Floats, sigma: float, count: Any) -> Floats:
    """Return the mean of the values that are near the centre, NaN if none is.

    `count` values of each pixel are numbers. They are added in the order of the frames, whatever the size of a block:
    the last bit depends on it.
    """
    some = isinstance(count, np.ndarray)  # and NaN counts as absent
    mean, squares = np.zeros_like(centre), np.zeros_like(centre)
    for value in values:
        mean += np.nan_to_num(value, nan=0.0) if some else value
    mean /= count
    for value in values:
        difference = value - mean
        difference *= difference
        squares += np.nan_to_num(difference, nan=0.0) if some else difference
    squares /= count
    limit = sigma * np.sqrt(squares)
    total, kept = np.zeros_like(centre), np.zeros_like(centre)
    for value in values:
        near = np.abs(value - centre) <= limit  # False for NaN
        total += np.where(near, value, 0)
        kept += near
    return np.asarray(total / kept)


def _with_gaps(values: Floats, sigma: float | None) -> Floats:
    """Return the result for pixels (frames, pixels) of which some values are NaN."""
    ordered = np.sort(values, axis=0)  # NaN comes last
    count = np.count_nonzero(~np.isnan(values), axis=0)
    pixels = np.arange(values.shape[1])
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(values) - 1)
    centre = (ordered[low, pixels] + ordered[high, pixels]) / 2
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        centre[count == 0] = np.nan
        if sigma is None:
            return np.asarray(centre)
        return _near_mean(values, centre, sigma, count)
