"""Arrays to arrays, block by block: a block of output rows is gathered, turned and cast while it lies in the cache."""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from tango_server.conversion.orientation import AS_STORED, Orientation
from tango_server.conversion.pixels import Image, PixelConverter
from tango_server.messages import PixelCounts
from tango_server.recipe import Recipe

_BLOCK_BYTES = 512 * 1024
_CARRIERS = {1: np.uint8, 2: np.uint16, 4: np.int32, 8: np.float64}  # types that OpenCV moves, by size


def transform(image: Image, recipe: Recipe, stored: Orientation = AS_STORED) -> tuple[Image, PixelCounts]:
    """Return the image that `recipe` makes of `image` (rows, columns), and its pixel counts.

    `stored` is what the file's orientation tag asks for, before the recipe.
    """
    turning = Turning(image, recipe, stored)
    return turning.whole(), turning.counts()


class Turning:
    """One image on its way through a recipe.

    `shape` (rows, columns) and `pixel_type` are the output's; `counts` is complete once `blocks` is exhausted.
    """

    def __init__(self, image: Image, recipe: Recipe, stored: Orientation = AS_STORED) -> None:
        """`stored` is what the file's orientation tag asks for, before the recipe."""
        rows, columns = image.shape
        self._orientation = stored.then(Orientation.of(recipe))
        self.shape = self._orientation.shape((rows, columns))
        source = image.dtype.newbyteorder("=")
        self.pixel_type = np.dtype(recipe.pixel_type) if recipe.pixel_type else source
        self._image = image
        self._pixels = PixelConverter(
            source, self.pixel_type, rounding=recipe.rounding, invalid_value=recipe.invalid_value
        )

    def counts(self) -> PixelCounts:
        """Return how many pixels the conversion of the pixel type had to touch."""
        return self._pixels.counts()

    def forget(self) -> None:
        """Let go of the image; shape, pixel type and counts stay."""
        self._image = np.empty((0, 0), self._image.dtype)

    def whole(self) -> Image:
        """Return the whole output."""
        result = np.empty(self.shape, self.pixel_type)
        row = 0
        for block in self.blocks():
            result[row : row + len(block)] = block
            row += len(block)
        return result

    def blocks(self) -> Iterator[Image]:
        """Yield the output in blocks of whole rows, from the top, each C-contiguous."""
        rows, columns = self.shape
        height = max(1, _BLOCK_BYTES // (columns * self._image.itemsize))
        for start in range(0, rows, height):
            stop = min(start + height, rows)
            yield self._pixels.convert(self._gather(start, stop))

    def _gather(self, start: int, stop: int) -> Image:
        """Return the output rows `start` to `stop` in the source's type, as a C-contiguous array of their own."""
        turn = self._orientation
        rows = self.shape[0]
        first, last = (rows - stop, rows - start) if turn.reverse_rows else (start, stop)
        if turn.transpose:
            block = _native(self._image[:, first:last])
            turned = cv2.transpose(block)
        else:
            turned = _native(self._image[first:last])
        if turn.reverse_rows or turn.reverse_columns:
            axes = -1 if turn.reverse_rows and turn.reverse_columns else int(turn.reverse_columns)
            turned = cv2.flip(turned, axes)
        elif not turn.transpose:
            turned = turned.copy()
        result: Image = turned.view(self._image.dtype.newbyteorder("="))
        return result


def _native(part: Image) -> np.ndarray[Any, Any]:
    """Return a part of an image in a form that OpenCV takes: native bytes, rows of adjacent pixels, a type it moves."""
    native = part.astype(part.dtype.newbyteorder("="), copy=False)
    if native.strides[1] != native.itemsize or native.strides[0] < 0:
        native = np.ascontiguousarray(native)
    return native.view(_CARRIERS[native.itemsize])
