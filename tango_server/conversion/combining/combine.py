"""Combine frames that are read one after the other, in bounded memory, and cast the result."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.combining.bands import combined_band
from tango_server.conversion.combining.streaming import Combined, Streaming, combined_values, with_unusable
from tango_server.conversion.esperanto.padding import FILL
from tango_server.conversion.image.buffers import Workspace
from tango_server.conversion.image.correction import NO_PIXELS, Indices
from tango_server.conversion.image.orientation import AS_STORED, Orientation
from tango_server.conversion.image.pixels import Image, PixelConverter
from tango_server.conversion.image.transform import OutputImage, Turning, output_type
from tango_server.messages import PixelCounts
from tango_server.recipe import Recipe
from tango_server.recipe.combine import Method

BAND_BYTES = 256 * 2**20
"""Memory for the rows of all frames of which a median is computed at a time."""
_BAND_BY_ROWS = 64 * 2**20
"""Bytes; no smaller since all files are opened for each, no larger since its memory is kept for the next group."""
_BLOCK_PIXELS = 2**17
_TOGETHER_BYTES = 12
"""Of a pixel in frames that are read together: with the result, which has 8, less than three frames of float64."""
_SHORT = 2  # bytes of integers of which 32 bits hold the sum of MOST_MEMBERS

Parts = Iterator[tuple[int, Combined]]
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
    shape: rows and columns of what is read
    kind: the native pixel type after the corrections
    read: yields them in their order, at most a number of them at a time, to be changed; valid until the next ones
    by_rows: whether some rows can be read without the rest

    """

    count: int
    shape: tuple[int, int]
    kind: np.dtype[Any]
    read: Callable[[int], Iterable[Sequence[Turning]]]
    by_rows: bool = False


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

    def parts(self, frames: Frames, on_progress: OnProgress, workspace: Workspace) -> Parts:
        """Yield the combination of frames in parts of whole rows, with the first row of each; valid until the next.

        Raises
        ------
        InexactPixelsError
            if it cannot be computed exactly from 64-bit integers.
        ConversionError
            what `frames.read` raises.
        """
        by_bands = self.method in {"median", "sigma_clip"}
        return (self._by_bands if by_bands else self._streamed)(frames, on_progress, workspace)

    def of(self, frames: Frames, on_progress: OnProgress = no_progress, workspace: Workspace | None = None) -> Combined:
        """Return the combination of frames, in memory of the workspace; raises as `parts` does."""
        memory = workspace or Workspace()
        values: Image | None = None
        masked: NDArray[np.bool_] | None = None
        for start, part in self.parts(frames, on_progress, memory):
            if len(part.values) == frames.shape[0]:
                return part
            if values is None:
                values = memory.array("whole", frames.shape, part.values.dtype)
            rows = slice(start, start + len(part.values))
            values[rows] = part.values
            if part.masked is not None:
                masked = np.zeros(frames.shape, np.bool_) if masked is None else masked
                masked[rows] = part.masked
        if values is None:
            raise ValueError("no frames")
        return Combined(values, masked)

    def _streamed(
        self, frames: Frames, on_progress: OnProgress, workspace: Workspace
    ) -> Iterator[tuple[int, Combined]]:
        rows, columns = frames.shape
        begin = partial(Streaming, self.method, kind=frames.kind, workspace=workspace, strict=self.strict)
        whole: Streaming | None = None
        done = 0
        for together in frames.read(max(1, _TOGETHER_BYTES // frames.kind.itemsize)):
            if done == 0 and len(together) < frames.count:
                whole = begin(shape=frames.shape)
            step = together[0].block_rows
            for start in range(0, rows, step):  # of all frames, so that the result stays in the processor's cache
                wanted = slice(start, min(start + step, rows))
                result, first = (begin(shape=(wanted.stop - start, columns)), start) if whole is None else (whole, 0)
                for number, frame in enumerate(together, done):
                    for place, block, masked in frame.corrected(wanted, in_place=True):
                        result.add(number, place - first, block, masked)
                if whole is None:
                    yield start, result.result()
            done += len(together)
            on_progress(done, frames.count)
        if whole is not None:
            yield 0, whole.result()

    def _by_bands(
        self, frames: Frames, on_progress: OnProgress, workspace: Workspace
    ) -> Iterator[tuple[int, Combined]]:
        (rows, columns), sigma = frames.shape, self.sigma if self.method == "sigma_clip" else None
        kind = np.dtype(np.float32) if frames.kind == np.float16 else frames.kind
        most = min(self.band_bytes, _BAND_BY_ROWS) if frames.by_rows else self.band_bytes
        height = min(rows, max(1, most // (frames.count * columns * kind.itemsize)))
        starts = range(0, rows, height)
        memory = workspace.array("band", (frames.count, height, columns), kind)
        read = 0
        for start in starts:
            band = memory[:, : min(height, rows - start)]
            marks: list[Indices] = []
            for part, frame in zip(band, (each for group in frames.read(1) for each in group), strict=True):
                marks.append(_read_rows(frame, slice(start, start + len(part)), part))
                read += 1
                on_progress(read, frames.count * len(starts))
            values = combined_band(band, marks, sigma)
            if self.strict:
                values.reshape(-1)[np.concatenate(marks)] = np.nan
            yield start, Combined(values)


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
    """A combination that becomes an output, once.

    Parameters
    ----------
    combination, frames: what is combined, and how
    orientation: of the output relative to the combination
    recipe, pixel_type: how it is cast
    overexposed: returns the number of such pixels after the last block, None if it is unknown

    """

    is_corrected = True

    def __init__(
        self,
        combination: Combination,
        frames: Frames,
        orientation: Orientation,
        recipe: Recipe,
        pixel_type: np.dtype[Any],
        *,
        overexposed: Callable[[], int | None] = lambda: None,
        on_progress: OnProgress = no_progress,
        workspace: Workspace | None = None,
    ) -> None:
        self.shape = orientation.shape(frames.shape)
        self.pixel_type = pixel_type
        self._orientation = orientation
        self._overexposed = overexposed
        self._shape = frames.shape
        self._workspace = workspace or Workspace()
        self._parts = partial(combination.parts, frames, on_progress, self._workspace)
        self._pixels = PixelConverter(
            combined_values(combination.method, frames.kind),
            pixel_type,
            rounding=recipe.rounding,
            invalid_value=recipe.invalid_value,
            reserved=None if recipe.esperanto is None else FILL,
            totals=recipe.makes_maps,
        )

    def counts(self) -> PixelCounts:
        """Return the counts of the combination, which are not those of its members."""
        return self._pixels.counts().model_copy(update={"overexposed": self._overexposed()})

    def blocks(self) -> Iterator[Image]:
        """Yield the output in blocks of whole rows; turned after the cast, since its pixels are smaller then."""
        cast = (block for _, part in self._parts() for block in self._cast(part))
        if self._orientation == AS_STORED:
            yield from cast
            return
        whole = self._workspace.array("whole", self._shape, self.pixel_type)
        row = 0
        for block in cast:
            whole[row : row + len(block)] = block
            row += len(block)
        turning = Turning(whole, Recipe(), self._orientation)
        for _, block, _ in turning.corrected(slice(0, turning.shape[0]), in_place=True):
            yield block

    def _cast(self, part: Combined) -> Iterator[Image]:
        height = max(1, _BLOCK_PIXELS // part.values.shape[1])
        for start in range(0, len(part.values), height):
            rows = slice(start, start + height)
            masked = NO_PIXELS if part.masked is None else np.flatnonzero(part.masked[rows])
            yield self._pixels.convert_masked(part.values[rows], masked)


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
