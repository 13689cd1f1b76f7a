"""Memory that is used again: fresh memory costs more to obtain than most of what is done in it."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Workspace:
    """A few buffers, one for each use, that grow to the largest size seen. Not for several conversions at a time.

    >>> workspace = Workspace()
    >>> first = workspace.array("frame", (4, 4), np.dtype("float32"))
    >>> np.shares_memory(first, workspace.array("frame", (2, 2), np.dtype("uint16")))
    True
    """

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[np.uint8]] = {}

    def array(self, use: str, shape: tuple[int, ...], pixel_type: np.dtype[Any]) -> NDArray[Any]:
        """Return a C-contiguous array with arbitrary content; it is valid until the next call for the same use."""
        size = math.prod(shape) * pixel_type.itemsize
        buffer = self._buffers.get(use)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[use] = np.empty(size, np.uint8)
        return buffer[:size].view(pixel_type).reshape(shape)
