"""Where the pixels of a frame are stored: in its own data set, or in the sources of a virtual one.

HDF5 reads what is missing of a virtual data set as zeros, without an error, so its mappings are followed here.
`Region`s are what remains: rows and columns of one index in a data set that is not virtual.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tango_server.conversion.errors import IncompleteFileError, SourceUnreadableError, UnsupportedImageError
from tango_server.conversion.hdf5.h5py_access import h5py_for, reading
from tango_server.conversion.hdf5.links import WAIT, Place, child, linked_path
from tango_server.conversion.hdf5.open_files import OpenFiles
from tango_server.text import printable

Range = tuple[int, int]
_UNLIMITED = 2**64 - 1
_DEEPEST = 6
_MOST_MAPPINGS = 100_000
_FEW = 64
_IMAGE = 2  # dimensions
_MOST_REGIONS = 10_000


@dataclass(frozen=True, slots=True)
class Region:
    """Pixels `rows` and `columns` (start, stop) of index `at` in a data set, to be placed at `top`, `left`."""

    place: Place
    at: tuple[int, ...]
    rows: Range
    columns: Range
    top: int = 0
    left: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]


@dataclass(frozen=True, slots=True)
class Axis:
    """Which indices of one dimension a mapping selects: `count` blocks (None: without end), `stride` apart."""

    start: int
    stride: int
    count: int | None
    block: int

    @property
    def length(self) -> int | None:
        """How many indices are selected; None without end."""
        return None if self.count is None else self.count * self.block

    @property
    def is_range(self) -> bool:
        """Whether they follow each other without gaps."""
        return self.count == 1 or self.stride == self.block

    def number_of(self, index: int) -> int | None:
        """Return the how manieth selected index this is; None if it is not selected."""
        block, within = divmod(index - self.start, self.stride)
        if index < self.start or within >= self.block or (self.count is not None and block >= self.count):
            return None
        return block * self.block + within

    def index_of(self, number: int) -> int:
        """Return the selected index with a number."""
        block, within = divmod(number, self.block)
        return self.start + block * self.stride + within


@dataclass(frozen=True, slots=True)
class Mapping:
    """One source of a virtual data set. `source` is None for the whole of it."""

    file: str
    data_set: str
    target: tuple[Axis, ...]
    source: tuple[Axis, ...] | None


def regions_of(files: OpenFiles, frame: Region, depth: int = 0) -> list[Region]:
    """Return where the pixels of a region are stored, in the order in which they are placed.

    Raises
    ------
    SourceUnreadableError
        if some pixels are mapped to nothing.
    IncompleteFileError
        if a source is missing or too short.
    UnsupportedImageError
        if the mappings cannot be followed.
    OutsideRootsError
        if a source is outside the folders that may be read.

    """
    with reading(frame.place.file.path):
        virtual = frame.place.object.is_virtual
    if not virtual:
        files.use(frame.place.file)
        return [frame]
    if depth > _DEEPEST:
        raise _unsupported(frame.place, "its sources are virtual again, too many times")
    files.use(frame.place.file)
    found: list[Region] = []
    covered = np.zeros(frame.shape, np.bool_)
    for mapping in _mappings(frame):
        part = _mapped(files, frame, mapping)
        if part is None:
            continue
        top, left, (rows, columns) = part.top - frame.top, part.left - frame.left, part.shape
        covered[top : top + rows, left : left + columns] = True
        found += regions_of(files, part, depth + 1)
        if len(found) > _MOST_REGIONS:
            raise _unsupported(frame.place, f"it has more than {_MOST_REGIONS} sources for one frame")
    if not covered.all():
        missing = int(covered.size - np.count_nonzero(covered))
        raise SourceUnreadableError(
            frame.place.file.named,
            f"nothing is mapped to {'' if not found else f'{missing} pixels of '}this frame of virtual data set "
            f"{printable(frame.place.name)}",
            "Check what wrote this file.",
        )
    return found


def _mapped(files: OpenFiles, frame: Region, mapping: Mapping) -> Region | None:
    """Return the part of a region that a mapping gives; None if it gives nothing of it."""
    if len(mapping.target) != len(frame.at) + _IMAGE:
        raise _unsupported(frame.place, "a mapping has other dimensions than the data set")
    *lead, of_rows, of_columns = mapping.target
    numbers: list[Range] = []
    for axis, index in zip(lead, frame.at, strict=True):
        number = axis.number_of(index)
        if number is None:
            return None
        numbers.append((number, number + 1))
    for axis, wanted in ((of_rows, frame.rows), (of_columns, frame.columns)):
        if not axis.is_range:
            raise _unsupported(frame.place, "a mapping has gaps between rows or columns")
        stop = wanted[1] if axis.length is None else min(axis.start + axis.length, wanted[1])
        numbers.append((max(axis.start, wanted[0]) - axis.start, stop - axis.start))
    if any(stop <= start for start, stop in numbers):
        return None
    place = _source(files, frame.place, mapping)
    *at, rows, columns = _in_source(frame.place, place, mapping, numbers)
    top = frame.top + numbers[-2][0] + of_rows.start - frame.rows[0]
    left = frame.left + numbers[-1][0] + of_columns.start - frame.columns[0]
    return Region(place, tuple(start for start, _ in at), rows, columns, top, left)


def _in_source(virtual: Place, place: Place, mapping: Mapping, numbers: list[Range]) -> list[Range]:
    """Return the indices of a source for numbers of selected indices in each dimension of the virtual data set.

    Dimensions of which one index is selected do not count, so that a source may have fewer or more of them.
    """
    with reading(place.file.path):
        shape = place.object.shape or ()
    axes = tuple(_axis(0, 1, 1, side) for side in shape) if mapping.source is None else mapping.source
    wanted = iter([(axis, each) for axis, each in zip(mapping.target, numbers, strict=True) if axis.length != 1])
    found: list[Range] = []
    for axis in axes:
        if axis.length == 1:
            found.append((axis.start, axis.start + 1))
            continue
        target, (start, stop) = next(wanted, (None, (0, 0)))
        fits = target is not None and (axis.length == target.length or mapping.source is None)
        if not fits or not (axis.is_range or stop == start + 1):
            raise _unsupported(virtual, "the shapes of a mapping and of its source differ")
        first = axis.index_of(start)
        found.append((first, first + stop - start))
    if next(wanted, None) is not None or len(found) != len(shape) or len(found) < _IMAGE:
        raise _unsupported(virtual, "the shapes of a mapping and of its source differ")
    if any(stop - start != 1 for start, stop in found[:-2]):
        raise _unsupported(virtual, "a mapping takes the rows of a frame from several frames")
    if any(stop > side for (_, stop), side in zip(found, shape, strict=True)):
        raise IncompleteFileError(place.file.named, f"{printable(place.name)} has only the shape {shape}", WAIT)
    return found


def _source(files: OpenFiles, virtual: Place, mapping: Mapping) -> Place:
    for each in (mapping.file, mapping.data_set):
        if "%" in each.replace("%%", ""):
            raise _unsupported(virtual, f"its sources {printable(each)} are numbered, which is not supported")
    name, data_set = (each.replace("%%", "%") for each in (mapping.file, mapping.data_set))
    file = virtual.file if name == "." else files.open(linked_path(files, virtual.file, name))
    found = child(files, Place(file, "/"), data_set)
    if found is None or not found.is_data_set:
        raise IncompleteFileError(file.named, f"no data set {printable(data_set)}", WAIT)
    return found


def _mappings(frame: Region) -> list[Mapping]:
    """Return the mappings of a virtual data set that may concern a frame, in their order; they are read once."""
    place = frame.place
    if ("mappings", place.name) not in place.file.notes:
        with reading(place.file.path, f"the mappings of {place.name} cannot be read"):
            if place.object.id.get_create_plist().get_virtual_count() > _MOST_MAPPINGS:
                raise _unsupported(place, f"it has more than {_MOST_MAPPINGS} mappings")
            sources = place.object.virtual_sources()
        place.file.notes["mappings", place.name] = _by_first_index(place, sources)
    general, of_index = place.file.notes["mappings", place.name]
    if not frame.at or frame.at[0] not in of_index:
        return [mapping for _, mapping in general]
    return [mapping for _, mapping in sorted([*general, *of_index[frame.at[0]]], key=lambda numbered: numbered[0])]


def _by_first_index(place: Place, sources: Any) -> tuple[list[Any], dict[int, list[Any]]]:
    """Return the numbered mappings that concern many frames, and by first index those that concern few."""
    general: list[Any] = []
    of_index: dict[int, list[Any]] = {}
    for number, each in enumerate(sources):
        axes, source = _axes(place, each.vspace), _axes(place, each.src_space)
        mapping = Mapping(each.file_name, each.dset_name, axes or (), source)
        first = mapping.target[0] if len(mapping.target) > _IMAGE else None
        if first is None or first.length is None or first.length > _FEW:
            general.append((number, mapping))
            continue
        for which in range(first.length):
            of_index.setdefault(first.index_of(which), []).append((number, mapping))
    return general, of_index


def _axes(place: Place, space: Any) -> tuple[Axis, ...] | None:
    """Return what a data space selects in each dimension; None for all."""
    h5py = h5py_for(place.file.path)
    kind = space.get_select_type()
    if kind == h5py.h5s.SEL_ALL:
        return tuple(_axis(0, 1, 1, side) for side in space.shape) or None
    if kind != h5py.h5s.SEL_HYPERSLABS or not space.is_regular_hyperslab():
        raise _unsupported(place, "a mapping selects no regular block")
    per_axis = zip(*space.get_regular_hyperslab(), strict=True)
    return tuple(_axis(*each) for each in per_axis)


def _axis(start: int, stride: int, count: int, block: int) -> Axis:
    if block == _UNLIMITED:
        return Axis(start, 1, None, 1)
    stride = max(stride, block, 1)  # of one block it says nothing
    return Axis(start, stride, None if count == _UNLIMITED else count, max(block, 1))


def _unsupported(place: Place, problem: str) -> UnsupportedImageError:
    what = f"cannot follow the virtual data set {printable(place.name)}: {problem}"
    return UnsupportedImageError(place.file.named, what, "Name a data set that is not virtual, or check what wrote it.")
