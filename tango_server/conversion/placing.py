"""Which name an output takes if there is a file of that name already."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

from tango_server.conversion.beneath import is_taken
from tango_server.conversion.errors import ConversionError, OutputExistsError, OutsideRootsError, SourceError
from tango_server.conversion.paths import Roots
from tango_server.conversion.provenance import Provenance, origin_of, read_provenance
from tango_server.conversion.structure import read_structure
from tango_server.recipe import NewFile


def place(target: Path, output: NewFile, source: Path, roots: Roots) -> tuple[Path, bool, str]:
    """Return where to write, whether a file there is to be replaced, and the reason to skip instead (empty: none)."""
    if not is_taken(target, roots.write):
        return target, False, ""
    provenance, unreadable = _provenance_of(target, roots)
    ours = provenance is not None and provenance.origin == origin_of(source, target)
    if ours and provenance is not None and provenance.placeholder:  # no frame: the real one replaces it in any case
        return target, True, ""
    if output.on_existing == "skip":
        return target, False, f"{target} exists already"
    if output.on_existing == "number":
        return _numbered(target, roots), False, ""
    found = "a file that is there already"
    if output.on_existing == "replace_own":
        if unreadable is not None:
            raise unreadable
        if ours:
            return target, True, ""
        found = "a file that this program did not write"
        if provenance is not None:
            found = f"a file that was made from another source, called {provenance.source}"
    raise OutputExistsError(
        target,
        found,
        "a free name, or an earlier output of the same source",
        'Move it away, or give the recipe another folder or template, or on_existing="number" or "skip".',
    )


def _provenance_of(target: Path, roots: Roots) -> tuple[Provenance | None, ConversionError | None]:
    """Return what a file says of itself, or why it can't be asked."""
    try:
        return read_provenance(read_structure(target, roots.outputs)), None
    except (SourceError, OutsideRootsError) as error:
        return None, error


def _numbered(output: Path, roots: Roots) -> Path:
    return _name(output, sum(1 for _ in taken_names(output, roots)))


def taken_names(output: Path, roots: Roots) -> Iterator[Path]:
    """Yield the existing files that have the output's name, or that name with a number, in the order of the numbers."""
    for number in count():
        path = _name(output, number)
        if not is_taken(path, roots.write):
            return
        yield path


def _name(output: Path, number: int) -> Path:
    return output.with_name(f"{output.stem}-{number:05d}{output.suffix}") if number else output
