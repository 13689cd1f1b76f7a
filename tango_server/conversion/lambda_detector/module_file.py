"""The file of one module: its frames, and what it states beside them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.errors import IncompleteFileError, UnsupportedImageError
from tango_server.conversion.hdf5.h5py_access import reading
from tango_server.conversion.hdf5.links import WAIT, Place, child
from tango_server.conversion.hdf5.open_files import HDF5File, OpenFiles
from tango_server.conversion.hdf5.pixels import read_regions
from tango_server.conversion.hdf5.stack import Stack, stack_of
from tango_server.conversion.hdf5.storage import require_written
from tango_server.conversion.hdf5.values import numbers, text, unit
from tango_server.conversion.hdf5.virtual import Region, regions_of
from tango_server.units import UnknownUnitError, in_unit

DETECTOR = "/entry/instrument/detector"
DATA = f"{DETECTOR}/data"
_TRANSLATION = "translation/distance"
_STACK = 3  # dimensions: frames, rows, columns


@dataclass(frozen=True, slots=True, eq=False)
class ModuleFile:
    """The open file of one module, among the `files` that are read for one frame."""

    files: OpenFiles
    opened: HDF5File

    @property
    def path(self) -> Path:
        """The path of the file, as it was given."""
        return self.opened.named

    def frames(self) -> Stack:
        """Return the frames.

        Raises
        ------
        IncompleteFileError
            if the file has none yet.
        UnsupportedImageError
            if what it has are no frames.

        """
        known: Stack | None = self.opened.notes.get(DATA)
        if known:
            return known
        place = child(self.files, self._detector, "data")
        if place is None:
            raise IncompleteFileError(self.path, f"it has no {DATA} yet", WAIT)
        stack = stack_of(place)
        shape = place.object.shape
        if len(shape) != _STACK:
            raise self.unfit(f"{DATA} has the shape {shape}, not frames of rows and columns")
        self.opened.notes[DATA] = stack
        return stack

    def regions(self, index: int, top: int = 0, left: int = 0) -> list[Region]:
        """Return where the pixels of a frame are stored, to be placed at `top`, `left`; raise as `Stack.at` does."""
        stack = self.frames()
        whole = Region(stack.place, stack.at(index), (0, stack.rows), (0, stack.columns), top, left)
        return regions_of(self.files, whole)

    def require_frame(self, index: int) -> bool:
        """Raise unless a frame may be written; return whether that is proven. See `require_written`."""
        written = [require_written(self.files, each) for each in self.regions(index)]
        return all(written)

    def mask(self) -> NDArray[np.bool_] | None:
        """Return the module's own mask, True where any bit of `pixel_mask` is set; None if it has none.

        Raises
        ------
        IncompleteFileError
            if it is not written yet.
        UnsupportedImageError
            if it does not fit the module.

        """
        place, frames = child(self.files, self._detector, "pixel_mask"), self.frames()
        if place is None:
            return None
        found = stack_of(place)
        fits = (found.frames, found.rows, found.columns) == (1, frames.rows, frames.columns)
        if not fits or found.pixel_type.kind == "f":
            raise self.unfit(f"its pixel_mask has the type {found.pixel_type} and the shape {place.object.shape}")
        regions = regions_of(self.files, Region(place, found.at(0), (0, found.rows), (0, found.columns)))
        for each in regions:
            require_written(self.files, each)
        image: NDArray[Any] = np.empty((found.rows, found.columns), found.pixel_type)
        read_regions(self.files, regions, image)
        masked: NDArray[np.bool_] = image != 0
        return masked

    def translation(self) -> tuple[float, float] | None:
        """Return x and y of the module's first pixel in pixels; None if they are not stated yet.

        Raises
        ------
        UnsupportedImageError
            if they are in another unit, or no two or three numbers.

        """
        place = child(self.files, self._detector, _TRANSLATION)
        if place is None or not place.is_data_set:
            return None
        with reading(self.path, f"{_TRANSLATION} cannot be read"):
            found = place.object
            elsewhere = found.is_virtual or found.external
            if not elsewhere and not found.id.get_storage_size():  # HDF5 would give zeros
                return None
        values = numbers(self.files, self._detector, _TRANSLATION)
        stated = unit(self.files, self._detector, _TRANSLATION) or "pixel"
        if values.size not in {2, 3}:
            raise self.unfit(f"{_TRANSLATION} is not x, y, z")
        try:
            x, y = (in_unit(float(value), stated, "px") for value in values[:2])
        except UnknownUnitError:
            raise self.unfit(f"{_TRANSLATION} is in {stated!r}, not in pixels") from None
        return x, y

    def is_lambda(self) -> bool:
        """Whether the file says that it is of a Lambda."""
        return "lambda" in self.text("description").lower()

    def text(self, name: str) -> str:
        """Return a text that describes the detector; empty without it."""
        return text(self.files, self._detector, name)

    def number(self, name: str, wanted: str = "", default: str = "", index: int = 0) -> float | None:
        """Return a number that describes the detector, in the unit `wanted`; None if it is not stated in such a unit.

        `default` is the unit of a value without one; without a default such a value is not stated.
        """
        values = numbers(self.files, self._detector, name)
        if not index < values.size:
            return None
        try:
            return in_unit(float(values[index]), unit(self.files, self._detector, name) or default, wanted)
        except UnknownUnitError:
            return None

    def unfit(self, problem: str) -> UnsupportedImageError:
        """Return the error for a file that can never be converted."""
        return UnsupportedImageError(self.path, problem, "Check what wrote this file.")

    @property
    def _detector(self) -> Place:
        """The group that describes the detector."""
        known: Place | None = self.opened.notes.get(DETECTOR)
        if known is None:
            known = child(self.files, Place(self.opened, "/"), DETECTOR)
            if known is None:
                raise IncompleteFileError(self.path, f"it has no {DETECTOR} yet", WAIT)
            self.opened.notes[DETECTOR] = known
        return known
