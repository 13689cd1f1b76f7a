"""Apply corrections to an image, block by block, in the geometry of the output.

Masters are turned once, when they are prepared, and not each frame back and forth: a correction of single pixels does
not depend on their order.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.image.buffers import Workspace
from tango_server.conversion.image.own_mask import OwnMask
from tango_server.conversion.image.pixels import Image, InexactPixelsError
from tango_server.conversion.image.repair import Repaired
from tango_server.messages import Master

Indices = NDArray[np.int64]
"""Positions in an image of the output's shape, counted row by row, ascending."""

NO_PIXELS: Indices = np.empty(0, np.int64)
_EXACT_IN_32, _EXACT_IN_64 = 2**24, 2**53


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """Prepared masters for the frames of one detector, and what to report of them.

    Parameters
    ----------
    shape: rows and columns of the output
    work: the float type in which dark and flat are applied; None if there are neither
    small_in_float32: whether integers that float32 represents exactly are corrected in float32, which is faster
    dark, flat: turned to the output, in float32 if that is exact, 0 and 1 in masked pixels
    masked: pixels that are masked in all frames
    overflow: a value that is counted as overexposed, and masked
    negatives, codes: whether values below 0 and which values mark masked pixels, as in `OwnMask`
    marks: whether pixels are masked at all, NaN and Inf included; not if overexposed ones are just counted
    limit: counts from which on a pixel is overexposed; None if unknown
    repair: whether masked pixels are filled from their neighbourhood
    reserved: the value for masked pixels only, as in ESPERANTO frames

    """

    shape: tuple[int, int]
    work: np.dtype[Any] | None = None
    small_in_float32: bool = False
    dark: Image | None = None
    flat: Image | None = None
    masked: Indices = field(default_factory=lambda: NO_PIXELS)
    negatives: bool = False
    codes: tuple[int, ...] = ()
    overflow: int | None = None
    marks: bool = True
    limit: float | None = None
    repair: bool = False
    reserved: int | None = None
    masters: tuple[Master, ...] = ()
    notes: tuple[str, ...] = ()

    def marked_in(self, pixels: Image) -> NDArray[np.bool_]:
        """Return which raw pixels their own value marks as masked."""
        codes = self.codes if self.overflow is None else (*self.codes, self.overflow)
        return OwnMask(negatives=self.negatives, codes=codes).of(pixels)

    def values(self, pixels: Image, rows: Any, columns: Any) -> NDArray[np.float64]:
        """Return the corrected values of single pixels (of the given rows and columns of the output)."""
        values = pixels.astype(np.float64)
        if self.dark is not None:
            values -= self.dark[rows, columns]
        if self.flat is not None:
            values /= self.flat[rows, columns]
        return values


class Correcting:
    """One image that is being corrected.

    `overexposed` is complete once all blocks were applied, None without a limit.
    """

    def __init__(
        self,
        correction: Correction,
        repaired: Repaired | None,
        workspace: Workspace,
        overexposed: NDArray[np.bool_] | None = None,
    ) -> None:
        self._correction = correction
        self._over = overexposed
        self._repaired = repaired
        self._workspace = workspace
        self.marks = correction.marks
        self.overexposed = None if correction.limit is None else 0

    def apply(self, block: Image, start: int) -> tuple[Image, Indices]:
        """Return the corrected block of output rows from `start` on, and the positions in it that stay masked.

        `block` is changed only if it stays in integers. The result is valid until the next block.

        Raises
        ------
        InexactPixelsError
            if 64-bit integers have no exact value as floats.
        """
        correction, columns = self._correction, block.shape[1]
        masked = _within(correction.masked, start * columns, block.size)
        if correction.negatives or correction.codes:
            marked = OwnMask(negatives=correction.negatives, codes=correction.codes).of(block)
            masked = _with_marked(masked, marked)
        if correction.limit is not None:
            self._count(block, masked, correction.limit, start)
        if correction.overflow is not None:
            masked = _with_marked(masked, block == correction.overflow)
        if correction.work is not None:
            block = self._in_floats(block, slice(start, start + len(block)), self._work_of(block, correction.work))
        if self._repaired is not None:
            masked = self._repaired.put(block, start, masked)
        return block, masked

    def _count(self, block: Image, masked: Indices, limit: float, start: int) -> None:
        wanted = math.ceil(limit) if block.dtype.kind != "f" else limit
        high = block.max()
        if high < wanted:  # False for NaN
            return
        over = block >= wanted
        if block.dtype.kind == "f":
            over &= np.isfinite(block)
        over.reshape(-1)[masked] = False
        self.overexposed = (self.overexposed or 0) + int(np.count_nonzero(over))
        if self._over is not None:
            self._over[start : start + len(block)] |= over

    def _work_of(self, block: Image, work: np.dtype[Any]) -> np.dtype[Any]:
        """Return the type to correct a block in."""
        if block.dtype.kind == "f" or block.itemsize < 4 or not block.size:  # noqa: PLR2004 - bytes
            return work
        low, high = int(block.min()), int(block.max())
        if self._correction.small_in_float32 and -_EXACT_IN_32 <= low <= high <= _EXACT_IN_32:
            return np.dtype(np.float32)
        if not -_EXACT_IN_64 <= low <= high <= _EXACT_IN_64:
            raise InexactPixelsError(f"float64 cannot represent all integers from {low} to {high} exactly")
        return work

    def _in_floats(self, block: Image, rows: slice, work: np.dtype[Any]) -> Image:
        """Return the output `rows` in floats, without the dark and divided by the flat."""
        dark, flat = self._correction.dark, self._correction.flat
        floats = self._workspace.array("corrected", block.shape, work)
        values = block
        if block.dtype != work or (dark is None and flat is None):
            np.copyto(floats, block)
            values = floats
        if dark is not None:
            values = np.subtract(values, dark[rows], out=floats)
        if flat is not None:
            with np.errstate(over="ignore"):  # Inf is masked like any other
                values = np.divide(values, flat[rows], out=floats)
        return values


def _with_marked(masked: Indices, marked: NDArray[np.bool_]) -> Indices:
    """Return the positions that are masked in all frames or marked in this block, ascending."""
    if not marked.any():
        return masked
    marked.reshape(-1)[masked] = True
    return np.flatnonzero(marked)


def _within(indices: Indices, start: int, size: int) -> Indices:
    """Return the indices from `start` on, counted from there, of a block of `size` pixels."""
    if not len(indices):
        return indices
    first, last = np.searchsorted(indices, (start, start + size))
    return indices[first:last] - start
