"""Outputs of a group that has lost members since: the one without them has another name, or there is none."""

from collections.abc import Iterable
from pathlib import Path

from tango_server.conversion.errors import ConversionError, OutsideRootsError, SourceError
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.files.sandbox import is_taken, open_folder
from tango_server.conversion.records import record_of
from tango_server.conversion.sidecar import sidecar_path


def withdraw(paths: Iterable[Path], roots: Roots, job: str | None) -> str:
    """Remove those of these files, with their sidecars, that `job` has combined; return why one could not be removed.

    All paths must be resolved.
    """
    try:
        for path in paths:
            if job is not None and is_taken(path, roots.write) and _is_of(path, roots, job):
                with open_folder(path.parent, roots.write) as folder:
                    for name in (path.name, sidecar_path(path).name):
                        folder.remove(name)
    except (OSError, ConversionError) as error:
        return f"The earlier output could not be removed ({error})."
    return ""


def _is_of(path: Path, roots: Roots, job: str) -> bool:
    try:
        found = record_of(path, roots.outputs)
    except (SourceError, OutsideRootsError):
        return False
    return found is not None and found.combined is not None and found.job == job
