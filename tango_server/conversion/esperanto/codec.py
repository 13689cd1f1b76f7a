"""The pixel encoding AGI_BITFIELD: row by row, differences of neighbours in as few bits as possible.

The layout (Rothkirch et al. 2013, J. Synchrotron Rad. 20, 711; fabio's `agi_bitfield`): the number of bytes of all rows
(u32), the rows, the offset of each row (u32). A row is its first pixel, then the differences: in pairs of fields of
8 pixels, then the remaining ones singly. A pair begins with a byte that holds the widths of both (bits a pixel, low
nibble first); the bits are packed from the lowest, with 2**(width - 1) - 1 added. In a field of 8 bits, and for single
pixels, 254 and 255 mean that an int16 or int32 follows, in a pair after the pair. All is little-endian, and differences
wrap at 32 bits.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.int32]
_Numbers = NDArray[Any]

_FIELD = 8  # pixels
_PAIR = 2 * _FIELD
_BIAS = 127
_SHORT, _LONG = 254, 255
_LARGEST_PAIR = 1 + _PAIR + 4 * _PAIR  # bytes
_FEW = 2000  # escapes per step; above that, processing all pixels is faster than selecting them
_EIGHT = np.arange(_FIELD)[:, None]


class BitfieldError(ValueError):
    """The bytes are not valid in this encoding."""


def encode(image: NDArray[Any]) -> bytes:
    """Return the encoded bytes of an int32 image (rows, columns) with any strides."""
    from fabio.ext._agi_bitfield import compress  # noqa: PLC0415 - 0.1 s of import that TIFFs don't need

    encoded: bytes = compress(np.ascontiguousarray(image, np.int32))
    return encoded


def decode(data: bytes | memoryview, shape: tuple[int, int]) -> Image:
    """Return the image of `shape` (rows, columns) in `data`.

    All rows are decoded side by side, one pair of fields at a time. This needs twice the memory of the image.

    Raises
    ------
    BitfieldError
        if `data` does not contain exactly such an image.

    """
    rows, columns = shape
    size, starts = _table(data, rows)
    reader = _Reader(data, starts[:-1], size)
    differences = np.empty((columns, rows), np.int32)
    differences[0] = reader.single()
    column = 1
    while column + _PAIR <= columns:
        reader.pair(differences[column : column + _PAIR])
        column += _PAIR
    for left_over in range(column, columns):
        differences[left_over] = reader.single()
    wrong = np.flatnonzero(reader.places != starts[1:])
    if len(wrong):
        raise BitfieldError(f"row {wrong[0]} does not end at the start of the next one")
    for pixel in range(1, columns):  # np.cumsum along this axis takes ten times as long
        differences[pixel] += differences[pixel - 1]
    image: Image = cv2.transpose(differences)
    return image


def _table(data: bytes | memoryview, rows: int) -> tuple[int, NDArray[np.int64]]:
    """Return the number of bytes of all rows, and the start of each, followed by the end."""
    if len(data) < 4:  # noqa: PLR2004 - a u32
        raise BitfieldError(f"only {len(data)} bytes of pixels")
    size = int(np.frombuffer(data, "<u4", 1)[0])
    if len(data) != 4 + size + 4 * rows:
        raise BitfieldError(f"{len(data)} bytes of pixels instead of {4 + size + 4 * rows}")
    starts = np.append(np.frombuffer(data, "<u4", rows, 4 + size).astype(np.int64), size)
    if starts[0] != 0 or (np.diff(starts) <= 0).any():
        raise BitfieldError("the offsets of its rows do not increase from 0")
    return size, starts


class _Reader:
    """Reads all rows in parallel; `places` are the current positions in the rows."""

    def __init__(self, data: bytes | memoryview, starts: NDArray[np.int64], size: int) -> None:
        self._stream = np.zeros(size + _LARGEST_PAIR, np.uint8)
        self._stream[:size] = np.frombuffer(data, np.uint8, size, 4)
        whole = len(self._stream)
        self._fours = np.ndarray((whole - 3,), "<i4", self._stream, strides=(1,))  # at each byte, the number there
        self._eights = np.ndarray((whole - 7,), "<u8", self._stream, strides=(1,))
        self._size = size
        self.places = starts

    def single(self) -> _Numbers:
        """Return one single pixel of each row."""
        raw = self._stream[self.places].astype(np.int32)
        self._advance(1)
        values = raw - _BIAS
        return self._escaped(raw[None], values[None])[0] if raw.max() >= _SHORT else values

    def pair(self, values: _Numbers) -> None:
        """Read the pixels of a pair of fields into `values` (16, rows)."""
        lengths = self._stream[self.places].astype(np.int64)
        self._advance(1)
        raw = np.empty_like(values)
        may_escape = False
        for field, width in enumerate((lengths & 15, lengths >> 4)):
            if width.min() < 1 or width.max() > _FIELD:
                raise BitfieldError("the width of a field is not 1 to 8 bits")
            part = slice(field * _FIELD, (field + 1) * _FIELD)
            packed = self._eights[self.places]
            self._advance(width)
            mask = ((1 << width) - 1).astype(np.uint64)
            bias = ((1 << (width - 1)) - 1).astype(np.int32)
            raw[part] = (packed >> (_EIGHT * width).astype(np.uint64)) & mask
            np.subtract(raw[part], bias, out=values[part])
            may_escape = may_escape or width.max() == _FIELD
        if may_escape and raw.max() >= _SHORT:
            values[:] = self._escaped(raw, values)

    def _escaped(self, raw: _Numbers, values: _Numbers) -> _Numbers:
        """Return `values` with the escaped numbers that follow, in the order of pixels."""
        row, pixel = divmod(np.flatnonzero((raw >= _SHORT).T), len(raw))  # in the order of rows, then of pixels
        return self._few(raw, values, row, pixel) if len(row) < _FEW else self._many(raw, values)

    def _few(self, raw: _Numbers, values: _Numbers, row: _Numbers, pixel: _Numbers) -> _Numbers:
        short = raw[pixel, row] == _SHORT
        sizes = np.where(short, 2, 4)
        before = np.cumsum(sizes) - sizes
        before -= before[np.searchsorted(row, row)]  # without those of earlier rows
        found = self._fours[self.places[row] + before]
        values[pixel, row] = np.where(short, found.astype(np.int16), found)
        self._advance(np.bincount(row, sizes, len(self.places)).astype(np.int64))
        return values

    def _many(self, raw: _Numbers, values: _Numbers) -> _Numbers:
        short, long = raw == _SHORT, raw == _LONG
        found = np.empty_like(raw)
        places = self.places
        for pixels, sizes in zip(found, (short.view(np.int8) << 1) + (long.view(np.int8) << 2), strict=True):
            pixels[:] = self._fours[places]
            places = places + sizes
        self.places = places
        self._advance(0)
        values = np.where(long, found, values)
        return np.where(short, found.astype(np.int16), values)

    def _advance(self, by: Any) -> None:
        """Advance all rows, in damaged ones at most to the end."""
        self.places = np.minimum(self.places + by, self._size)
