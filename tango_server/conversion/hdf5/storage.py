"""Whether pixels were written, as far as the file itself can prove it.

A chunk gets its address when it is written. Contiguous data, and chunks that were allocated when the data set was
created, have one before that: only the stillness of the file is left. The same holds for a chunk of several frames
until the next one is written, for further frames may still be added to it.
"""

import itertools
import math
import os
from collections.abc import Iterator
from typing import Any

from tango_server.conversion.errors import IncompleteFileError, UnsupportedImageError
from tango_server.conversion.hdf5.h5py_access import h5py_for, reading
from tango_server.conversion.hdf5.links import WAIT, linked_path
from tango_server.conversion.hdf5.open_files import OpenFiles
from tango_server.conversion.hdf5.stack import Stack
from tango_server.conversion.hdf5.virtual import Region
from tango_server.text import printable

_MOST_CHUNKS = 1_000_000
_BUILT_IN = frozenset({1, 2, 3, 5, 6})
"""Filters that HDF5 itself has: deflate, shuffle, fletcher32, nbit, scale-offset. Szip (4) may be missing."""


def require_written(files: OpenFiles, region: Region) -> bool:
    """Raise unless the pixels of a region may be written; return whether that is proven.

    Raises
    ------
    IncompleteFileError
        if they are not written yet, or lie behind the end of the file.
    UnsupportedImageError
        if a filter to read them is missing.
    OutsideRootsError
        if their storage is outside the folders that may be read.

    """
    place = region.place
    with reading(place.file.path, f"the layout of {place.name} cannot be read"):
        data_set = place.object
        layout = data_set.id.get_create_plist()
        kind = layout.get_layout()
    h5d = h5py_for(place.file.path).h5d
    if kind == h5d.CHUNKED:
        _require_filters(region, layout)
        with reading(place.file.path, f"the chunks of {place.name} cannot be read"):
            _require_chunks(region, data_set)
            return bool(layout.get_alloc_time() != h5d.ALLOC_TIME_EARLY) and _is_closed(region, data_set)
    if external_storage(region):
        _require_external(files, region)
    elif kind == h5d.CONTIGUOUS:
        _require_contiguous(region, data_set)
    return False


