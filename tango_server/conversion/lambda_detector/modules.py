"""The files of a detector's modules, found by name beside the one that a location names."""

from dataclasses import dataclass, replace
from pathlib import Path

from tango_server.conversion.errors import UnsupportedImageError
from tango_server.conversion.files.folder import Folder
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.files.sandbox import open_folder
from tango_server.conversion.files.series_names import ModuleName, module_of
from tango_server.conversion.hdf5.h5py_access import reading

_LONGEST_GAP = 8
"""The search ends after this number of missing modules: listing a large folder for each frame takes longer."""
_HIGHEST = 99


@dataclass(frozen=True, slots=True)
class ModuleFiles:
    """The modules of a detector for one part of a series.

    Parameters
    ----------
    there: their files by number of the module, ascending
    missing: the names of those that must come
    own: the number of the module that the location names
    counted: whether the settings say how many there are; else one that comes late is not missed

    """

    there: dict[int, Path]
    missing: tuple[str, ...]
    own: int
    counted: bool

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are there, the first module first."""
        return tuple(self.there.values())

    @property
    def is_first(self) -> bool:
        """Whether the location names the module whose frames are counted."""
        return self.own == min(self.there)


def module_files(location: FrameLocation, roots: Roots, modules: int | None) -> ModuleFiles:
    """Return the modules beside the one at a location; `modules`: how many there are, if the settings say so.

    Raises
    ------
    UnsupportedImageError
        if there are more than that, or the name is none of a module.
    SourceUnreadableError
        if the folder cannot be searched.
    OutsideRootsError
        if a folder of the path has become a symbolic link.

    """
    file = location.file
    own = module_of(file.name)
    if own is None:
        raise UnsupportedImageError(file, "its name is none of a Lambda's module", "Name it like scan_m1.nxs.")
    with reading(file, "its folder cannot be searched"), open_folder(file.parent, roots.read) as folder:
        there = _there(own, file, folder, modules or 0)
        highest = modules or max({*there, *_of_the_first_part(own, file, folder)})
    if modules is not None and max(there) > modules:
        raise UnsupportedImageError(
            there[max(there)],
            f"it is module {max(there)} of a detector that has {modules} by the settings",
            "Correct the number of modules in the settings.",
        )
    missing = tuple(own.beside(number)[0] for number in range(1, highest + 1) if number not in there)
    return ModuleFiles(there, missing, own.number, counted=modules is not None)


def _of_the_first_part(own: ModuleName, file: Path, folder: Folder) -> dict[int, Path]:
    """Return the modules in the first part of a series: none of them may be missing in a later one."""
    if not own.part.strip("0"):
        return {}
    first = replace(own, rest=own.rest.replace(own.part, "0" * len(own.part), 1))
    return _there(first, file, folder, 0)


def _there(own: ModuleName, file: Path, folder: Folder, expected: int) -> dict[int, Path]:
    found: dict[int, Path] = {}
    highest = max(own.number, expected)
    number = 1
    while number <= min(highest + _LONGEST_GAP, _HIGHEST):
        for name in own.beside(number):
            if name == file.name or folder.has(name):
                found[number] = file.with_name(name) if number != own.number else file
                highest = max(highest, number)
                break
        number += 1
    return found
