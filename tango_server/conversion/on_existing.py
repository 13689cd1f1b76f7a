"""Which name an output takes if there is a file of that name already."""

from itertools import count
from pathlib import Path

from tango_server.conversion.errors import ConversionError, OutputExistsError, OutsideRootsError, SourceError
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.files.sandbox import is_taken
from tango_server.conversion.records import record_of
from tango_server.conversion.tiff.provenance import Provenance, origin_of
from tango_server.recipe import NewFile


def place(target: Path, output: NewFile, source: Path, roots: Roots, job: str | None = None) -> tuple[Path, bool, str]:
    """Return where to write, whether a file there is to be replaced, and the reason to skip instead (empty: none).

    What an earlier attempt at the same `job` wrote is replaced whatever `on_existing` says: only its report was lost.
    """
    if not is_taken(target, roots.write):
        return target, False, ""
    provenance, unreadable = _provenance_of(target, roots)
    ours = provenance is not None and provenance.origin == origin_of(source, target)
    if ours and provenance is not None and provenance.placeholder:  # no frame: the real one replaces it in any case
        return target, True, ""
    if _is_made_by(job, provenance, source, target):
        return target, True, ""
    if output.on_existing == "skip":
        return target, False, f"{target} exists already"
    if output.on_existing == "number":
        path, own = _numbered(target, source, roots, job)
        return path, own, ""
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
        return record_of(target, roots.outputs), None
    except (SourceError, OutsideRootsError) as error:
        return None, error


def _is_made_by(job: str | None, provenance: Provenance | None, source: Path, output: Path) -> bool:
    """Whether an output was made by this job; one without the id of a job, as earlier versions wrote it, was not."""
    if job is None or provenance is None:
        return False
    return provenance.job == job and provenance.origin == origin_of(source, output)


def _numbered(target: Path, source: Path, roots: Roots, job: str | None) -> tuple[Path, bool]:
    """Return the first free name with a number, or that of an output of this job, and whether it is the latter."""
    for number in count(1):
        path = target.with_name(f"{target.stem}-{number:05d}{target.suffix}")
        if not is_taken(path, roots.write):
            break
        if job is not None and _is_made_by(job, _provenance_of(path, roots)[0], source, path):
            return path, True
    return path, False
