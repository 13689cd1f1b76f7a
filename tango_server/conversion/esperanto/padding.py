"""CrysAlis needs square frames whose side is a multiple of 4, from 256 to 4096 pixels.

Others are centred in such a square.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST, LARGEST, MULTIPLE = 256, 4096, 4
FILL = -1
"""The value of the margin: eiger2crysalis marks unmeasured pixels by it."""


class FrameSizeError(ValueError):
    """A frame is too large for CrysAlis."""


def padded_side(shape: tuple[int, int]) -> int:
    """Return the side, in pixels, of the square for a frame of `shape` (rows, columns).

    >>> padded_side((2048, 2048)), padded_side((100, 257)), padded_side((64, 64))
    (2048, 260, 256)

    Raises
    ------
    FrameSizeError
        if the frame is too large.

    """
    side = max(SMALLEST, -(-max(shape) // MULTIPLE) * MULTIPLE)
    if side > LARGEST:
        rows, columns = shape
        raise FrameSizeError(f"{rows} x {columns} pixels are too large for CrysAlis (at most {LARGEST} x {LARGEST})")
    return side


def margin(shape: tuple[int, int]) -> tuple[int, int]:
    """Return how many rows and columns precede a frame that is centred in its square.

    >>> margin((100, 257))
    (80, 1)
    """
    side = padded_side(shape)
    rows, columns = shape
    return (side - rows) // 2, (side - columns) // 2


def square(shape: tuple[int, int]) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Return an image filled with `FILL`, and the view for a frame of `shape` (rows, columns)."""
    side, (above, left) = padded_side(shape), margin(shape)
    rows, columns = shape
    whole = np.empty((side, side), np.int32)
    if (rows, columns) != (side, side):
        whole.fill(FILL)
    return whole, whole[above : above + rows, left : left + columns]
