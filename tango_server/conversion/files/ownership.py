"""Permissions and group of new files and folders, by the recipe."""

import os
from dataclasses import dataclass
from pathlib import Path

from tango_server.conversion.files.file_attributes import FileAttributes
from tango_server.recipe import NewFile, Recipe

_AS_THE_SOURCE = "source"
_PERMISSIONS = 0o2777  # no setuid, no sticky bit


@dataclass(frozen=True, slots=True)
class Ownership:
    """Permission bits and group of new files and folders; None leaves them to the umask and to the process.

    `folder_mode` may have the setgid bit (0o2775), so that new files get the folder's group; an inherited setgid bit is
    kept.
    """

    file_mode: int | None = None
    folder_mode: int | None = None
    group: str | int | None = None
    like: FileAttributes | None = None
    """Attributes of the file that is replaced in place; applied before the rest."""


PLAIN = Ownership()


def ownership_of(recipe: Recipe, source: Path) -> Ownership:
    """Return the ownership of new files and folders for a recipe and the raw frame `source`."""
    output = recipe.output
    if not isinstance(output, NewFile):
        return PLAIN
    group: str | int | None = output.group
    modes: list[int | None] = []
    for mode, model in ((output.file_mode, source), (output.folder_mode, source.parent)):
        if mode != _AS_THE_SOURCE:
            modes.append(int(mode, 8) if mode else None)
            continue
        try:
            status = model.stat()
        except OSError:  # a placeholder has no source
            modes.append(None)
            continue
        modes.append(status.st_mode & _PERMISSIONS)
        if group is None and os.name != "nt":
            group = status.st_gid
    return Ownership(modes[0], modes[1], group)
