"""Whose new files and folders are, and who may read them: as a recipe says."""

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

    `folder_mode` may hold the setgid bit (0o2775), so that what is put below belongs to the folder's group; one that a
    new folder has from the folder above it stays.
    """

    file_mode: int | None = None
    folder_mode: int | None = None
    group: str | int | None = None
    like: FileAttributes | None = None
    """What a file in place has of the one that it replaces; before the rest."""


PLAIN = Ownership()


def ownership_of(recipe: Recipe, source: Path) -> Ownership:
    """Return what a recipe says of its new files and folders, made of the raw frame `source`."""
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
        except OSError:  # a placeholder stands for a frame that is not there
            modes.append(None)
            continue
        modes.append(status.st_mode & _PERMISSIONS)
        if group is None and os.name != "nt":
            group = status.st_gid
    return Ownership(modes[0], modes[1], group)
