"""Open a frame or its sidecar, whose name may be a symbolic link into a store (git-annex, DVC)."""

import stat
from io import FileIO
from pathlib import Path

from tango_server.conversion.errors import PathError
from tango_server.conversion.files.folder import link_found
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.files.sandbox import open_file, open_folder


def open_frame_file(path: Path, roots: Roots) -> FileIO:
    """Open the file at `path` for reading, unbuffered. Only the name may be a symbolic link, no folder above it.

    With read roots, the folder of `path` is resolved and below them, and the target of a link must be below one of the
    folders that may be read.

    Raises
    ------
    OutsideRootsError
        if it is not, or a folder is a link.
    OSError
        if it cannot be opened, or is not a regular file.
    """
    if not roots.read:
        return open_file(path, ())
    with open_folder(path.parent, roots.read) as folder:
        if not stat.S_ISLNK(folder.status(path.name).st_mode):
            return folder.read(path.name)
    everywhere = roots.named
    try:
        target = everywhere.source(path)
    except PathError as error:  # or it was just replaced
        raise link_found(path) from error
    return open_file(target, everywhere.read)
