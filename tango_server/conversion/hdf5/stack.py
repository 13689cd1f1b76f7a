"""The frames of one data set: how many there are, and where one of them is.

Two dimensions are one frame, three a stack of frames. Four are (row, column, y, x) of a grid scan, row by row, if the
attribute `axes` names what the first two are, unless it calls the second one a threshold or channel; those, and Eiger's
(frame, threshold, y, x), need a threshold, counted from 0, that is named behind the data set: `/entry/data/data[:,1]`.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from tango_server.conversion.errors import IncompleteFileError, UnsupportedImageError
from tango_server.conversion.hdf5.h5py_access import h5py_for, reading
from tango_server.conversion.hdf5.links import WAIT, Place
from tango_server.text import counted, printable

LARGEST_FRAME = 2**31
"""Bytes of a frame, or of a chunk that holds several."""
MOST_FRAMES = 10_000_000
_LONGEST_SIDE = 65_536
_THRESHOLD = re.compile(r"\[ *: *, *(\d{1,4}) *\]$")
_EIGER = re.compile(r"data_\d{6}$")
_NUMBERS = {"u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"}
_ONE, _STACK, _GRID = 2, 3, 4  # dimensions


def split_threshold(data_set: str) -> tuple[str, int | None]:
    """Return the path of a data set, and the threshold that is named behind it.

    >>> split_threshold("/entry/data/data[:,1]"), split_threshold("/entry/data/data")
    (('/entry/data/data', 1), ('/entry/data/data', None))
    """
    found = _THRESHOLD.search(data_set)
    return (data_set[: found.start()], int(found[1])) if found else (data_set, None)


@dataclass(frozen=True, slots=True)
class Stack:
    """The frames of a data set.

    Parameters
    ----------
    place: the data set
    lead: its dimensions before those of a frame, without that of the threshold
    rows, columns: of a frame
    pixel_type: as stored
    threshold: index in the second dimension; None if that is no threshold
    grows: whether frames may still be added

    """

    place: Place
    lead: tuple[int, ...]
    rows: int
    columns: int
    pixel_type: np.dtype[Any]
    threshold: int | None
    grows: bool

    @property
    def frames(self) -> int:
        """Their number."""
        return math.prod(self.lead)

    def at(self, frame: int) -> tuple[int, ...]:
        """Return the index of a frame in all dimensions before its own.

        Raises
        ------
        IncompleteFileError
            if there is no such frame, yet.

        """
        if not 0 <= frame < self.frames:
            raise IncompleteFileError(
                self.place.file.named, f"{self.place.name} has only {counted(self.frames, 'frame')}", WAIT
            )
        index = tuple(int(each) for each in np.unravel_index(frame, self.lead)) if self.lead else ()
        return index if self.threshold is None else (*index, self.threshold)


def stack_of(place: Place, threshold: int | None = None, axes: tuple[str, ...] = ()) -> Stack:
    """Return the frames of a data set, whose dimensions its group may name `axes`.

    Raises
    ------
    UnsupportedImageError
        if its type or its dimensions are not those of frames.

    """
    with reading(place.file.path, f"{place.name} cannot be read"):
        shape, pixel_type, most = place.object.shape, place.object.dtype, place.object.maxshape
    _require_numbers(place, pixel_type)
    if shape is None or len(shape) < _ONE:
        raise _unsupported(place, f"has {len(shape or ())} dimensions: an image has two", "Name another data set.")
    rows, columns = shape[-2:]
    _require_bounded(place, rows, columns, pixel_type)
    lead, chosen = _lead(place, shape, threshold, axes)
    if math.prod(lead) > MOST_FRAMES:
        raise _unsupported(place, f"has more than {MOST_FRAMES} frames", "Check what wrote this file.")
    grows = any(limit is None or limit > side for limit, side in zip(most[:-2], shape[:-2], strict=True))
    return Stack(place, lead, rows, columns, pixel_type, chosen, grows)


def is_image_like(place: Place) -> bool:
    """Whether a data set has numbers in at least two dimensions."""
    with reading(place.file.path):
        shape, pixel_type = place.object.shape, place.object.dtype
    return shape is not None and len(shape) >= _ONE and min(shape[-2:]) > 1 and pixel_type.str[1:] in _NUMBERS


def _lead(
    place: Place, shape: tuple[int, ...], threshold: int | None, axes: tuple[str, ...]
) -> tuple[tuple[int, ...], int | None]:
    """Return the dimensions of the frames without that of the threshold, and the threshold."""
    named = axes if len(axes) == len(shape) else ()
    if len(shape) > _GRID:
        raise _unsupported(place, f"has {len(shape)} dimensions: at most four are supported", "Name another one.")
    if len(shape) < _GRID:
        if threshold is not None:
            raise _unsupported(place, "has no thresholds", "Leave out the index behind the data set.")
        return shape[:-2], None
    of_threshold = any(word in named[1].lower() for word in ("threshold", "channel")) if named else True
    if not of_threshold and threshold is None:
        return shape[:-2], None
    if threshold is None and shape[1] == 1:
        threshold = 0
    if threshold is None and (named or _EIGER.search(place.name)):
        raise _unsupported(
            place, f"has {shape[1]} thresholds: name one", 'Add its index, counted from 0: ".../data[:,0]".'
        )
    if threshold is None:
        what = f"has four dimensions {shape}, and no attribute that says what they are"
        raise _unsupported(place, what, 'Add an index of the second one, counted from 0: ".../data[:,0]".')
    if threshold >= shape[1]:
        raise _unsupported(place, f"has only {counted(shape[1], 'threshold')}", "Name another one, counted from 0.")
    return shape[:1], threshold


def _require_numbers(place: Place, pixel_type: np.dtype[Any]) -> None:
    if pixel_type.str[1:] not in _NUMBERS or h5py_for(place.file.path).check_enum_dtype(pixel_type) is not None:
        what = f"holds {printable(str(pixel_type))}: only integers and floats of up to 64 bits are pixels"
        raise _unsupported(place, what, "Name another data set.")


def _require_bounded(place: Place, rows: int, columns: int, pixel_type: np.dtype[Any]) -> None:
    size = rows * columns * pixel_type.itemsize
    if max(rows, columns) > _LONGEST_SIDE or size > LARGEST_FRAME:
        what = f"has frames of {rows} x {columns} pixels: at most {_LONGEST_SIDE} a side and 2 GiB are supported"
        raise _unsupported(place, what, "Check what wrote this file.")
    if not size:
        raise _unsupported(place, f"has frames of {rows} x {columns} pixels", "Check what wrote this file.")
    with reading(place.file.path):
        chunk = place.object.chunks
    if chunk and math.prod(chunk) * pixel_type.itemsize > LARGEST_FRAME:
        raise _unsupported(place, f"has chunks of {chunk} pixels: more than 2 GiB each", "Check what wrote this file.")


def _unsupported(place: Place, problem: str, advice: str) -> UnsupportedImageError:
    return UnsupportedImageError(place.file.named, f"{printable(place.name)} {problem}", advice)
