"""Open files below a root without following symbolic links.

An accepted path is resolved: it has no symbolic link below its root. So it is opened later name by name from the root
on, and a link that was created meanwhile is refused. The administrator is responsible for folders above the roots.

Without roots every path may be opened, through links too: for programs that people run for themselves.

Windows cannot open relative to a folder's handle: the path is resolved again just before, which leaves a short race.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from tango_server.conversion.errors import OutsideRootsError
from tango_server.conversion.files.folder import NO_LINK, SEARCH, Folder, link_found

Made = Callable[[Any], None]
"""Called with each folder that was created, as a descriptor (a path on Windows)."""

HANDLES = os.open in os.supports_dir_fd
"""Whether this operating system opens files by a folder's descriptor."""
_NEW_FOLDER = 0o775  # minus the umask: never world-writable


def open_folder(path: Path, roots: Sequence[Path], made: Made | None = None) -> Folder:
    """Open the folder at a resolved path below one of `roots`; with `made`, create missing folders.

    Raises
    ------
    OutsideRootsError
        if it is below none of them, or a folder of the path is a symbolic link.
    OSError
        if it cannot be opened or created.
    """
    text = str(path)
    if not HANDLES:
        return _by_resolving(path, roots, made)
    if not roots:
        return Folder(text, _by_path(path, SEARCH, made), follow=True)
    root, names = _way(text, roots)
    descriptor = _by_path(root, SEARCH | NO_LINK, made)
    for name in names:
        try:
            inner = _step(descriptor, name, made, text)
        finally:
            os.close(descriptor)
        descriptor = inner
    return Folder(text, descriptor, follow=False)


def open_file(path: Path, roots: Sequence[Path]) -> FileIO:
    """Open the regular file at a resolved path for reading, unbuffered; raises as `open_folder` does."""
    with open_folder(path.parent, roots) as folder:
        return folder.read(path.name)


def status_of(path: Path, roots: Sequence[Path]) -> os.stat_result:
    """Return the status of a file, or of a link itself; raises as `open_folder` does."""
    with open_folder(path.parent, roots) as folder:
        return folder.status(path.name)


def is_taken(path: Path, roots: Sequence[Path]) -> bool:
    """Whether the name exists; False also in a folder that may not be searched."""
    try:
        status_of(path, roots)
    except OSError:
        return False
    return True


def require_below(path: Path, roots: Sequence[Path]) -> None:
    """Raise `OutsideRootsError` if there are roots and a resolved path is below none of them."""
    if roots:
        _way(str(path), roots)


def _way(path: str, roots: Sequence[Path]) -> tuple[Path, list[str]]:
    """Return the innermost root that contains `path`, and the names below it."""
    holders = [root for root in roots if path == (text := str(root)) or path.startswith(text.rstrip("/") + "/")]
    if not holders:
        raise OutsideRootsError(
            path,
            f"outside the folders that may be read or written ({', '.join(map(str, roots))})",
            "Submit the file again, so that its current path is checked.",
        )
    root = max(holders, key=lambda holder: len(str(holder)))
    names = [name for name in path[len(str(root)) :].split("/") if name]
    if ".." in names:  # no resolved path has one
        raise link_found(path)
    return root, names


def _by_path(path: Path, flags: int, made: Made | None) -> int:
    """Open a root, or any folder if there are no roots."""
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        if made is None or path == path.parent:
            raise
    except NotADirectoryError:
        if flags & NO_LINK and path.is_symlink():
            raise link_found(path) from None
        raise
    above = _by_path(path.parent, SEARCH, made)
    try:
        return _step(above, path.name, made, str(path))
    finally:
        os.close(above)


def _step(above: int, name: str, made: Made | None, path: str) -> int:
    """Open the folder `name` in an open one, on the way to `path`."""
    try:
        return os.open(name, SEARCH | NO_LINK, dir_fd=above)
    except FileNotFoundError:
        if made is None:
            raise
    except OSError:
        if _is_link(above, name):
            raise link_found(path) from None
        raise
    return _created(above, name, made, path)


def _created(above: int, name: str, made: Made, path: str) -> int:
    try:
        os.mkdir(name, _NEW_FOLDER, dir_fd=above)
    except FileExistsError:  # created meanwhile; the next step fails if it is not a folder
        return _step(above, name, None, path)
    descriptor = _step(above, name, None, path)
    try:
        with Folder(path, os.dup(descriptor), follow=False) as folder, folder.handle() as handle:
            made(handle)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _is_link(above: int, name: str) -> bool:
    try:
        os.readlink(name, dir_fd=above)
    except OSError:
        return False
    return True


def _by_resolving(path: Path, roots: Sequence[Path], made: Made | None) -> Folder:
    """Open a folder on systems without handles."""
    if roots and (not any(map(path.is_relative_to, roots)) or _normal(path.resolve()) != _normal(path)):
        raise link_found(path)
    if made is not None:
        missing = [part for part in (path, *path.parents) if not part.exists()]
        with contextlib.suppress(FileExistsError):  # by a file: the check below raises
            path.mkdir(_NEW_FOLDER, parents=True, exist_ok=True)
        for part in missing:
            made(part)
    if not path.is_dir():
        missing_or_not = NotADirectoryError if path.exists() else FileNotFoundError
        raise missing_or_not(0, "not a folder", str(path))
    return Folder(str(path), None, follow=not roots)


def _normal(path: Path) -> str:
    return os.path.normcase(path)
