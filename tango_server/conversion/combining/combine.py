"""Combine frames that are read one after the other, in bounded memory, and cast the result."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tango_server.conversion.combining.bands import combined_band
from tango_server.conversion.combining.streaming import Combined, Streaming, with_unusable
from tango_server.conversion.esperanto.padding import FILL
from tango_server.conversion.image.buffers import Workspace
from tango_server.conversion.image.correction import Indices
from tango_server.conversion.image.pixels import Image, PixelConverter
from tango_server.conversion.image.transform import OutputImage, Turning, output_type
from tango_server.messages import PixelCounts
from tango_server.recipe import Recipe
from tango_server.recipe.combine import Method

BAND_BYTES = 256 * 2**20
"""Memory for the rows of all frames of which a median is computed at a time."""
_BLOCK_PIXELS = 2**17
_TOGETHER_BYTES = 12
"""Of a pixel in frames that are read together: with the result, which has 8, less than three frames of float64."""
_SHORT = 2  # bytes of integers of which 32 bits hold the sum of MOST_MEMBERS

OnProgress = Callable[[int, int], None]
"""Gets how many frames were read, and how many there are to read."""


def no_progress(done: int, total: int) -> None:
    """Ignore the progress."""
    del done, total


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """The frames to combine.

    Parameters
    ----------
    count: how many there are
    shape: rows and columns after turning
    kind: the native pixel type after the corrections
    read: yields them in their order, so many together, or fewer; valid until the next ones, and may be changed

    """

    count: int
    shape: tuple[int, int]
    kind: np.dtype[Any]
    read: Callable[[int], Iterable[Sequence[Turning]]]


@dataclass(frozen=True, slots=True)
class Combination:
    """How to combine frames: see `tango_server.recipe.combine.Combine`.

    `strict`: a pixel that is masked, NaN or Inf in one frame is masked in the result, as it always is in a sum.
    `band_bytes` is for the rows of all frames that a median or sigma-clipped mean needs at a time.
    """

    method: Method
    sigma: float = 3.0
    strict: bool = False
    band_bytes: int = BAND_BYTES

    def of(self, frames: Frames, on_progress: OnProgress = no_progress, workspace: Workspace | None = None) -> Combined:
        """Return the combination of frames, in memory of the workspace.

        Raises
        ------
        InexactPixelsError
            if it cannot be computed exactly from 64-bit integers.
        ConversionError
            what `frames.read` raises.
        """
        if self.method in {"median", "sigma_clip"}:
            return self._by_bands(frames, on_progress)
        memory = workspace or Workspace()
        result = Streaming(self.method, frames.shape, frames.kind, memory, strict=self.strict)
        done = 0
        for together in frames.read(max(1, _TOGETHER_BYTES // frames.kind.itemsize)):
            step = together[0].block_rows
            for start in range(0, frames.shape[0], step):  # of all, so that the result stays in the processor's cache
                wanted = slice(start, min(start + step, frames.shape[0]))
                for number, frame in enumerate(together, done):
                    for place, block, masked in frame.corrected(wanted, in_place=True):
                        result.add(number, place, block, masked)
            done += len(together)
            on_progress(done, frames.count)
        return result.result()

    def _by_bands(self, frames: Frames, on_progress: OnProgress) -> Combined:
        (rows, columns), sigma = frames.shape, self.sigma if self.method == "sigma_clip" else None
        kind = np.dtype(np.float32) if frames.kind == np.float16 else frames.kind
        height = min(rows, max(1, self.band_bytes // (frames.count * columns * kind.itemsize)))
        starts = range(0, rows, height)
        result = np.empty((rows, columns))
        memory = np.empty((frames.count, height, columns), kind)
        read = 0
        for start in starts:
            band = memory[:, : min(height, rows - start)]
            marks: list[Indices] = []
            for part, (frame,) in zip(band, frames.read(1), strict=True):
                marks.append(_read_rows(frame, slice(start, start + len(part)), part))
                read += 1
                on_progress(read, frames.count * len(starts))
            values = combined_band(band, marks, sigma)
            if self.strict:
                values.reshape(-1)[np.concatenate(marks)] = np.nan
            result[start : start + height] = values
        return Combined(result)


def combined_type(recipe: Recipe, method: Method, source: np.dtype[Any]) -> np.dtype[Any]:
    """Return the native pixel type of the output for frames of the type `source`.

    >>> combined_type(Recipe(), "sum", np.dtype("int16")), combined_type(Recipe(), "mean", np.dtype("int16"))
    (dtype('int32'), dtype('float32'))
    """
    plain = output_type(recipe, source)
    if recipe.pixel_type or method in {"max", "min"}:
        return plain
    if method == "sum" and plain.kind != "f":  # integers of 64 bits are in no format that we write
        return np.dtype(np.float64 if plain.itemsize > _SHORT else f"{plain.kind}4")
    return np.dtype(np.float32 if plain.itemsize <= _SHORT or plain == np.float32 else np.float64)


class CombinedImage(OutputImage):
    """A combination that becomes an output; `overexposed` is the number of pixels, None if it is unknown."""

    is_corrected = True

    def __init__(self, combined: Combined, recipe: Recipe, pixel_type: np.dtype[Any], overexposed: int | None) -> None:
        self.shape = (combined.values.shape[0], combined.values.shape[1])
        self.pixel_type = pixel_type
        self._combined = combined
        self._overexposed = overexposed
        self._pixels = PixelConverter(
            combined.values.dtype,
            pixel_type,
            rounding=recipe.rounding,
            invalid_value=recipe.invalid_value,
            reserved=None if recipe.esperanto is None else FILL,
        )

    def counts(self) -> PixelCounts:
        """Return the counts of the combination, which are not those of its members."""
        return self._pixels.counts().model_copy(update={"overexposed": self._overexposed})

    def blocks(self) -> Iterator[Image]:
        """Yield the output in blocks of whole rows."""
        values, masked = self._combined.values, self._combined.masked
        rows, columns = self.shape
        height = max(1, _BLOCK_PIXELS // columns)
        for start in range(0, rows, height):
            part = slice(start, min(start + height, rows))
            places: Indices = np.empty(0, np.int64) if masked is None else np.flatnonzero(masked[part])
            yield self._pixels.convert_masked(values[part].copy(), places)


def _read_rows(frame: Turning, wanted: slice, rows: Image) -> Indices:
    """Write the `wanted` rows of a frame into `rows`, and return the positions there that are masked, NaN or Inf."""
    columns = rows.shape[1]
    found: list[Indices] = []
    for start, block, masked in frame.corrected(wanted, in_place=True):
        place = start - wanted.start
        marked = with_unusable(block, masked) if block.dtype.kind == "f" else masked
        rows[place : place + len(block)] = block
        found.append(marked + place * columns)
    return np.concatenate(found)
