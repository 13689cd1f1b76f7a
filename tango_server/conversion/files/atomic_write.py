"""Atomic writing: a temporary file in the same folder, then a rename."""

import errno
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from tango_server.backoff import Backoff
from tango_server.conversion.errors import OutputWriteError
from tango_server.conversion.files.folder import Folder
from tango_server.conversion.files.ownership import PLAIN, Ownership
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.files.sandbox import open_folder
from tango_server.conversion.files.temporary_names import held, temporary_path

_BLOCK = 2**20  # bytes
_RETRIES = 5 if os.name == "nt" else 0  # on Windows a reader may hold the file for a moment
_PAUSES = Backoff(shortest=0.05)
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}

Write = Callable[[BinaryIO], None]
Buffer = Any
"""Anything with C-contiguous bytes."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """How to publish a file.

    `token` is part of the temporary file's name, `durable` flushes the content to disk before the rename, `exclusive`
    refuses (with `FileExistsError`) to replace an existing file, `mtime_ns` is the modification time.
    """

    token: str
    durable: bool = False
    exclusive: bool = False
    ownership: Ownership = PLAIN
    mtime_ns: int | None = None


def publish(output: Path, write: Write, attempt: Attempt, roots: Roots = ANYWHERE) -> int:
    """Write a file with `write` and rename it to `output`; return its size in bytes.

    With write roots, `output` is a resolved path below them; even if a folder on the way is replaced meanwhile, nothing
    is written elsewhere.

    Raises
    ------
    OutputWriteError
        if it cannot be written; no partial file is left.
    OutsideRootsError
        if a folder of the path has become a symbolic link.
    FileExistsError
        if the attempt is exclusive and the name is taken.
    """
    try:
        with open_folder(output.parent, roots.write, partial(_hand_over_folder, attempt.ownership)) as folder:
            return _publish_in(folder, output, write, attempt)
    except FileExistsError:
        raise
    except NotADirectoryError:
        raise _refused(output, "its folder is a file") from None
    except LookupError as error:  # a group that this host does not know
        raise _refused(output, str(error).strip("'\"")) from None
    except OSError as error:
        held = os.name == "nt" and isinstance(error, PermissionError)
        raise _refused(output, "another program holds it open" if held else str(error.strerror or error)) from error


def _publish_in(folder: Folder, output: Path, write: Write, attempt: Attempt) -> int:
    with _temporary_file(folder, output, attempt) as (temporary, file), held(file):
        write(file)
        size = file.tell()
        if attempt.durable:
            os.fsync(file.fileno())
        _require_undisturbed(folder, temporary, file)
        file.close()
        if attempt.mtime_ns is not None:
            folder.set_mtime(temporary, attempt.mtime_ns)
        _take_name(folder, temporary, output.name, exclusive=attempt.exclusive)
    if attempt.durable:
        folder.sync()
    return size


def write_parts(parts: Iterable[Buffer]) -> Write:
    """Return the function that writes `parts` one after the other."""

    def write(file: BinaryIO) -> None:
        for part in parts:
            view = memoryview(part).cast("B")
            while len(view):  # one call may take less than it is given
                view = view[file.write(view) :]

    return write


def copy_of(source: BinaryIO) -> Write:
    """Return the function that copies an open file, with its holes."""

    def write(file: BinaryIO) -> None:
        size = os.fstat(source.fileno()).st_size
        for start, end in _extents(source.fileno(), size):
            source.seek(start)
            file.seek(start)
            left = end - start
            while left:
                block = source.read(min(left, _BLOCK))
                if not block:
                    raise OSError(errno.ESTALE, "the file shrank while it was copied")
                left -= len(block)
                write_parts([block])(file)
        file.truncate(size)
        file.seek(size)

    return write


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each part with data; the whole file if the file system does not report holes."""
    seek_data, seek_hole = getattr(os, "SEEK_DATA", None), getattr(os, "SEEK_HOLE", None)
    if seek_data is None or seek_hole is None:
        if size:
            yield 0, size
        return
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, seek_data)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            yield end, size
            return
        end = min(os.lseek(descriptor, start, seek_hole), size)
        yield start, end


def _refused(output: Path, reason: str) -> OutputWriteError:
    return OutputWriteError(
        output,
        f"cannot write the file ({reason})",
        "Check the folder's permissions, the free space, and whether another program has the file open.",
    )


def _hand_over_folder(ownership: Ownership, folder: Any) -> None:
    """Set group and mode of a new folder, given as a descriptor or a path."""
    if ownership.group is not None:
        shutil.chown(folder, group=ownership.group)
    if ownership.folder_mode is not None:
        inherited = os.stat(folder).st_mode & stat.S_ISGID  # noqa: PTH116 - it may be a descriptor
        os.chmod(folder, ownership.folder_mode | inherited)  # noqa: PTH101


@contextmanager
def _temporary_file(folder: Folder, output: Path, attempt: Attempt) -> Iterator[tuple[str, FileIO]]:
    path = temporary_path(output, attempt.token)
    file = folder.create(path.name)
    try:
        with file:
            target: Any = path if os.name == "nt" else file.fileno()
            if attempt.ownership.like is not None:
                attempt.ownership.like.give_to(target)
            if attempt.ownership.group is not None:
                shutil.chown(target, group=attempt.ownership.group)
            if attempt.ownership.file_mode is not None:
                os.chmod(target, attempt.ownership.file_mode)  # noqa: PTH101 - it may be a descriptor
            yield path.name, file
    except BaseException:
        folder.remove(path.name)
        raise


def _require_undisturbed(folder: Folder, temporary: str, file: FileIO) -> None:
    """Raise `OSError` if the temporary file (still open) or its folder was moved or replaced."""
    if not os.path.samestat(folder.status(temporary), os.fstat(file.fileno())):
        raise OSError(errno.ESTALE, "the temporary file was replaced while it was written")
    if not folder.is_in_its_place():
        raise OSError(errno.ESTALE, "the folder was moved or replaced while the file was written")


def _take_name(folder: Folder, temporary: str, name: str, *, exclusive: bool) -> None:
    rename = _rename_new if exclusive else Folder.rename
    pause = 0.0
    for _ in range(_RETRIES):
        try:
            rename(folder, temporary, name)
        except PermissionError:
            pause = _PAUSES.after(pause)
            time.sleep(pause)
        else:
            return
    rename(folder, temporary, name)


def _rename_new(folder: Folder, temporary: str, name: str) -> None:
    try:
        folder.rename_new(temporary, name)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS or os.name == "nt":
            raise
        # Some network file systems have no hard links: check and rename, which leaves a short race.
        if folder.has(name):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from None
        folder.rename(temporary, name)
