"""Memory that is used again: fresh memory of a frame's size costs more to obtain than the frame costs to read."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Workspace:
    """One buffer that grows to the largest frame seen. Not for several conversions at a time.

    >>> workspace = Workspace()
    >>> first = workspace.array((4, 4), np.dtype("float32"))
    >>> first.base is workspace.array((2, 2), np.dtype("uint16")).base
    True
    """

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.uint8)

    def array(self, shape: tuple[int, int], pixel_type: np.dtype[Any]) -> NDArray[Any]:
        """Return an array with arbitrary content; it is valid until the next call."""
        size = math.prod(shape) * pixel_type.itemsize
        if size > self._buffer.size:
            self._buffer = np.empty(size, np.uint8)
        return self._buffer[:size].view(pixel_type).reshape(shape)
