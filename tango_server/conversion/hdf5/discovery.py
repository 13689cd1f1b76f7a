"""Find the frames in an HDF5 file.

The first rule that applies counts:

1. the data set that is named, or the frames below a group that is named, by the rules 2 to 6;
2. NeXus: what the attributes `default` lead to and the attribute `signal` names (of a group, or of a data set itself);
3. Eiger: the links `data_000001`, `data_000002`, ... in the same group, or in `/entry/data`, one after the other;
4. areaDetector, ophyd-async: the data set `data` in the same group, or in `/entry/data`;
5. `/exchange/data`;
6. the only data set of numbers with at least two dimensions, masks and flat fields aside.

Several candidates for the last rule are refused, with their names.
"""

import re

from tango_server.conversion.errors import ConversionError, IncompleteFileError, UnsupportedImageError
from tango_server.conversion.hdf5.links import NAME_IT, WAIT, Place, child, names_of, visit
from tango_server.conversion.hdf5.open_files import HDF5File, OpenFiles
from tango_server.conversion.hdf5.series import Series, series_in
from tango_server.conversion.hdf5.stack import Stack, is_image_like, split_threshold, stack_of
from tango_server.conversion.hdf5.values import attribute
from tango_server.text import printable

_OF_EIGER = re.compile(r"data_\d{6}$")
_NO_FRAMES = frozenset({"pixel_mask", "flatfield", "flatfield_error", "mask", "bad_pixel_map", "angular_calibration"})
_MOST_LISTED = 10
_LONGEST_WAY = 10

Found = Stack | Series


def find_frames(files: OpenFiles, file: HDF5File, data_set: str) -> Found | None:
    """Return the frames in a file, of the data set if one is named; None if it has no image.

    Raises
    ------
    UnsupportedImageError
        if several data sets may be meant, or the one is no stack of frames.
    IncompleteFileError
        if the named data set is not there, or a link leads to something that is not there.
    OutsideRootsError
        if a link leads out of the folders that may be read.

    """
    name, threshold = split_threshold(data_set)
    place = child(files, Place(file, "/"), name)
    if place is None:
        raise IncompleteFileError(file.named, f"it has no data set {printable(name)}", WAIT)
    if place.is_data_set:
        return _stack(place, _group_of(files, file, name), threshold)
    return _below(files, place, threshold, whole=not name.strip("/"))


def _below(files: OpenFiles, top: Place, threshold: int | None, *, whole: bool) -> Found | None:
    """Return the frames below a group, which may be the `whole` file."""
    nexus = _default(files, top)
    for group in [nexus, *([_child(files, top, "entry/data")] if whole else [])]:
        found = None if group is None else _in_group(files, group, threshold)
        if found:
            return found
    place = child(files, top, "exchange/data") if whole else None
    if place and place.is_data_set and is_image_like(place):
        return _stack(place, place.group, threshold)
    return _only(files, top, threshold)


def _in_group(files: OpenFiles, group: Place, threshold: int | None) -> Found | None:
    """Return the frames in a group by the rules 2 to 4."""
    signal = (attribute(group, "signal") or ("",))[0]
    if signal and not _OF_EIGER.match(signal):
        place = child(files, group, signal)
        if place and place.is_data_set and is_image_like(place):
            return _stack(place, group, threshold)
    names = tuple(sorted(name for name in names_of(group) if _OF_EIGER.match(name)))
    if names:
        return series_in(files, group, names, threshold)
    place = child(files, group, "data")
    if place and place.is_data_set and is_image_like(place):
        return _stack(place, group, threshold)
    marked = [each for each in _data_sets(files, group) if attribute(each, "signal")[:1] == ("1",)]
    return _stack(marked[0], group, threshold) if len(marked) == 1 else None


def _default(files: OpenFiles, top: Place) -> Place | None:
    """Return the group that the attributes `default` lead to."""
    place: Place | None = top
    for _ in range(_LONGEST_WAY):
        name = attribute(place, "default") if place else ()
        if not place or not name or place.is_data_set:
            return place
        following = _child(files, place, name[0])
        if following is None:
            return place
        place = following
    return place


def _only(files: OpenFiles, top: Place, threshold: int | None) -> Stack | None:
    candidates = [
        place for place in visit(files, top) if place.name.rpartition("/")[2] not in _NO_FRAMES and is_image_like(place)
    ]
    if not candidates:
        return None
    if len(candidates) > 1:
        names = [printable(place.name) for place in candidates[:_MOST_LISTED]]
        more = "" if len(candidates) <= _MOST_LISTED else f" and {len(candidates) - _MOST_LISTED} more"
        what = f"any of {len(candidates)} data sets may be meant: {', '.join(names)}{more}"
        raise UnsupportedImageError(top.file.named, what, NAME_IT)
    return _stack(candidates[0], candidates[0].group, threshold)


def _stack(place: Place, group: Place | None, threshold: int | None) -> Stack:
    axes = attribute(place, "axes") or (attribute(group, "axes") if group else ())
    if len(axes) == 1:
        axes = tuple(re.split("[:,]", axes[0].strip("[]")))
    return stack_of(place, threshold, axes)


def _group_of(files: OpenFiles, file: HDF5File, name: str) -> Place | None:
    return _child(files, Place(file, "/"), name.rstrip("/").rpartition("/")[0])


def _data_sets(files: OpenFiles, group: Place) -> list[Place]:
    found = (_child(files, group, name) for name in names_of(group))
    return [place for place in found if place and place.is_data_set and is_image_like(place)]


def _child(files: OpenFiles, place: Place, name: str) -> Place | None:
    try:
        return child(files, place, name)
    except ConversionError:
        return None
