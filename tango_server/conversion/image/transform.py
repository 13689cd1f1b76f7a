"""Array to array, block by block: each block of output rows is gathered, turned and cast while it is in the cache."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.image.buffers import Workspace
from tango_server.conversion.image.correction import NO_PIXELS, Correcting, Correction, Indices
from tango_server.conversion.image.orientation import AS_STORED, Orientation
from tango_server.conversion.image.pixels import Image, PixelConverter
from tango_server.conversion.image.repair import Repaired, repaired
from tango_server.messages import PixelCounts
from tango_server.recipe import Recipe

_BLOCK_BYTES = 2 * 2**20  # large enough to read long pieces of rows, small enough for a processor's last cache
_CORRECTED_PIXELS = 2**17  # dark and flat have to fit into the cache, too
_CARRIERS = {1: np.uint8, 2: np.uint16, 4: np.int32, 8: np.float64}  # types that OpenCV moves, by size


def transform(
    image: Image, recipe: Recipe, stored: Orientation = AS_STORED, correction: Correction | None = None
) -> tuple[Image, PixelCounts]:
    """Return `image` (rows, columns) converted by `recipe`, and its pixel counts.

    `stored` is the orientation by the file's tag, applied before the recipe.
    """
    turning = Turning(image, recipe, stored, correction=correction)
    return turning.whole(), turning.counts()


def output_type(recipe: Recipe, source: np.dtype[Any]) -> np.dtype[Any]:
    """Return the native pixel type of the output of a source.

    >>> output_type(Recipe(corrections={"dark": "run"}), np.dtype("uint16"))
    dtype('float32')
    """
    native = source.newbyteorder("=")
    if recipe.pixel_type:
        return np.dtype(recipe.pixel_type)
    if recipe.corrections is None or not recipe.corrections.changes_values:
        return native
    exact = native.itemsize < 4 or native == np.float32  # noqa: PLR2004 - bytes
    return np.dtype(np.float32 if exact else np.float64)


class OutputImage(ABC):
    """One image of an output, computed block by block.

    `shape` (rows, columns) and `pixel_type` are the output's; `counts` is complete once `blocks` is exhausted.
    """

    shape: tuple[int, int]
    pixel_type: np.dtype[Any]
    is_corrected: bool
    """Whether masks were applied, too."""

    @property
    def size(self) -> int:
        """Bytes of the output's pixels."""
        return self.shape[0] * self.shape[1] * self.pixel_type.itemsize

    @abstractmethod
    def blocks(self) -> Iterator[Image]:
        """Yield the output in blocks of whole rows, from the top, each C-contiguous and valid until the next."""

    @abstractmethod
    def counts(self) -> PixelCounts:
        """Return how many pixels the conversion of the pixel type changed."""

    def whole(self) -> Image:
        """Return the whole output."""
        result = np.empty(self.shape, self.pixel_type)
        row = 0
        for block in self.blocks():
            result[row : row + len(block)] = block
            row += len(block)
        return result


