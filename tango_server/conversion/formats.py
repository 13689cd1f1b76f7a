"""The formats of frames, each by its suffix or first bytes: only TIFF until the registry replaces this."""

from pathlib import Path

from tango_server.conversion.errors import NotATiffError
from tango_server.conversion.file_state import FileState
from tango_server.conversion.files.frame_file import open_frame_file
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.sidecar import is_expected
from tango_server.conversion.tiff.parser import read_structure

FRAME_SUFFIXES = (".tif", ".tiff")


def check_file(location: FrameLocation, roots: Roots = ANYWHERE) -> FileState:
    """Return the state of a file, or of one frame in it; raise `SourceError` or `OutsideRootsError`."""
    structure = read_structure(location.file, roots)
    if structure.state == "not_tiff":
        raise NotATiffError(location.file, f"not a TIFF file: {structure.problem}", "Check what wrote this file.")
    proven = structure.ifd_last and structure.state == "complete"
    return FileState(
        structure.state,
        structure.problem,
        structure.size,
        structure.mtime_ns,
        structure.inode,
        proof="the directory follows the pixels" if proven else "",
        sidecar_expected=is_expected(structure),
    )


def needs_own_process(path: Path, roots: Roots) -> bool:
    """Whether a file can crash its reader: HDF5."""
    with open_frame_file(path, roots) as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"
