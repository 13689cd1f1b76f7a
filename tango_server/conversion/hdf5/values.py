"""Small values beside the frames: attributes, and data sets of one number, one text, or one number a frame.

What cannot be read counts as not stated: a header never stops a frame.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.errors import ConversionError
from tango_server.conversion.hdf5.h5py_access import reading
from tango_server.conversion.hdf5.links import Place, child
from tango_server.conversion.hdf5.open_files import OpenFiles
from tango_server.text import printable

_MOST_NUMBERS = 1_000_000
_MOST_TEXTS = 16


def attribute(place: Place, name: str) -> tuple[str, ...]:
    """Return the texts of an attribute; numbers as texts; empty without it.

    >>> texts(np.array([b"stage", b"."])), texts("data"), texts(np.array([1]))
    (('stage', '.'), ('data',), ('1',))
    """
    try:
        with reading(place.file.path):
            return texts(place.object.attrs.get(name))
    except ConversionError:
        return ()


def texts(value: Any) -> tuple[str, ...]:
    """Return the first texts in what h5py read."""
    if value is None or type(value).__name__ == "Empty":
        return ()
    found = np.asarray(value, dtype=None if isinstance(value, np.ndarray) else object).reshape(-1)[:_MOST_TEXTS]
    return tuple(_text(each) for each in found.tolist())


def numbers(files: OpenFiles, group: Place, name: str) -> NDArray[np.float64]:
    """Return the numbers of a data set below a group; none if it is not there, too large, or no numbers."""
    found: NDArray[np.float64] = _stated(files, group, name, "numbers", np.empty(0))
    return found


def text(files: OpenFiles, group: Place, name: str) -> str:
    """Return the text of a data set below a group; empty if it is not there."""
    return str(_stated(files, group, name, "text", ""))


def unit(files: OpenFiles, group: Place, name: str) -> str:
    """Return the unit that a data set states, in lower case; empty without one."""
    return str(_stated(files, group, name, "unit", "")).lower()


def _stated(files: OpenFiles, group: Place, name: str, kind: str, without: Any) -> Any:
    key = (kind, group.name, name)
    if key not in group.file.notes:
        group.file.notes[key] = _read(files, group, name, kind, without)
    return group.file.notes[key]


def _read(files: OpenFiles, group: Place, name: str, kind: str, without: Any) -> Any:
    try:
        place = child(files, group, name)
        if place is None or not place.is_data_set:
            return without
        if kind == "unit":
            return (attribute(place, "units") or ("",))[0].strip()
        with reading(place.file.path):
            found = _content(place.object, _MOST_TEXTS if kind == "text" else _MOST_NUMBERS)
            if kind == "text":
                return (texts(found) or ("",))[0].strip()
            numeric = isinstance(found, np.ndarray | np.generic) and found.dtype.kind in "iuf"
            return np.asarray(found, np.float64).reshape(-1) if numeric else without
    except ConversionError:
        return without


def _content(data_set: Any, most: int) -> Any:
    """Return what is in a small data set; None for others, and for those for which HDF5 would open further files."""
    if data_set.shape is None or data_set.is_virtual or data_set.external or data_set.size > most:
        return None
    return data_set[()]


def _text(value: Any) -> str:
    return printable(value.decode(errors="replace") if isinstance(value, bytes) else str(value))
