"""Follow the links of HDF5 files, so that each file they lead to is checked against the roots before it is opened.

HDF5 would follow them by itself. A relative name is looked for beside the file that holds the link; a file with an
absolute name that is not there, beside it too, since data are copied to other places together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tango_server.conversion.errors import (
    ConversionError,
    IncompleteFileError,
    SourceUnreadableError,
    UnsupportedImageError,
)
from tango_server.conversion.hdf5.h5py_access import h5py_for, reading
from tango_server.conversion.hdf5.open_files import HDF5File, OpenFiles
from tango_server.text import printable

WAIT = "If the detector no longer writes, check what wrote the file, or copy the missing part."
NAME_IT = "Name the data set: file.h5::/path/to/data."
_MOST_STEPS = 200
_MOST_LINKS = 32
_MOST_VISITED = 10_000
_DEEPEST = 16


@dataclass(frozen=True, slots=True)
class Place:
    """An object in an open file, by a path without links to others."""

    file: HDF5File
    name: str

    @property
    def object(self) -> Any:
        """h5py's group or data set."""
        return self.file.object(self.name)

    @property
    def is_data_set(self) -> bool:
        """Whether it is a data set: groups and named types are not."""
        return isinstance(self.object, h5py_for(self.file.path).Dataset)

    @property
    def address(self) -> tuple[int, int]:
        """The same for two paths to one object."""
        with reading(self.file.path):
            return self.file.identity[0], hash(self.object.id)

    @property
    def group(self) -> "Place":
        """The group that holds it."""
        return Place(self.file, self.name.rpartition("/")[0] or "/")

    def __str__(self) -> str:
        return f"{self.file.path}::{printable(self.name)}"


def child(files: OpenFiles, place: Place, name: str) -> Place | None:
    """Return what a path below a group leads to; None if the name does not exist, or leads into something else.

    Raises
    ------
    IncompleteFileError
        if a link leads to something that is not there.
    UnsupportedImageError
        if links lead in a circle.
    OutsideRootsError
        if a link leads out of the folders that may be read.

    """
    steps, links, linked = [*reversed(_parts(name))], 0, False
    if name.startswith("/"):
        place = Place(place.file, "/")
    for _ in range(_MOST_STEPS):
        if not steps:
            return place
        step = steps.pop()
        link = _link(place, step)
        if link is None:
            if not linked:
                return None
            raise IncompleteFileError(
                place.file.path, f"a link leads to {_below(place, step)}, which is not there", WAIT
            )
        h5py = h5py_for(place.file.path)
        if isinstance(link, h5py.HardLink):
            place = Place(place.file, _below(place, step))
            continue
        links, linked = links + 1, True
        if links > _MOST_LINKS:
            break
        steps += reversed(_parts(link.path))
        if isinstance(link, h5py.ExternalLink):
            place = Place(_linked_file(files, place.file, link.filename), "/")
        elif link.path.startswith("/"):
            place = Place(place.file, "/")
    raise UnsupportedImageError(
        place.file.path, f"the links of {printable(name)} lead in a circle", "Check what wrote this file."
    )


def linked_path(files: OpenFiles, file: HDF5File, name: str) -> Path:
    """Return the path of the file that another one names, checked against the roots.

    Raises
    ------
    IncompleteFileError
        if it is not there.
    OutsideRootsError
        if it is outside the folders that may be read.

    """
    if not name or "\0" in name:
        raise SourceUnreadableError(file.path, "a link names no file", "Check what wrote this file.")
    written = Path(name)
    beside = [file.named.parent / written, file.path.parent / written]
    if written.is_absolute():
        beside = [written, file.named.parent / written.name, file.path.parent / written.name]
    for path in dict.fromkeys(beside):
        resolved = files.roots.named.source(path)
        if resolved.is_file():
            return path
    raise IncompleteFileError(file.named, f"the file {printable(name)} that it links to is missing", WAIT)


def visit(files: OpenFiles, top: Place) -> Iterator[Place]:
    """Yield all data sets that can be reached, each once, in the order of their names; skip links that lead nowhere.

    Raises
    ------
    UnsupportedImageError
        if there are too many objects.

    """
    seen: set[tuple[int, int]] = set()
    waiting, visited = [(top, 0)], 0
    while waiting:
        place, depth = waiting.pop()
        visited += 1
        if visited > _MOST_VISITED:
            raise UnsupportedImageError(
                top.file.named,
                f"it has more than {_MOST_VISITED} objects",
                "Name the data set: file.h5::/path/to/data.",
            )
        if place.address in seen:
            continue
        seen.add(place.address)
        if place.is_data_set:
            yield place
        elif depth < _DEEPEST:
            reached = (_reachable(files, place, name) for name in reversed(names_of(place)))
            waiting += [(each, depth + 1) for each in reached if each]


def names_of(place: Place, most: int = _MOST_VISITED) -> list[str]:
    """Return the names in a group, up to a limit; none of what is no group."""
    found = place.object
    if not isinstance(found, h5py_for(place.file.path).Group):
        return []
    with reading(place.file.path, f"the names in {place.name} cannot be read"):
        return [name for name, _ in zip(found, range(most), strict=False)]


def _reachable(files: OpenFiles, place: Place, name: str) -> Place | None:
    try:
        found = child(files, place, name)
        if found:
            _ = found.address
    except ConversionError:
        return None
    return found


def _link(place: Place, name: str) -> Any:
    """Return the link of a group with this name; None if it has none, or is no group."""
    group = place.object
    if not isinstance(group, h5py_for(place.file.path).Group):
        return None
    with reading(place.file.path, f"the link {_below(place, name)} cannot be read"):
        return group.get(name, getlink=True)


def _linked_file(files: OpenFiles, file: HDF5File, name: str) -> HDF5File:
    return files.open(linked_path(files, file, name))


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in {"", "."}]


def _below(place: Place, name: str) -> str:
    return f"{place.name.rstrip('/')}/{name}"
