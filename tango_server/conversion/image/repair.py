"""Fill masked pixels with the median of their neighbourhood, for programs that know no mask."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE = 5
_REACH = _SIDE // 2
_AT_ONCE = 20_000  # pixels, so that their neighbourhoods fit into a processor's cache

Values = Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[np.float64]]
"""Returns the corrected values of the pixels in these rows and columns."""


@dataclass(frozen=True, slots=True, eq=False)
class Repaired:
    """The values of repaired pixels by position, counted row by row."""

    positions: NDArray[np.int64]
    values: NDArray[np.float64]

    def put(self, block: NDArray[Any], start: int, masked: NDArray[np.int64]) -> NDArray[np.int64]:
        """Write them into a block of rows from `start` on, and return which of its `masked` positions are left."""
        offset = start * block.shape[1]
        first, last = np.searchsorted(self.positions, (offset, offset + block.size))
        here = self.positions[first:last] - offset
        block.reshape(-1)[here] = self.values[first:last]  # truncates for integers
        return np.setdiff1d(masked, here, assume_unique=True)


def repaired(masked: NDArray[np.bool_], values: Values) -> Repaired:
    """Return the median of the unmasked pixels in the 5 x 5 neighbourhood of each masked pixel.

    Only where at least half of the neighbourhood, as far as it lies in the image, is unmasked. Of an even number of
    pixels, the median is the mean of the two in the middle.
    """
    free = np.ascontiguousarray(~masked).view(np.uint8)
    free_beside, all_beside = (_beside(each) for each in (free, np.ones_like(free)))
    rows, columns = np.nonzero(masked & (2 * free_beside >= all_beside))
    medians = [
        _medians(rows[at : at + _AT_ONCE], columns[at : at + _AT_ONCE], masked, values)
        for at in range(0, len(rows), _AT_ONCE)
    ]
    return Repaired(
        rows.astype(np.int64) * masked.shape[1] + columns, np.concatenate(medians) if medians else np.empty(0)
    )


def _beside(flags: NDArray[np.uint8]) -> NDArray[Any]:
    """Return how many pixels of each neighbourhood are set."""
    count: NDArray[Any] = cv2.boxFilter(
        flags, cv2.CV_32S, (_SIDE, _SIDE), normalize=False, borderType=cv2.BORDER_CONSTANT
    )
    return count


def _medians(
    rows: NDArray[np.intp], columns: NDArray[np.intp], masked: NDArray[np.bool_], values: Values
) -> NDArray[np.float64]:
    steps = np.arange(-_REACH, _REACH + 1)
    beside_rows = rows[:, None, None] + steps[None, :, None]
    beside_columns = columns[:, None, None] + steps[None, None, :]
    height, width = masked.shape
    inside = (beside_rows >= 0) & (beside_rows < height) & (beside_columns >= 0) & (beside_columns < width)
    beside_rows, beside_columns = np.clip(beside_rows, 0, height - 1), np.clip(beside_columns, 0, width - 1)
    beside_rows, beside_columns = np.broadcast_arrays(beside_rows, beside_columns)
    used = inside & ~masked[beside_rows, beside_columns]
    found = np.where(used, values(beside_rows, beside_columns), np.inf).reshape(len(rows), -1)
    found.sort(axis=1)
    count = used.reshape(len(rows), -1).sum(axis=1)
    each = np.arange(len(rows))
    median: NDArray[np.float64] = (found[each, (count - 1) // 2] + found[each, count // 2]) / 2
    return median
