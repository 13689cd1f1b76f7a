"""Sum, mean, maximum and minimum of frames that come one after the other."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.image.buffers import Workspace
from tango_server.conversion.image.correction import NO_PIXELS, Indices
from tango_server.conversion.image.pixels import Image, InexactPixelsError
from tango_server.recipe.combine import Method

_ACCUMULATED = {np.dtype(kind) for kind in ("uint8", "uint16", "float32", "float64")}  # by OpenCV
_WIDEST_EXACT = 4  # bytes of integers of which float64 holds the sum of MOST_MEMBERS


@dataclass(frozen=True, slots=True, eq=False)
class Combined:
    """One image of several: `values` (rows, columns), and which pixels have none; NaN and Inf are no values either."""

    values: Image
    masked: NDArray[np.bool_] | None = None


def combined_values(method: Method, kind: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type in which frames of a type are combined.

    >>> combined_values("sum", np.dtype("int64")), combined_values("mean", np.dtype("uint16"))
    (dtype('int64'), dtype('float64'))
    """
    if method in {"max", "min"}:
        return kind
    is_wide = kind.kind != "f" and kind.itemsize > _WIDEST_EXACT
    return np.dtype(np.int64 if method == "sum" and is_wide else np.float64)


class Streaming:
    """The combination of frames so far, by sum, mean, maximum or minimum.

    In memory are a frame of 8 bytes a pixel and, where pixels are masked, one of 2 bytes.

    Parameters
    ----------
    method: what to compute
    shape: rows and columns
    kind: the type of the pixels
    workspace: memory for the result, which is valid until its next use for one
    strict: whether a pixel that is masked in one frame is masked in the result, as it always is in a sum

    """

    def __init__(
        self,
        method: Method,
        shape: tuple[int, int],
        kind: np.dtype[Any],
        workspace: Workspace,
        *,
        strict: bool = False,
    ) -> None:
        self._method = method
        self._strict = strict or method == "sum"
        self._frames = 0
        self._missing: NDArray[np.uint16] | None = None
        self._adds = method in {"sum", "mean"}
        self._is_float = kind.kind == "f"
        self._is_wide = combined_values(method, kind) == np.int64 and self._adds
        if self._adds:
            self._neutral: Any = 0
        else:
            limits = np.iinfo(kind) if not self._is_float else None
            lowest, highest = (-np.inf, np.inf) if limits is None else (limits.min, limits.max)
            self._neutral = lowest if method == "max" else highest
        self._values = workspace.array("combined", shape, combined_values(method, kind))

    def add(self, number: int, start: int, block: Image, masked: Indices) -> None:
        """Add rows from `start` on of frame `number`, from 0; `masked` are positions in the block, which is changed."""
        self._frames = max(self._frames, number + 1)
        if self._is_float and not (self._adds and self._strict):  # a sum keeps NaN and Inf by itself
            masked = with_unusable(block, masked)
        part = self._values[start : start + len(block)]
        if len(masked):
            block.reshape(-1)[masked] = self._neutral
        if self._adds and not self._is_wide and not self._is_float and block.itemsize > _WIDEST_EXACT:
            block = as_floats(block)
        if number == 0:
            if block.dtype.kind == "u" and self._is_wide:
                part[...] = 0
                _add_exactly(part, block)
            else:
                np.copyto(part, block)
        elif not self._adds:
            (np.maximum if self._method == "max" else np.minimum)(part, block, out=part)
        elif self._is_wide:
            _add_exactly(part, block)
        elif block.dtype in _ACCUMULATED:
            cv2.accumulate(block, part)
        else:
            with np.errstate(invalid="ignore"):  # Inf - Inf
                np.add(part, block, out=part)
        if len(masked):
            self._note(start, part.shape, masked)

    def result(self) -> Combined:
        """Return the combination of all frames; this object is used up."""
        missing, values = self._missing, self._values
        if self._method == "mean":
            seen = self._frames if missing is None or self._strict else self._frames - missing.astype(np.float64)
            with np.errstate(invalid="ignore", divide="ignore"):
                np.divide(values, seen, out=values)
        if missing is None:
            return Combined(values)
        return Combined(values, missing > 0 if self._strict else missing == self._frames)

    def _note(self, start: int, shape: tuple[int, ...], masked: Indices) -> None:
        if self._missing is None:
            self._missing = np.zeros(self._values.shape, np.uint16)
        self._missing[start : start + shape[0]].reshape(-1)[masked] += 1


def with_unusable(block: Image, masked: Indices) -> Indices:
    """Return the positions that are masked, NaN or Inf in a block of floats, ascending."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = block.sum()
    if np.isfinite(total):
        return masked
    unusable = ~np.isfinite(block.reshape(-1))
    unusable[masked] = True
    return np.flatnonzero(unusable) if unusable.any() else NO_PIXELS


def as_floats(block: Image) -> NDArray[np.float64]:
    """Return a copy in float64.

    Raises
    ------
    InexactPixelsError
        if it has 64-bit integers that have no exact value as floats.
    """
    if block.dtype.kind != "f" and block.itemsize > _WIDEST_EXACT and block.size:
        low, high = int(block.min()), int(block.max())
        if not -(2**53) <= low <= high <= 2**53:
            raise InexactPixelsError(f"float64 cannot represent all integers from {low} to {high} exactly")
    return block.astype(np.float64)


def _add_exactly(total: NDArray[np.int64], block: Image) -> None:
    """Add 64-bit integers; raise `InexactPixelsError` if the sum of a pixel is beyond int64."""
    beyond = block.dtype.kind == "u" and block.size and int(block.max()) >= 2**63
    added = block.astype(np.int64)
    result = total + added
    if beyond or ((total ^ result) & (added ^ result) < 0).any():
        raise InexactPixelsError("the sum of a pixel is beyond 64-bit integers")
    total[...] = result
