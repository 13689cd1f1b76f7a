"""Zero-filled frames in place of files that never came, for programs that need every point of a grid."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tango_server.conversion.errors import (
    OutputExistsError,
    PlaceholderInPlaceError,
    UnsupportedImageError,
)
from tango_server.conversion.esperanto.frame import EsperantoFrame
from tango_server.conversion.esperanto.padding import padded_side
from tango_server.conversion.esperanto.record import history
from tango_server.conversion.files.atomic_write import Attempt, Write, publish
from tango_server.conversion.files.ownership import ownership_of
from tango_server.conversion.files.roots import ANYWHERE, NO_FIELDS, Roots
from tango_server.conversion.files.sandbox import is_taken, require_below
from tango_server.conversion.image.orientation import Orientation
from tango_server.conversion.image.transform import Turning
from tango_server.conversion.records import is_placeholder_of
from tango_server.conversion.tiff.provenance import describe, tiff_time
from tango_server.conversion.tiff.writer import image_writer
from tango_server.messages import FrameReport
from tango_server.recipe import InPlace, Recipe

_SOURCE_TYPE = "float32"  # of QXRD's frames
_LARGEST_SIDE = 65_536
_MOST_PIXELS = 2**27  # half a gigabyte of zeros; no detector has more


def make_placeholder(
    source: Path,
    recipe: Recipe,
    shape: tuple[int, int],
    *,
    output: Path,
    roots: Roots,
    reason: str,
    token: str,
    job: str | None = None,
    fields: Mapping[str, object] = NO_FIELDS,
) -> FrameReport:
    """Write zeros where the conversion of a frame that never came would stand, and return the report of it.

    The file has the layout that the recipe asks for and says of itself that it is a placeholder. It takes a free name,
    or that of an earlier placeholder of the same source; it never replaces a frame, and no number is appended to it.

    Parameters
    ----------
    source: the file that never came
    recipe: what would have been done to it
    shape: rows and columns of the source, before the recipe turns it
    output: where its conversion would have gone
    roots: the folders that may be read and written; the paths are taken as they were resolved before
    reason: why there is no frame; it stands in the report, and in the error if there is no placeholder either
    token: names the temporary file, so that what a killed process leaves can be found
    job: the id of a server's job, for the file's own record
    fields: run, seq_num and metadata of the frame, for formats that hold them

    Raises
    ------
    PlaceholderInPlaceError
        if the placeholder would stand where the detector writes.
    OutputExistsError
        if there is a file already that is no placeholder of this source.
    ConversionError
        another of its kinds, if a path lies beyond the roots, the shape is that of no frame, or the disk refuses.
    """
    started = time.perf_counter()
    if roots == ANYWHERE:
        source, output = roots.frame(source), roots.target(output)
    require_below(source, roots.read)
    stand_in = _StandIn(source, output, recipe, roots, reason, job, fields)
    stand_in.require_new_file()
    zeros = stand_in.zeros(shape)
    size = stand_in.put(zeros, shape, Attempt(token, ownership=ownership_of(recipe, source)))
    return FrameReport(
        source=str(stand_in.source),
        output=str(stand_in.target),
        outcome="placeholder",
        reason=reason,
        shape=zeros.shape if recipe.esperanto is None else (padded_side(shape),) * 2,
        pixel_type=zeros.pixel_type.name,
        conversion_time=time.perf_counter() - started,
        finished=time.time(),
        recipe_hash=recipe.hash,
        bytes_out=size,
    )


@dataclass(frozen=True, slots=True)
class _StandIn:
    """A placeholder on its way to its name."""

    source: Path
    target: Path
    recipe: Recipe
    roots: Roots
    reason: str
    job: str | None
    fields: Mapping[str, object]

    def require_new_file(self) -> None:
        if isinstance(self.recipe.output, InPlace) or self.target == self.source:
            raise PlaceholderInPlaceError(
                self.source,
                f"its placeholder would stand where the detector writes, and the frame is missing ({self.reason})",
                "a recipe that writes new files",
                "Nothing was written. Give the recipe an output to new files, or the server on_timeout = fail.",
            )

    def zeros(self, shape: tuple[int, int]) -> Turning:
        """Return zeros of the source's `shape` on their way through the recipe; they take no memory before that."""
        if not all(1 <= side <= _LARGEST_SIDE for side in shape) or shape[0] * shape[1] > _MOST_PIXELS:
            raise UnsupportedImageError(
                self.source,
                f"a placeholder of {' x '.join(map(str, shape))} pixels was asked for ({self.reason})",
                f"1 to {_LARGEST_SIDE} rows and columns, and at most {_MOST_PIXELS} pixels",
                "Correct placeholder_shape, or what the run says of its frames.",
            )
        zero = np.zeros((), self.recipe.pixel_type or _SOURCE_TYPE)
        return Turning(np.broadcast_to(zero, shape), self.recipe)

    def put(self, zeros: Turning, shape: tuple[int, int], attempt: Attempt) -> int:
        """Let the file appear, and return its size in bytes."""
        while True:
            self._require_no_frame()
            free = not is_taken(self.target, self.roots.write)
            try:
                return publish(self.target, self._writer(zeros, shape), replace(attempt, exclusive=free), self.roots)
            except FileExistsError:  # somebody took the name meanwhile: look once more
                continue

    def _writer(self, zeros: Turning, shape: tuple[int, int]) -> Write:
        write = self._writer_of_format(zeros, shape, tiff_time(time.time()))

        def write_and_look(file: BinaryIO) -> None:
            write(file)
            self._require_no_frame()  # the real one may have come while zeros were written

        return write_and_look

    def _writer_of_format(self, zeros: Turning, shape: tuple[int, int], made: str) -> Write:
        recipe, place = self.recipe, (self.source, self.target)
        if recipe.esperanto is None:
            return image_writer(
                iter([zeros]), 1, recipe, describe(recipe, *place, placeholder=True, job=self.job), made
            )
        record = history(recipe, *place, placeholder=True, job=self.job)
        return EsperantoFrame(
            self.source, recipe.esperanto, self.fields, Orientation.of(recipe), shape, made, record, self.roots
        ).writer(zeros)

    def _require_no_frame(self) -> None:
        target = self.target
        if is_taken(target, self.roots.write) and not is_placeholder_of(self.source, target, self.roots):
            raise OutputExistsError(
                target,
                f"a file that is there already and is no placeholder for {self.source}, which is missing "
                f"({self.reason})",
                "a free name, or an earlier placeholder of the same source",
                "It was left as it is: a placeholder never replaces a frame.",
            )
