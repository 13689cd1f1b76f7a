"""Zero-filled frames in place of missing files, for programs that need every point of a grid."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
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
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.ownership import ownership_of
from tango_server.conversion.files.roots import ANYWHERE, NO_FIELDS, Roots
from tango_server.conversion.files.sandbox import is_taken, require_below
from tango_server.conversion.frame_header import NO_HEADER
from tango_server.conversion.image.orientation import Orientation
from tango_server.conversion.image.transform import Turning, output_type
from tango_server.conversion.provenance import describe, tiff_time
from tango_server.conversion.records import is_placeholder_of
from tango_server.conversion.sidecar import read_sidecar
from tango_server.conversion.tiff.writer import image_writer
from tango_server.messages import FrameReport
from tango_server.recipe import InPlace, Recipe

_SOURCE_TYPE = "float32"  # of QXRD's frames
_LARGEST_SIDE = 65_536
_MOST_PIXELS = 2**27  # half a gigabyte of zeros; no detector has more


def make_placeholder(
    source: FrameLocation,
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
    """Write zeros in place of the output of a missing frame, and return its report.

    The file has the layout of the recipe, and its tags mark it as a placeholder. It takes a free name, or replaces an
    earlier placeholder of the same source; it never replaces a frame, and no number is appended to its name.

    Parameters
    ----------
    source: the missing frame
    recipe: for its conversion
    shape: rows and columns of the source, before the recipe turns it
    output: path of the converted frame
    roots: the folders that may be read and written; both paths are already resolved
    reason: why the frame is missing, for the report, and for the error if there is no placeholder either
    token: part of the temporary file's name, to find what a killed process leaves
    job: the id of a server's job, for the file's provenance
    fields: run, seq_num and metadata of the frame, for formats that hold them

    Raises
    ------
    PlaceholderInPlaceError
        if the placeholder would take the place of the raw frame.
    OutputExistsError
        if there is a file that is not a placeholder of this source.
    ConversionError
        (other subclasses) if a path is outside the roots, the shape is invalid, or the file cannot be written.
    """
    started = time.perf_counter()
    if roots == ANYWHERE:
        source, output = replace(source, file=roots.frame(source.file)), roots.target(output)
    require_below(source.file, roots.read)
    stand_in = _StandIn(source, output, recipe, roots, reason, job, fields)
    stand_in.require_new_file()
    zeros = stand_in.zeros(shape)
    size = stand_in.put(zeros, shape, Attempt(token, ownership=ownership_of(recipe, source.file)))
    return FrameReport(
        source=stand_in.source.path,
        frame=stand_in.source.index,
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
    """A placeholder that is being written."""

    source: FrameLocation
    target: Path
    recipe: Recipe
    roots: Roots
    reason: str
    job: str | None
    fields: Mapping[str, object]

    def require_new_file(self) -> None:
        if isinstance(self.recipe.output, InPlace) or self.target == self.source.file:
            raise PlaceholderInPlaceError(
                self.source.file,
                f"the frame is missing ({self.reason}), and a placeholder cannot be written in place",
                'Nothing was written. Use a recipe that writes new files, or the setting on_timeout = "fail".',
            )

    def zeros(self, shape: tuple[int, int]) -> Turning:
        """Return zeros of the source's `shape` for the recipe; they take no memory yet."""
        if not all(1 <= side <= _LARGEST_SIDE for side in shape) or shape[0] * shape[1] > _MOST_PIXELS:
            raise UnsupportedImageError(
                self.source.file,
                f"cannot make a placeholder of {' x '.join(map(str, shape))} pixels for the missing frame: "
                f"the limits are {_LARGEST_SIDE} rows and columns and {_MOST_PIXELS} pixels ({self.reason})",
                "Correct placeholder_shape, or the frame's shape in the run's documents.",
            )
        zero = np.zeros((), output_type(self.recipe, np.dtype(_SOURCE_TYPE)))
        return Turning(np.broadcast_to(zero, shape), self.recipe)

    def put(self, zeros: Turning, shape: tuple[int, int], attempt: Attempt) -> int:
        """Publish the file, and return its size in bytes."""
        while True:
            self._require_no_frame()
            free = not is_taken(self.target, self.roots.write)
            try:
                return publish(self.target, self._writer(zeros, shape), replace(attempt, exclusive=free), self.roots)
            except FileExistsError:  # another process took the name: check again
                continue

    def _writer(self, zeros: Turning, shape: tuple[int, int]) -> Write:
        write = self._writer_of_format(zeros, shape, tiff_time(time.time()))

        def write_and_look(file: BinaryIO) -> None:
            write(file)
            self._require_no_frame()  # the frame may have arrived while zeros were written

        return write_and_look

    def _writer_of_format(self, zeros: Turning, shape: tuple[int, int], made: str) -> Write:
        recipe, place = self.recipe, (self.source, self.target)
        if recipe.esperanto is None:
            return image_writer(
                iter([zeros]), 1, recipe, describe(recipe, *place, placeholder=True, job=self.job), made
            )
        record = partial(history, recipe, *place, placeholder=True, job=self.job)
        sidecar, turned = read_sidecar(self.source.file, self.roots), Orientation.of(recipe)
        stated = NO_HEADER if sidecar is None else sidecar.header
        return EsperantoFrame(
            self.source.file, recipe.esperanto, self.fields, stated, turned, shape, made, record, self.roots
        ).writer(zeros)

    def _require_no_frame(self) -> None:
        target = self.target
        if is_taken(target, self.roots.write) and not is_placeholder_of(self.source, target, self.roots):
            raise OutputExistsError(
                target,
                f"this file exists and is not a placeholder for {self.source}, which is missing ({self.reason})",
                "It was left unchanged: a placeholder never replaces a frame.",
            )
