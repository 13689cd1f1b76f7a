"""Which name an output gets if a file with its name exists."""

from itertools import count
from pathlib import Path

from tango_server.conversion.errors import ConversionError, OutputExistsError, OutsideRootsError, SourceError
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.files.sandbox import is_taken
from tango_server.conversion.provenance import Provenance, origin_of
from tango_server.conversion.records import record_of
from tango_server.recipe import NewFile


def place(
    target: Path, output: NewFile, source: FrameLocation, roots: Roots, job: str | None = None
) -> tuple[Path, bool, str]:
    """Return where to write, whether to replace the file there, and the reason to skip instead (empty: none).

    The output of an earlier attempt at the same `job` is always replaced: only its report was lost.
    """
    if not is_taken(target, roots.write):
        return target, False, ""
    provenance, unreadable = _provenance_of(target, roots)
    origin = origin_of(source, target)
    ours = provenance is not None and provenance.origin == origin
    if provenance is not None and provenance.stands_for(origin):  # the frame always replaces its placeholder
        return target, True, ""
    if _is_made_by(job, provenance, source, target):
        return target, True, ""
    if output.on_existing == "skip":
        return target, False, f"{target} exists already"
    if output.on_existing == "number":
        path, own = _numbered(target, source, roots, job)
        return path, own, ""
    problem = "the output exists"
    if output.on_existing == "replace_own":
        if unreadable is not None:
            raise unreadable
        if ours:
            return target, True, ""
        problem = "the output exists and was not written by this program"
        if provenance is not None:
            problem = f"the output exists and was made from another source, {provenance.source}"
    raise OutputExistsError(
        target,
        problem,
        'Move it away, or use another folder or template, or on_existing="number" or "skip".',
    )


def _provenance_of(target: Path, roots: Roots) -> tuple[Provenance | None, ConversionError | None]:
    """Return the provenance of a file, or why it cannot be read."""
    try:
        return record_of(target, roots.outputs), None
    except (SourceError, OutsideRootsError) as error:
        return None, error


def _is_made_by(job: str | None, provenance: Provenance | None, source: FrameLocation, output: Path) -> bool:
    """Whether this job made an output; outputs without a job id, as earlier versions wrote them, do not count."""
    if job is None or provenance is None:
        return False
    return provenance.job == job and provenance.origin == origin_of(source, output)


def _numbered(target: Path, source: FrameLocation, roots: Roots, job: str | None) -> tuple[Path, bool]:
    """Return the first numbered name that is free or an output of this job, and whether it is the latter."""
    for number in count(1):
        path = target.with_name(f"{target.stem}-{number:05d}{target.suffix}")
        if not is_taken(path, roots.write):
            break
        if job is not None and _is_made_by(job, _provenance_of(path, roots)[0], source, path):
            return path, True
    return path, False
