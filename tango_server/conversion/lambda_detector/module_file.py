"""The file of one module: which data sets it has, and whether they are written.

Every value of a Lambda's file is an array of one element, of later ones a scalar; both are read.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.errors import IncompleteFileError, SourceUnreadableError, UnsupportedImageError
from tango_server.conversion.hdf5.library import h5py_for, reading
from tango_server.conversion.hdf5.open_files import HDF5File
from tango_server.units import UnknownUnitError, in_unit

DETECTOR = "/entry/instrument/detector"
DATA = f"{DETECTOR}/data"
_LARGEST_MODULE = 2**28  # pixels
_LONGEST_TEXT = 10_000  # bytes
_MOST_VALUES = 16
_WAITING = "If it is no longer being written, check what wrote it."


@dataclass(frozen=True, slots=True)
class ModuleFile:
    """An open file of one module. `path` is that of the request, `opened` the file."""

    path: Path
    opened: HDF5File

    def frames(self) -> Any:
        """Return the data set of the frames: (frames, rows, columns), numbers.

        Raises
        ------
        IncompleteFileError
            if the file has none yet.
        UnsupportedImageError
            if it has another shape or type.

        """
        data = self.dataset("data")
        if data is None:
            raise IncompleteFileError(self.path, f"it has no {DATA} yet", _WAITING)
        with reading(self.path):
            shape, kind = data.shape, data.dtype
        if shape is None or len(shape) != 3 or 0 in shape[1:] or kind.kind not in "iuf" or kind.itemsize > 8:  # noqa: PLR2004
            raise self.unfit(f"{DATA} has the type {kind} and the shape {shape}, not frames of rows and columns")
        if shape[1] * shape[2] > _LARGEST_MODULE:
            raise self.unfit(f"{DATA} has the shape {shape}: no module is that large")
        return data

    def is_lambda(self) -> bool:
        """Whether the file says that it is of a Lambda."""
        return "lambda" in self.text("description").lower()

    def number(self, name: str, wanted: str = "", default: str = "") -> float | None:
        """Return the value of a data set in the unit `wanted`; None if it does not state a number in such a unit.

        `default` is the unit of a value without one; without a default such a value is not stated.
        """
        values = self.numbers(name)
        if values is None or values.size != 1:
            return None
        unit = self._unit(name) or default
        try:
            return in_unit(float(values.flat[0]), unit, wanted)
        except UnknownUnitError:
            return None

    def translation(self) -> tuple[float, float] | None:
        """Return x and y of the module's first pixel in pixels; None if there are none yet.

        Raises
        ------
        UnsupportedImageError
            if they are in another unit, or no two or three numbers.

        """
        name = "translation/distance"
        if not self._is_written(name):
            return None
        values, unit = self.numbers(name), self._unit(name) or "pixel"
        if values is None or values.size not in {2, 3}:
            raise self.unfit(f"{DETECTOR}/{name} is not x, y, z")
        try:
            x, y = (in_unit(float(value), unit, "px") for value in values.flat[:2])
        except UnknownUnitError:
            raise self.unfit(f"{DETECTOR}/{name} is in {unit!r}, not in pixels") from None
        return x, y

    def mask(self, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
        """Return the module's own mask, True where any bit of `pixel_mask` is set; None if it has none.

        Raises
        ------
        IncompleteFileError
            if it is not written yet.
        UnsupportedImageError
            if it does not fit the module.

        """
        found = self.dataset("pixel_mask")
        if found is None:
            return None
        with reading(self.path, f"{DETECTOR}/pixel_mask cannot be read"):
            if found.shape not in {shape, (1, *shape)} or found.dtype.kind not in "iub":
                raise self.unfit(f"its pixel_mask has the type {found.dtype} and the shape {found.shape}")
            if stored_bytes(found, (0,) * (found.ndim - 2)) is None:
                raise IncompleteFileError(self.path, "its pixel_mask is not written yet", _WAITING)
            masked: NDArray[np.bool_] = found[()].reshape(shape) != 0
        return masked

    def numbers(self, name: str) -> NDArray[Any] | None:
        """Return a few numbers; None if there is no such data set, nothing was written to it, or other things."""
        if not self._is_written(name):
            return None
        found = self.dataset(name)
        with reading(self.path, f"{DETECTOR}/{name} cannot be read"):
            if found.shape is None or found.dtype.kind not in "iuf" or not 0 < found.size <= _MOST_VALUES:
                return None
            return np.asarray(found[()])

    def text(self, name: str) -> str:
        """Return a text; empty if there is no such data set, or it has something else."""
        found = self.dataset(name)
        if found is None:
            return ""
        h5py = h5py_for(self.path)
        with reading(self.path, f"{DETECTOR}/{name} cannot be read"):
            if h5py.check_string_dtype(found.dtype) is None or found.shape is None or found.size != 1:
                return ""
            if found.dtype.itemsize > _LONGEST_TEXT:
                return ""
            value = np.asarray(found[()]).reshape(-1)[0]
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

    def dataset(self, name: str) -> Any:
        """Return a data set of the detector; None if there is none.

        Raises
        ------
        SourceUnreadableError
            if its values are not in this file: modules hold their own, and what a link leads to may be out of reach.

        """
        path = f"{DETECTOR}/{name}"
        h5py = h5py_for(self.path)
        with reading(self.path, f"{path} cannot be read"):
            if path not in self.opened.datasets and not self._is_inside(path):
                return None
            found = self.opened.object(path)
            if not isinstance(found, h5py.Dataset):
                return None
            if found.is_virtual or found.external:
                raise self._elsewhere(path)
            return found

    def unfit(self, problem: str) -> UnsupportedImageError:
        """Return the error for a file that can never be converted."""
        return UnsupportedImageError(self.path, problem, "Check what wrote this file.")

    def _is_written(self, name: str) -> bool:
        found = self.dataset(name)
        with reading(self.path, f"{DETECTOR}/{name} cannot be read"):
            return found is not None and found.id.get_storage_size() > 0

    def _is_inside(self, path: str) -> bool:
        h5py = h5py_for(self.path)
        place = self.opened.file
        for name in path.split("/")[1:]:
            if not isinstance(place, h5py.Group) or name not in place:
                return False
            if not isinstance(place.get(name, getlink=True), h5py.HardLink):
                raise self._elsewhere(path)
            place = place[name]
        return True

    def _elsewhere(self, path: str) -> SourceUnreadableError:
        return SourceUnreadableError(
            self.path, f"{path} is a link or a virtual data set, not the module's own", "Check what wrote this file."
        )

    def _unit(self, name: str) -> str:
        with reading(self.path, f"the units of {DETECTOR}/{name} cannot be read"):
            stated = np.asarray(self.dataset(name).attrs.get("units", "")).reshape(-1)
        unit = stated[0] if stated.size == 1 else ""
        return unit.decode(errors="replace") if isinstance(unit, bytes) else str(unit)


def stored_bytes(data: Any, start: tuple[int, ...]) -> int | None:
    """Return the bytes in the file of the image at the indices `start`; None if a part of it was never written.

    What is not stored in chunks counts as written once it has a place in the file, which proves nothing.
    """
    rows, columns = data.shape[-2:]
    if data.chunks is None:
        return rows * columns * data.dtype.itemsize if data.id.get_storage_size() else None
    *depths, height, width = data.chunks
    corner = tuple(index - index % depth for index, depth in zip(start, depths, strict=True))
    total = 0
    for row, column in product(range(0, rows, height), range(0, columns, width)):
        chunk = data.id.get_chunk_info_by_coord((*corner, row, column))
        if chunk.byte_offset is None or not chunk.size:
            return None
        total += chunk.size
    return total