def require_all_written(files: OpenFiles, stack: Stack) -> bool:
    """Raise unless all frames of a data set that is not virtual may be written, as `require_written` does."""
    if not stack.frames:
        return False
    last = Region(stack.place, stack.at(stack.frames - 1), (0, stack.rows), (0, stack.columns))
    proven = require_written(files, last)
    data_set, name = stack.place.object, printable(stack.place.name)
    if not data_set.chunks:
        return False
    expected = math.prod(-(-side // chunk) for side, chunk in zip(data_set.shape, data_set.chunks, strict=True))
    ends: list[int] = []

    def note(chunk: Any) -> None:
        if chunk.byte_offset is not None and chunk.size:
            ends.append(chunk.byte_offset + chunk.size)

    with reading(stack.place.file.path, f"the chunks of {name} cannot be read"):
        data_set.id.chunk_iter(note)
    if len(ends) < expected:
        lacking = expected - len(ends)
        what = f"{lacking} of {expected} chunks of {name} {'was' if lacking == 1 else 'were'} never written"
        raise IncompleteFileError(stack.place.file.named, what, WAIT)
    if max(ends) > stack.place.file.size:
        raise IncompleteFileError(stack.place.file.named, f"chunks of {name} lie behind the end of the file", WAIT)
    return proven


def external_storage(region: Region) -> list[tuple[str, int, int]]:
    """Return the files that hold the data set of a region outside of its own file: name, offset, size."""
    with reading(region.place.file.path):
        return [(os.fsdecode(name), offset, size) for name, offset, size in region.place.object.external or ()]


def is_stored_as_in_numpy(data_set: Any) -> bool:
    """Whether numpy's type has no padding bits, so that the stored bytes can be read without HDF5."""
    kind = data_set.id.get_type()  # of some, such as bool, there is no precision
    return bool(getattr(kind, "get_precision", int)() == 8 * data_set.dtype.itemsize)


def byte_range(region: Region, data_set: Any) -> tuple[int, int]:
    """Return the first and last byte of the rows of a region in contiguous data."""
    rows, columns = data_set.shape[-2:]
    frame = 0
    for index, side in zip(region.at, data_set.shape, strict=False):
        frame = frame * side + index
    first = (frame * rows + region.rows[0]) * columns * data_set.dtype.itemsize
    return first, first + (region.rows[1] - region.rows[0]) * columns * data_set.dtype.itemsize


def _require_chunks(region: Region, data_set: Any) -> None:
    name, size = printable(region.place.name), region.place.file.size
    for corner in corners_of(region, data_set.chunks):
        chunk = data_set.id.get_chunk_info_by_coord(corner)
        if chunk.byte_offset is None or not chunk.size:
            raise IncompleteFileError(region.place.file.named, f"the chunk {corner} of {name} was never written", WAIT)
        if chunk.byte_offset + chunk.size > size:
            raise IncompleteFileError(
                region.place.file.named, f"the chunk {corner} of {name} lies behind the end of the file", WAIT
            )


def corners_of(region: Region, chunk: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the first index of each chunk that cuts a region."""
    spans = [(index, index + 1) for index in region.at] + [region.rows, region.columns]
    starts = [range(start - start % side, stop, side) for (start, stop), side in zip(spans, chunk, strict=True)]
    if math.prod(map(len, starts)) > _MOST_CHUNKS:
        what = f"{printable(region.place.name)} has more than {_MOST_CHUNKS} chunks a frame"
        raise UnsupportedImageError(region.place.file.named, what, "Check what wrote this file.")
    return itertools.product(*starts)


def _is_closed(region: Region, data_set: Any) -> bool:
    """Whether no other frames may still be written to the chunks of a region, since the next one is there.

    The number of frames does not tell: a writer may make room for a whole chunk before it has its frames.
    """
    lead = data_set.chunks[:-2]
    if all(side == 1 for side in lead):
        return True
    corner = next(corners_of(region, data_set.chunks))
    for axis, (side, length, limit) in enumerate(zip(lead, data_set.shape, data_set.maxshape, strict=False)):
        following = tuple(first + side if place == axis else first for place, first in enumerate(corner))
        if (limit is None or limit > length) and following[axis] < length:
            return data_set.id.get_chunk_info_by_coord(following).byte_offset is not None
    return False


def _require_filters(region: Region, layout: Any) -> None:
    h5z = h5py_for(region.place.file.path).h5z
    with reading(region.place.file.path, f"the filters of {region.place.name} cannot be read"):
        filters = [layout.get_filter(number) for number in range(layout.get_nfilters())]
    for code, _, _, name in filters:
        if code not in _BUILT_IN and not h5z.filter_avail(code):
            raise UnsupportedImageError(
                region.place.file.named,
                f"{printable(region.place.name)} needs the HDF5 filter {code} "
                f"({printable(os.fsdecode(name)) or 'without a name'}), which is not installed",
                "Install its plugin and set HDF5_PLUGIN_PATH, or upgrade hdf5plugin.",
            )


def _require_contiguous(region: Region, data_set: Any) -> None:
    place = region.place
    with reading(place.file.path):
        offset, (_, end) = data_set.id.get_offset(), byte_range(region, data_set)
    if offset is None:
        raise IncompleteFileError(place.file.named, f"nothing of {printable(place.name)} was written", WAIT)
    if offset + end > place.file.size:
        raise IncompleteFileError(
            place.file.named, f"the pixels of {printable(place.name)} lie behind the end of the file", WAIT
        )


def _require_external(files: OpenFiles, region: Region) -> None:
    """Raise unless all raw storage is inside of the roots, and there as far as the region needs it."""
    place = region.place
    with reading(place.file.path):
        first, end = byte_range(region, place.object)
    begun = 0
    for name, offset, size in external_storage(region):
        path = linked_path(files, place.file, name)
        with files.raw(path) as raw:
            held = os.fstat(raw.fileno()).st_size - offset
        needed = min(end - begun, size)
        if begun + size > first and needed > held:
            raise IncompleteFileError(path, f"it is too short for {printable(place.name)}", WAIT)
        begun += size
    if begun < end:
        raise IncompleteFileError(place.file.named, f"the raw files of {printable(place.name)} are too short", WAIT)