class Turning(OutputImage):
    """One image that a recipe converts."""

    def __init__(
        self,
        image: Image,
        recipe: Recipe,
        stored: Orientation = AS_STORED,
        workspace: Workspace | None = None,
        correction: Correction | None = None,
        *,
        overexposed: NDArray[np.bool_] | None = None,
        rows: Callable[[slice], Image] | None = None,
    ) -> None:
        """`stored` is the orientation by the file's tag, applied before the recipe; `workspace` is memory to reuse.

        `correction` was prepared for this image, `stored` and the recipe; `overexposed`, of the output's shape, gets
        the pixels that are. `rows` reads rows of the image, which then only has shape and type; where the output has
        the same rows, and none is repaired.
        """
        self._workspace = workspace or Workspace()
        height, width = image.shape
        self._orientation = stored.then(Orientation.of(recipe))
        self.shape = self._orientation.shape((height, width))
        source = image.dtype.newbyteorder("=")
        self.pixel_type = output_type(recipe, source)
        self._image = image
        self._rows = rows or image.__getitem__
        self._correction = correction
        self._correcting: Correcting | None = None
        if correction is not None:
            self._correcting = Correcting(
                correction, _repaired(image, self._orientation, correction), self._workspace, overexposed
            )
            source = correction.work or source
        self.is_corrected = correction is not None and correction.marks
        self._pixels = PixelConverter(
            source,
            self.pixel_type,
            rounding=recipe.rounding,
            invalid_value=recipe.invalid_value,
            workspace=self._workspace,
            reserved=None if correction is None else correction.reserved,
            totals=recipe.makes_maps,
        )

    def counts(self) -> PixelCounts:
        """Return how many pixels the conversion of the pixel type changed, and how many are overexposed."""
        counts = self._pixels.counts()
        if self._correcting is None:
            return counts
        return counts.model_copy(update={"overexposed": self._correcting.overexposed})

    def forget(self) -> None:
        """Release the image; shape, pixel type and counts stay."""
        self._image = np.empty((0, 0), self._image.dtype)
        self._rows = self._image.__getitem__

    def blocks(self) -> Iterator[Image]:
        """Yield the output in blocks of whole rows."""
        for _, block, masked in self.corrected(slice(0, self.shape[0])):
            yield self._pixels.convert_masked(block, masked) if self.is_corrected else self._pixels.convert(block)

    def corrected(self, wanted: slice, *, in_place: bool = False) -> Iterator[tuple[int, Image, Indices]]:
        """Yield the `wanted` rows of the output in blocks, corrected but not yet cast.

        Of each: its first row, its pixels, which may be changed, and the positions of masked ones; until the next.
        `in_place` allows to change the image itself, which saves a copy.
        """
        height = min(self.block_rows, wanted.stop - wanted.start)
        for start in range(wanted.start, wanted.stop, height):
            stop = min(start + height, wanted.stop)
            block = self._gather(start, stop, in_place=in_place)
            if self._correcting is None:
                yield start, block, NO_PIXELS
            else:
                yield start, *self._correcting.apply(block, start)

    @property
    def block_rows(self) -> int:
        """The number of rows in a block."""
        pixels = _BLOCK_BYTES // self._image.itemsize
        if self._correcting is not None:
            pixels = min(pixels, _CORRECTED_PIXELS)
        return max(1, pixels // self.shape[1])

    def _gather(self, start: int, stop: int, *, in_place: bool) -> Image:
        """Return the output rows `start` to `stop` in the source's type.

        Rows that need no turning are returned as they are, if they may be changed or their correction does not do so.
        """
        turn = self._orientation
        rows, columns = self.shape
        first, last = (rows - stop, rows - start) if turn.reverse_rows else (start, stop)
        turned = _native(self._image[:, first:last] if turn.transpose else self._rows(slice(first, last)))
        kept = in_place or (self._correction is not None and self._correction.work is not None)
        if turn != AS_STORED or not kept:
            buffers = self._workspace.array("gathered", (2, stop - start, columns), turned.dtype)
            if turn.transpose:
                turned = cv2.transpose(turned, dst=buffers[0])
            if turn.reverse_rows or turn.reverse_columns:
                axes = -1 if turn.reverse_rows and turn.reverse_columns else int(turn.reverse_columns)
                turned = cv2.flip(turned, axes, dst=buffers[1])
            elif not turn.transpose:
                np.copyto(buffers[0], turned)
                turned = buffers[0]
        result: Image = turned.view(self._image.dtype.newbyteorder("="))
        return result


def added_counts(turnings: Sequence[OutputImage]) -> PixelCounts:
    """Return the counts of all pages together."""
    counts = [turning.counts() for turning in turnings]
    lows = [count.minimum for count in counts if count.minimum is not None]
    highs = [count.maximum for count in counts if count.maximum is not None]
    totals = [count.total for count in counts if count.total is not None]
    over = [count.overexposed for count in counts if count.overexposed is not None]
    return PixelCounts(
        nan=sum(count.nan for count in counts),
        saturated_low=sum(count.saturated_low for count in counts),
        saturated_high=sum(count.saturated_high for count in counts),
        negative=sum(count.negative for count in counts),
        minimum=min(lows, default=None),
        maximum=max(highs, default=None),
        masked=sum(count.masked for count in counts),
        overexposed=sum(over) if over else None,
        total=sum(totals) if totals else None,
    )


def _native(part: Image) -> np.ndarray[Any, Any]:
    """Return a part of an image for OpenCV: native byte order, rows of adjacent pixels, a supported type."""
    native = part.astype(part.dtype.newbyteorder("="), copy=False)
    if native.strides[1] != native.itemsize or native.strides[0] < 0:
        native = np.ascontiguousarray(native)
    return native.view(_CARRIERS[native.itemsize])


def _repaired(image: Image, orientation: Orientation, correction: Correction) -> Repaired | None:
    """Return the values of the pixels that a correction repairs."""
    if not correction.repair:
        return None
    turned = orientation.apply(image)
    masked = np.zeros(turned.shape, np.bool_)
    masked.reshape(-1)[correction.masked] = True
    masked |= correction.marked_in(turned)
    if image.dtype.kind == "f":
        masked |= ~np.isfinite(turned)
    return repaired(masked, lambda rows, columns: correction.values(turned[rows, columns], rows, columns))
