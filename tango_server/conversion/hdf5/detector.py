"""The groups of a file that describe the detector, the beam and the goniometer, and whose detector it is."""

from dataclasses import dataclass

from tango_server.conversion.errors import ConversionError
from tango_server.conversion.hdf5.links import Place, child, names_of
from tango_server.conversion.hdf5.open_files import HDF5File, OpenFiles
from tango_server.conversion.hdf5.stack import Stack
from tango_server.conversion.hdf5.values import attribute, text

_DECTRIS = ("dectris", "eiger", "pilatus")
_MOST_NAMES = 100


@dataclass(frozen=True, slots=True)
class Description:
    """Where the frames of a file are described.

    Parameters
    ----------
    entry: the group of the run
    detectors: groups that may describe the detector, the likeliest first
    name: the detector's, as it states it
    dectris: whether it is one of Dectris

    """

    entry: Place
    detectors: tuple[Place, ...]
    name: str
    dectris: bool


def description_of(files: OpenFiles, file: HDF5File, data_set: str, stack: Stack) -> Description:
    """Return where a file describes the frames of a data set; `data_set` as it was named, or empty."""
    key = ("description", data_set, stack.place.file.path, stack.place.name)
    known: Description | None = file.notes.get(key)
    if known is None:
        known = file.notes[key] = _described(files, file, data_set, stack)
    return known


def group(files: OpenFiles, place: Place, name: str) -> Place | None:
    """Return the group at a path; None if there is none, or it cannot be reached. It is searched once."""
    key = ("group", place.name, name)
    if key not in place.file.notes:
        place.file.notes[key] = _group(files, place, name)
    found: Place | None = place.file.notes[key]
    return found


def _group(files: OpenFiles, place: Place, name: str) -> Place | None:
    try:
        found = child(files, place, name)
        is_group = found is not None and not found.is_data_set
    except ConversionError:
        return None
    return found if is_group else None


def _described(files: OpenFiles, file: HDF5File, data_set: str, stack: Stack) -> Description:
    top = Place(file, "/")
    names = [data_set.strip("/").partition("/")[0], "entry"]
    names += [name for name in names_of(top, _MOST_NAMES) if name.startswith("entry")]
    entries = [each for name in names if name and (each := group(files, top, name))]
    entry = next((each for each in entries if group(files, each, "instrument")), entries[0] if entries else top)
    detectors = _detectors(files, entry)
    if stack.place.group not in detectors:
        detectors.append(stack.place.group)
    stated = [text(files, each, name) for each in detectors for name in ("description", "local_name", "model", "Model")]
    name = next(filter(None, stated), "")
    dectris = any(word in each.lower() for each in stated for word in _DECTRIS)
    return Description(entry, tuple(detectors), name, dectris or bool(attribute(stack.place, "image_nr_low")))


def _detectors(files: OpenFiles, entry: Place) -> list[Place]:
    instrument = group(files, entry, "instrument")
    found = [group(files, instrument, "detector")] if instrument else []
    if instrument and not any(found):
        inside = [each for name in names_of(instrument, _MOST_NAMES) if (each := group(files, instrument, name))]
        named = [each for each in inside if attribute(each, "NX_class") == ("NXdetector",)]
        found += named if len(named) == 1 else []
    found += [group(files, entry, "detector"), group(files, entry, "data")]
    return [each for each in found if each]
