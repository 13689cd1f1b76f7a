"""Files appear whole or not at all: a temporary file in the same folder, then a rename."""

import contextlib
import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from tango_server.conversion.errors import OutputWriteError, OutsideRootsError
from tango_server.conversion.files.file_attributes import FileAttributes
from tango_server.conversion.files.folder import Folder
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.files.sandbox import open_folder
from tango_server.recipe import NewFile, Recipe

try:
    import fcntl

    _HAS_LOCKS = True
except ImportError:  # Windows
    _HAS_LOCKS = False

TEMPORARY_SUFFIX = ".petif-tmp"
_BLOCK = 2**20  # bytes
_RETRY_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # s; on Windows a reader may hold the file for a moment
_LONGEST_STEM = 120  # bytes; with what is put around it, a name stays below the 255 that file systems take
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}

_AS_THE_SOURCE = "source"
_PERMISSIONS = 0o2777  # no setuid, no sticky bit

Write = Callable[[BinaryIO], None]
Buffer = Any
"""Anything with C-contiguous bytes."""


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


@dataclass(frozen=True, slots=True)
class Attempt:
    """How a file is to be published.

    `token` names the temporary file, `durable` flushes the content to disk before it takes the name, `exclusive`
    refuses (with `FileExistsError`) to replace a file that has the name already, `mtime_ns` is the modification time.
    """

    token: str
    durable: bool = False
    exclusive: bool = False
    ownership: Ownership = PLAIN
    mtime_ns: int | None = None


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


def temporary_path(output: Path, token: str) -> Path:
    """Return the name of a temporary file for `output`; `token` tells whose attempt it is."""
    name = os.fsencode(output.name)[:_LONGEST_STEM].decode("utf-8", "ignore")  # there may be no room for all of it
    return output.with_name(f".{name}.{token}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


def temporary_names(path: Path, roots: Roots = ANYWHERE) -> list[str]:
    """Return the names of all temporary files in a folder; raise `OSError` or `OutsideRootsError`."""
    with open_folder(path, roots.write) as folder:
        return [name for name in folder.names() if name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)]


def is_temporary_of(token: str, name: str) -> bool:
    """Whether a temporary file belongs to an attempt called `token`, whatever its output was to be called."""
    return f".{token}." in name


def remove_leftovers(output: Path, token: str, roots: Roots = ANYWHERE, *, among: Sequence[str] | None = None) -> None:
    """Remove what an attempt called `token` at writing `output` left behind when its process was killed.

    `among`: the names of temporary files in that folder, if they are known; else it is listed.
    """
    with contextlib.suppress(OSError, OutsideRootsError):
        names = temporary_names(output.parent, roots) if among is None else among
        with open_folder(output.parent, roots.write) as folder:
            for name in names:
                if is_temporary_of(token, name):
                    folder.remove(name)


def publish(output: Path, write: Write, attempt: Attempt, roots: Roots = ANYWHERE) -> int:
    """Let `write` write a file and let it appear as `output`; return its size in bytes.

    With write roots, `output` is a resolved path below them; whatever is exchanged on the way to it meanwhile, nothing
    appears in another folder.

    Raises
    ------
    OutputWriteError
        if the folder or the disk refuses; nothing partial is left.
    OutsideRootsError
        if the path leads through a symbolic link now.
    FileExistsError
        if the attempt is exclusive and the name is taken.
    """
    try:
        with open_folder(output.parent, roots.write, partial(_hand_over_folder, attempt.ownership)) as folder:
            return _publish_in(folder, output, write, attempt)
    except FileExistsError:
        raise
    except NotADirectoryError:
        raise _refused(output, "a file is where its folder should be") from None
    except LookupError as error:  # a group that this host does not know
        raise _refused(output, str(error).strip("'\"")) from None
    except OSError as error:
        held = os.name == "nt" and isinstance(error, PermissionError)
        raise _refused(output, "another program holds it open" if held else str(error.strerror or error)) from error


def _publish_in(folder: Folder, output: Path, write: Write, attempt: Attempt) -> int:
    with _temporary_file(folder, output, attempt) as (temporary, file), _held(file):
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
    """Return the function that writes what is in an open file; where that has holes, they stay holes."""

    def write(file: BinaryIO) -> None:
        size = os.fstat(source.fileno()).st_size
        for start, end in _extents(source.fileno(), size):
            source.seek(start)
            file.seek(start)
            left = end - start
            while left:
                block = source.read(min(left, _BLOCK))
                if not block:
                    raise OSError(errno.ESTALE, "the file became shorter while it was copied")
                left -= len(block)
                write_parts([block])(file)
        file.truncate(size)
        file.seek(size)

    return write


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield where an open file has data, from and to; all of it where the file system knows of no holes."""
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
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            yield end, size
            return
        end = min(os.lseek(descriptor, start, seek_hole), size)
        yield start, end


def _refused(output: Path, found: str) -> OutputWriteError:
    return OutputWriteError(
        output,
        f"it can't be written ({found})",
        "a writable folder with free space",
        "Check the permissions of the folder, the free space of the disk, and who has the file open.",
    )


def _hand_over_folder(ownership: Ownership, folder: Any) -> None:
    """Give a new folder, open or by its path, the group and the mode that were asked for."""
    if ownership.group is not None:
        shutil.chown(folder, group=ownership.group)
    if ownership.folder_mode is not None:
        inherited = os.stat(folder).st_mode & stat.S_ISGID  # noqa: PTH116 - it may be a descriptor
        os.chmod(folder, ownership.folder_mode | inherited)  # noqa: PTH101


def is_in_use(temporary: Path) -> bool | None:
    """Whether an attempt is at work on a temporary file, wherever it runs; None if the system can't tell.

    Raises
    ------
    OSError
        if it can't be opened.

    """
    if not _HAS_LOCKS:  # Windows removes no file that is open
        return None
    descriptor = os.open(temporary, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _held(file: FileIO) -> Iterator[None]:
    """Lock a temporary file for whoever asks `is_in_use`, also beyond its own close; the lock ends with the process."""
    if not _HAS_LOCKS:
        yield
        return
    descriptor = os.dup(file.fileno())
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


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
    """Raise `OSError` if the temporary file or its folder is not what and where it was; the file is still open."""
    if not os.path.samestat(folder.status(temporary), os.fstat(file.fileno())):
        raise OSError(errno.ESTALE, "another file took the name of the temporary one while it was written")
    if not folder.is_in_its_place():
        raise OSError(errno.ESTALE, "its folder was moved or replaced while it was written")


def _take_name(folder: Folder, temporary: str, name: str, *, exclusive: bool) -> None:
    rename = _rename_new if exclusive else Folder.rename
    for pause in _RETRY_PAUSES if os.name == "nt" else ():
        try:
            rename(folder, temporary, name)
        except PermissionError:
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
        # Some network file systems have no hard links; what is left is to look, with an instant of uncertainty.
        if folder.has(name):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from None
        folder.rename(temporary, name)
