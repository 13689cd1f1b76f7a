"""Opening a frame, or what lies beside it, by a name that may be a symbolic link into a store (git-annex, DVC)."""

import stat
from io import FileIO
from pathlib import Path

from tango_server.conversion.errors import PathError
from tango_server.conversion.files.folder import link_found
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.files.sandbox import open_file, open_folder


def open_frame_file(path: Path, roots: Roots) -> FileIO:
    """Open the file at `path` for reading, unbuffered; the name alone may be a symbolic link, no folder above it.

    With read roots, `path` is a resolved one below them (but for its name), and what a link leads to now must lie below
    one of all the folders that may be read.

    Raises
    ------
    OutsideRootsError
        if it does not, or there is a link on the way.
    OSError
        if it can't be opened, or is no regular file.
    """
    if not roots.read:
        return open_file(path, ())
    with open_folder(path.parent, roots.read) as folder:
        if not stat.S_ISLNK(folder.status(path.name).st_mode):
            return folder.read(path.name)
    everywhere = roots.named
    try:
        target = everywhere.source(path)
    except PathError as error:  # or it is exchanged this very moment
        raise link_found(path) from error
    return open_file(target, everywhere.read)
