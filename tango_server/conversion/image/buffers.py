"""Memory that is used again: fresh memory costs more to obtain than most of what is done in it."""

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PAGE = 4096
_WORD = 8  # bytes, the largest pixel
_LARGEST_KEPT = 128 * 2**20
"""Bytes; a larger buffer goes when it is not used any more."""


class Workspace:
    """A few buffers, one for each use, that grow to the largest size seen. Not for several conversions at a time.

    >>> workspace = Workspace()
    >>> first = workspace.array("frame", (4, 4), np.dtype("float32"))
    >>> np.shares_memory(first, workspace.array("frame", (2, 2), np.dtype("uint16")))
    True
    """

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[np.uint8]] = {}

    def array(
        self, use: str, shape: tuple[int, ...], pixel_type: np.dtype[Any], *, file_offset: int = 0
    ) -> NDArray[Any]:
        """Return a C-contiguous array with arbitrary content; it is valid until the next call for the same use.

        It lies in its memory page as `file_offset` lies in a page of the file that it is read from or written to: the
        system copies between the two several times slower where the one lies just behind the other (AMD's fast short
        `rep mov`). The address is a multiple of 8.
        """
        size = math.prod(shape) * pixel_type.itemsize
        buffer = self._buffers.get(use)
        if buffer is None or buffer.size < size + _PAGE:
            buffer = np.empty(size + _PAGE, np.uint8)
            if size <= _LARGEST_KEPT:
                self._buffers[use] = buffer
        start = (file_offset - file_offset % _WORD - buffer.ctypes.data) % _PAGE
        return buffer[start : start + size].view(pixel_type).reshape(shape)


_own = threading.local()


def thread_workspace() -> Workspace:
    """Return the workspace of this thread, which no other conversion uses meanwhile."""
    workspace: Workspace | None = getattr(_own, "workspace", None)
    if workspace is None:
        workspace = _own.workspace = Workspace()
    return workspace
