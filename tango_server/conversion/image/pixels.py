"""Conversion of the pixel type, counting the pixels whose values it had to change.

The result depends on the values alone, never on the CPU, the memory layout or the path taken: every value that numpy's
cast leaves undefined (NaN, Inf, out of range) is replaced before the cast.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.image.buffers import Workspace
from tango_server.messages import PixelCounts

Image = NDArray[Any]
Positions = NDArray[np.int64]
"""Positions in a block, counted row by row, ascending."""

_SIGNED_32_ABOVE = 2.0**31
_SUMMED_BY_OPENCV = {np.dtype(name) for name in ("uint8", "int8", "uint16", "int16", "int32", "float32", "float64")}


class InexactPixelsError(ValueError):
    """Some 64-bit integer pixels have no exact value in the requested float type."""


class PixelConverter:
    """Converts the blocks of one image and counts the pixels that it had to change.

    >>> pixels = PixelConverter(np.dtype("float64"), np.dtype("int32"), invalid_value=-1)
    >>> pixels.convert(np.array([[1.9, -1.9], [np.nan, 1e10]])).tolist()
    [[1, -1], [-1, 2147483647]]
    >>> pixels.counts().nan, pixels.counts().saturated_high
    (1, 1)

    Parameters
    ----------
    source, target: native numpy types
    rounding: "truncate" (toward zero) or "nearest" (half to even), for floats that become integers
    invalid_value: what NaN becomes in an integer type, saturated to its range
    workspace: memory to reuse
    reserved: a value of the target for masked pixels only: others that would become it are written as 0
    totals: whether to add up the source's finite pixels, without masked ones

    """

    def __init__(
        self,
        source: np.dtype[Any],
        target: np.dtype[Any],
        *,
        rounding: str = "truncate",
        invalid_value: int = 0,
        workspace: Workspace | None = None,
        reserved: int | None = None,
        totals: bool = False,
    ) -> None:
        self._from_float = source.kind == "f"
        self._target = target
        self._nearest = rounding == "nearest"
        self._nan = self._negative = self._low = self._high = 0
        self._minimum: Any = np.inf
        self._maximum: Any = -np.inf
        self._masked = 0
        self._reserved = reserved
        self._total: float | None = 0.0 if totals else None
        self._unsigned = target.kind == "u"
        self._workspace = workspace or Workspace()
        self._lowest: Any
        self._highest: Any
        if target.kind == "f":
            self._lowest, self._highest = float(np.finfo(target).min), float(np.finfo(target).max)
        else:
            limits = np.iinfo(target)
            self._lowest, self._highest = int(limits.min), int(limits.max)
            self._above = float(self._highest + 1)
            self._invalid = min(max(invalid_value, self._lowest), self._highest)

    def counts(self) -> PixelCounts:
        """Return the counts of the blocks so far, and their finite range."""
        empty = self._minimum > self._maximum
        return PixelCounts(
            nan=self._nan,
            saturated_low=self._low,
            saturated_high=self._high,
            negative=self._negative,
            minimum=None if empty else float(self._minimum),
            maximum=None if empty else float(self._maximum),
            masked=self._masked,
            total=None if empty else self._total,
        )

    def convert(self, block: Image) -> Image:
        """Return `block` in the target type, valid until the next block; `block` itself may be changed."""
        if block.size == 0:
            return block.astype(self._target)
        with np.errstate(
            invalid="ignore"
        ):  # signalling NaNs would warn at every step; they are counted like the others
            return self._convert(block)

    def convert_masked(self, block: Image, masked: Positions) -> Image:
        """Return a corrected `block` in the target type, like `convert`.

        The pixels at the positions `masked`, and those that are NaN or Inf, become the invalid value, or NaN in a float
        type. They are counted as masked only.
        """
        if block.size == 0:
            return block.astype(self._target)
        with np.errstate(invalid="ignore"):
            block = _widened(block)
            masked, low, high = self._range_of_others(block, masked)
            self._masked += len(masked)
            if len(masked) == block.size:
                return np.full(block.shape, self._mark, self._target)
            self._minimum, self._maximum = min(self._minimum, low), max(self._maximum, high)
            if self._total is not None:
                self._total += _sum(block) - _sum(block.reshape(-1)[masked])
            out = self._in_target(block, min(low, 0), max(high, 0))
        if self._reserved is not None:
            self._free_reserved(out)
        out.reshape(-1)[masked] = self._mark
        return out

    @property
    def _mark(self) -> float:
        return np.nan if self._target.kind == "f" else self._invalid if self._reserved is None else self._reserved

    def _range_of_others(self, block: Image, masked: Positions) -> tuple[Positions, Any, Any]:
        """Return the positions of pixels that are masked or not finite, and minimum and maximum of all others.

        Afterwards, those pixels have a value that changes neither range nor counts.
        """
        flat = block.reshape(-1)
        if len(masked) == block.size:
            return masked, 0, 0
        value = flat[_first_free(masked)]
        flat[masked] = value
        low, high = flat.min(), flat.max()
        if block.dtype.kind == "f" and not (np.isfinite(low) and np.isfinite(high)):
            finite = np.isfinite(flat)
            finite[masked] = False
            masked = np.flatnonzero(~finite)
            value = -1
            if len(masked) < block.size:
                low, high = flat[finite].min(), flat[finite].max()
        if not 0 <= float(value) < self._highest:
            flat[masked] = 0
        return masked, low, high

    def _free_reserved(self, out: Image) -> None:
        """Write the pixels with the reserved value as 0, and count them as negative."""
        taken = out == self._reserved
        count = int(np.count_nonzero(taken))
        if count:
            self._negative += count
            out[taken] = 0

    def _convert(self, block: Image) -> Image:
        block = _widened(block)
        low, high = block.min(), block.max()  # NaN if there is one
        self._widen(block, low, high)
        return self._in_target(block, low, high)

    def _in_target(self, block: Image, low: Any, high: Any) -> Image:
        """Cast a block with values from `low` to `high`, which are NaN if it has NaN."""
        if self._target.kind == "f":
            return (
                self._float_to_float(block, low, high) if self._from_float else self._integer_to_float(block, low, high)
            )
        if self._from_float:
            return self._float_to_integer(block, low, high)
        return self._integer_to_integer(block, int(low), int(high))

    def _widen(self, block: Image, low: Any, high: Any) -> None:
        finite = block
        if self._from_float and not (np.isfinite(low) and np.isfinite(high)):
            finite = block[np.isfinite(block)]
            if not finite.size:
                return
            low, high = finite.min(), finite.max()
        if self._total is not None:
            self._total += _sum(finite)
        self._minimum, self._maximum = min(self._minimum, low), max(self._maximum, high)

    def _float_to_float(self, block: Image, low: Any, high: Any) -> Image:
        """Finite values outside of the target's range saturate; NaN and Inf stay."""
        if block.itemsize > self._target.itemsize and not (self._lowest <= low and high <= self._highest):
            finite = np.isfinite(block)
            too_high, too_low = finite & (block > self._highest), finite & (block < self._lowest)
            self._high += int(np.count_nonzero(too_high))
            self._low += int(np.count_nonzero(too_low))
            block[too_high], block[too_low] = self._highest, self._lowest
        return block.astype(self._target, copy=False)

    def _integer_to_float(self, block: Image, low: Any, high: Any) -> Image:
        exact = 2 ** (np.finfo(self._target).nmant + 1)
        if block.itemsize == 8 and not -exact <= int(low) <= int(high) <= exact:  # noqa: PLR2004 - bytes of int64
            raise InexactPixelsError(f"{self._target} cannot represent all integers from {low} to {high} exactly")
        return block.astype(self._target)

    def _float_to_integer(self, block: Image, low: Any, high: Any) -> Image:
        if self._unsigned and not low >= 0:
            self._negative += int(np.count_nonzero(block < 0))
            np.maximum(block, 0, out=block)  # NaN stays NaN
            low, high = np.maximum(low, 0), np.maximum(high, 0)
        if self._nearest:
            np.rint(block, out=block)
            low, high = np.rint(low), np.rint(high)
        # Limits are compared as powers of two, which a float type either holds exactly or never reaches.
        if self._lowest <= low and high < self._above:  # False for NaN
            return self._cast(block, high)
        return self._replaced(block)

    def _replaced(self, block: Image) -> Image:
        """Cast a block with pixels that the target type cannot represent."""
        whole = np.trunc(block)
        nan, too_high, too_low = np.isnan(block), whole >= self._above, whole < self._lowest
        self._nan += int(np.count_nonzero(nan))
        self._high += int(np.count_nonzero(too_high))
        self._low += int(np.count_nonzero(too_low))
        whole[nan | too_high | too_low] = 0
        result = whole.astype(self._target)
        result[nan], result[too_high], result[too_low] = self._invalid, self._highest, self._lowest
        return result

    def _cast(self, block: Image, high: Any) -> Image:
        """Cast a block whose pixels all lie in the target's range."""
        out = self._workspace.array("cast", block.shape, self._target)
        if self._target.itemsize < 4 or (self._unsigned and high < _SIGNED_32_ABOVE):  # noqa: PLR2004 - bytes of int32
            # Via int32, for which processors have an instruction; the values are the same.
            if out.itemsize == np.dtype(np.int32).itemsize:
                np.copyto(out.view(np.int32), block, casting="unsafe")
            else:
                np.copyto(out, block.astype(np.int32), casting="unsafe")
        else:
            np.copyto(out, block, casting="unsafe")
        return out

    def _integer_to_integer(self, block: Image, low: int, high: int) -> Image:
        if low < self._lowest:
            below = int(np.count_nonzero(block < self._lowest))
            self._negative += below if self._unsigned else 0
            self._low += 0 if self._unsigned else below
            np.maximum(block, self._lowest, out=block)
        if high > self._highest:
            self._high += int(np.count_nonzero(block > self._highest))
            np.minimum(block, self._highest, out=block)
        return block.astype(self._target, copy=False)


def _sum(values: Image) -> float:
    """Return the sum of finite values: exact for integers of up to 32 bits."""
    if values.dtype.newbyteorder("=") in _SUMMED_BY_OPENCV and values.size:
        return float(cv2.sumElems(np.ascontiguousarray(values.reshape(1, -1)))[0])  # in float64, three times as fast
    wide = values.dtype.kind == "f" or values.itemsize > 4  # noqa: PLR2004 - bytes
    return float(values.sum(dtype=np.float64 if wide else np.int64))


def _widened(block: Image) -> Image:
    """Return a block of float16 as float32: exact, and wide enough to be compared with every limit."""
    return block.astype(np.float32) if block.dtype == np.float16 else block


def _first_free(masked: Positions) -> int:
    """Return the first position that is not in `masked`."""
    if not len(masked) or masked[0]:
        return 0
    gaps = np.flatnonzero(masked != np.arange(len(masked)))
    return int(gaps[0]) if len(gaps) else len(masked)
