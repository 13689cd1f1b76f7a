"""Outputs that a group made with other frames than it has now: they had other names, or there is none any more."""

from collections.abc import Callable, Iterable
from pathlib import Path

from tango_server.conversion.combining.member_list import member_list_path
from tango_server.conversion.errors import ConversionError, OutsideRootsError, SourceError
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.naming import incomplete_path
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.files.sandbox import is_taken, open_folder
from tango_server.conversion.provenance import Provenance
from tango_server.conversion.records import record_of
from tango_server.conversion.sidecar import sidecar_path


def withdraw(paths: Iterable[Path], roots: Roots, job: str | None) -> str:
    """Remove those of these files that `job` has made, with what is beside them; return why one could not be.

    All paths must be resolved.
    """
    return "" if job is None else _remove(paths, roots, lambda record: record.job == job)


def withdraw_complete(path: Path, origin: str, members: Iterable[FrameLocation], roots: Roots, job: str | None) -> str:
    """Remove what is at the name of the output with all frames, of which some are missing now.

    That is a placeholder for the group, or what `job` made with others than its `members`: else a point has two files.
    What has all members stays: one of them may be lost for ever. Returns why it could not be removed.
    """
    every = tuple(members)

    def is_outdated(record: Provenance) -> bool:
        return record.stands_for(origin) or (job is not None and record.job == job and not record.is_of(every, path))

    return _remove([path], roots, is_outdated)


def withdraw_fewer(complete: Path, used: int, frames: int, origin: str, roots: Roots) -> str:
    """Remove the outputs of fewer than the `used` of a group's `frames`, made when others were missing.

    `complete` is the output's name with all frames, `origin` that of the group (`origin_of`). Returns why one could not
    be removed.
    """
    paths = (incomplete_path(complete, number, frames) for number in range(1, used))
    return _remove(paths, roots, lambda record: record.origin == origin)


def _remove(paths: Iterable[Path], roots: Roots, is_ours: Callable[[Provenance], bool]) -> str:
    try:
        for path in paths:
            if is_taken(path, roots.write) and _is_withdrawn(path, roots, is_ours):
                with open_folder(path.parent, roots.write) as folder:
                    for each in (path, sidecar_path(path), member_list_path(path)):
                        folder.remove(each.name)
    except (OSError, ConversionError) as error:  # the new output is written: no failure
        return f"The earlier output could not be removed ({error})."
    return ""


def _is_withdrawn(path: Path, roots: Roots, is_ours: Callable[[Provenance], bool]) -> bool:
    try:
        found = record_of(path, roots.outputs)
    except (SourceError, OutsideRootsError):
        return False
    return found is not None and (found.placeholder or found.combined is not None) and is_ours(found)
