"""Reusable memory: allocating it takes longer than most of the work done in it."""

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PAGE = 4096
_WORD = 8  # bytes, the largest pixel
_LARGEST_KEPT = 128 * 2**20
"""Bytes; larger buffers are not kept."""


class Workspace:
    """A few buffers, one for each use, that grow to the largest size seen. For one conversion at a time.

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

        Its offset in the memory page is that of `file_offset` in a page of the file: the kernel copies several times
        slower to an address just behind that of the source (AMD's fast short `rep mov`). It is aligned to 8 bytes.
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


def thread_workspace(number: int = 0) -> Workspace:
    """Return one of the workspaces of this thread; several are needed for frames that are open together."""
    workspaces: dict[int, Workspace] | None = getattr(_own, "workspaces", None)
    if workspaces is None:
        workspaces = _own.workspaces = {}
    return workspaces.setdefault(number, Workspace())
