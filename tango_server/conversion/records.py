"""The provenance of our outputs, read from files of either format."""

from pathlib import Path

from tango_server.conversion.errors import OutsideRootsError, SourceError
from tango_server.conversion.esperanto.header import is_header
from tango_server.conversion.esperanto.reading import read_header
from tango_server.conversion.esperanto.record import provenance_in
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.files.sandbox import open_file
from tango_server.conversion.provenance import Provenance, origin_of
from tango_server.conversion.tiff.parser import read_structure, reading
from tango_server.conversion.tiff.record import read_provenance


def record_of(path: Path, roots: Roots = ANYWHERE) -> Provenance | None:
    """Return the provenance of a file that we wrote, None for every other file.

    Raises
    ------
    SourceError
        if it is missing, unreadable, or a damaged ESPERANTO frame.
    OutsideRootsError
        if there are read roots, and it is outside them.

    """
    if is_esperanto(path, roots):
        return provenance_in(read_header(path, roots).history)
    return read_provenance(read_structure(path, roots))


def is_esperanto(path: Path, roots: Roots = ANYWHERE) -> bool:
    """Return whether a file begins as an ESPERANTO frame; raises as `record_of` does."""
    with reading(path), open_file(path, roots.read) as file:
        return is_header(file.read(64))


def is_placeholder_of(source: FrameLocation, output: Path, roots: Roots = ANYWHERE) -> bool:
    """Whether the file at `output` is a placeholder for `source`; False if it cannot be read.

    With write roots, `output` is a resolved path below them; symbolic links are not followed.
    """
    try:
        provenance = record_of(output, roots.outputs)
    except (SourceError, OutsideRootsError):
        return False
    return provenance is not None and provenance.stands_for(origin_of(source, output))
