"""An open folder: operations by name stay in it, even if its path leads elsewhere meanwhile.

POSIX holds the folder by a descriptor. Windows has none for folders: names are joined to the path again, so a folder
that is replaced between two calls is noticed later or never.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import FileIO
from types import TracebackType
from typing import Any, Self

from tango_server.conversion.errors import OutsideRootsError

SEARCH = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0)
"""How a folder is opened: if possible without the permission to list it."""
NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT: int = getattr(os, "O_NONBLOCK", 0)  # otherwise opening a FIFO waits for a writer
_NO_TERMINAL: int = getattr(os, "O_NOCTTY", 0)
_NEW_FILE = 0o664  # minus the umask: never world-writable
_IS_LINK = {errno.ELOOP, errno.EMLINK}  # O_NOFOLLOW on Linux and macOS, and on FreeBSD
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}


def link_found(path: str | os.PathLike[str]) -> OutsideRootsError:
    """Return the error for a symbolic link in a path that had none when it was accepted."""
    return OutsideRootsError(
        path,
        "this file, or a folder above it, has become a symbolic link and may lead outside the folders that may be read "
        "or written",
        "Remove the link, or submit the path of its target.",
    )


class Folder:
    """Files of one folder, by name; a context manager. `follow`: whether a name may be a symbolic link."""

    __slots__ = ("_descriptor", "_follow", "_path")

    def __init__(self, path: str, descriptor: int | None, *, follow: bool) -> None:
        self._path = path
        self._descriptor = descriptor
        self._follow = follow

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def read(self, name: str) -> FileIO:
        """Open a regular file for reading, unbuffered.

        Raises
        ------
        OutsideRootsError
            if it is a symbolic link, which is not allowed here.
        OSError
            if it cannot be opened, or is not a regular file.
        """
        return open(os.path.join(self._path, name), "rb", buffering=0, opener=partial(self._opened, name))

    def create(self, name: str) -> FileIO:
        """Open a new file for writing and reading, unbuffered; raise `OSError` if the name is taken."""
        return open(
            os.path.join(self._path, name),
            "x+b",
            buffering=0,
            opener=lambda _, flags: os.open(self._at(name), flags | NO_LINK, _NEW_FILE, dir_fd=self._descriptor),
        )

    def status(self, name: str) -> os.stat_result:
        """Return the status of a file, or of a link itself."""
        return os.stat(self._at(name), dir_fd=self._descriptor, follow_symlinks=False)

    def has(self, name: str) -> bool:
        """Whether the name is taken."""
        try:
            self.status(name)
        except FileNotFoundError:
            return False
        return True

    def names(self) -> list[str]:
        """Return all names, unordered."""
        with self.handle() as handle:
            return os.listdir(handle)

    def rename(self, name: str, new: str) -> None:
        """Rename a file, replacing another one if it exists."""
        os.replace(self._at(name), self._at(new), src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def rename_new(self, name: str, new: str) -> None:
        """Rename a file; raise `FileExistsError` if the new name is taken, `OSError` without hard links on POSIX."""
        if os.name == "nt":
            os.rename(self._at(name), self._at(new))
            return
        # Not followed: if a link replaced the file, its target would get the new name.
        os.link(
            self._at(name),
            self._at(new),
            src_dir_fd=self._descriptor,
            dst_dir_fd=self._descriptor,
            follow_symlinks=False,
        )
        self.remove(name)

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""
        try:
            os.unlink(self._at(name), dir_fd=self._descriptor)
        except FileNotFoundError:
            return

    def set_mtime(self, name: str, mtime_ns: int) -> None:
        """Set the modification time of a file."""
        if self._descriptor is not None:
            os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=self._descriptor, follow_symlinks=False)
        else:
            os.utime(self._at(name), ns=(mtime_ns, mtime_ns))

    def sync(self) -> None:
        """Flush the names to disk."""
        if self._descriptor is None:  # Windows cannot flush a folder; its rename is journalled
            return
        with self.handle() as handle:
            os.fsync(handle)

    def is_in_its_place(self) -> bool:
        """Whether the path still leads to this folder."""
        if self._descriptor is None:
            return os.path.isdir(self._path)
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except OSError:
            return False

    @contextmanager
    def handle(self) -> Iterator[Any]:
        """Yield a descriptor for more than searching; on Windows the path, which os.chmod and os.listdir accept."""
        if self._descriptor is None:
            yield self._path
            return
        descriptor = os.open(".", os.O_RDONLY, dir_fd=self._descriptor)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _at(self, name: str) -> str:
        return name if self._descriptor is not None else os.path.join(self._path, name)

    def _opened(self, name: str, path: str, flags: int) -> int:
        flags |= _NO_TERMINAL | (0 if self._follow else NO_LINK)
        try:
            descriptor = self._open_at_once(name, flags)
        except OSError as error:
            if error.errno in _IS_LINK and not self._follow:
                raise link_found(path) from None
            raise
        try:
            self._require_regular(name, path, os.fstat(descriptor))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _open_at_once(self, name: str, flags: int) -> int:
        try:
            return os.open(self._at(name), flags | _NO_WAIT, dir_fd=self._descriptor)
        except BlockingIOError:  # a file server has a lease on the file, and returns it if we wait
            status = os.stat(self._at(name), dir_fd=self._descriptor, follow_symlinks=self._follow)
            if not stat.S_ISREG(status.st_mode):
                raise
            return os.open(self._at(name), flags, dir_fd=self._descriptor)

    def _require_regular(self, name: str, path: str, opened: os.stat_result) -> None:
        if not stat.S_ISREG(opened.st_mode):
            kind = _KINDS.get(stat.S_IFMT(opened.st_mode), "something else")
            raise OSError(errno.EINVAL, f"{kind}, not a regular file", path)
        if self._descriptor is None and not self._follow and not os.path.samestat(opened, self.status(name)):
            raise link_found(path)  # Windows opens links; their own status differs
