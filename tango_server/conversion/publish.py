"""Files appear whole or not at all: a temporary file in the same folder, then a rename."""

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tango_server.conversion.errors import OutputWriteError
from tango_server.recipe import NewFile, Recipe

TEMPORARY_SUFFIX = ".petif-tmp"
_RETRY_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # s; on Windows a reader may hold the file for a moment
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}

Write = Callable[[BinaryIO], None]
Buffer = Any
"""Anything with C-contiguous bytes."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """Permission bits and group of new files and folders; None leaves them to the umask and to the process.

    `folder_mode` may hold the setgid bit (0o2775), so that what is put below belongs to the folder's group.
    """

    file_mode: int | None = None
    folder_mode: int | None = None
    group: str | int | None = None


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


def ownership_of(recipe: Recipe) -> Ownership:
    """Return what a recipe says of its new files and folders."""
    output = recipe.output
    if not isinstance(output, NewFile):
        return PLAIN
    return Ownership(
        file_mode=int(output.file_mode, 8) if output.file_mode else None,
        folder_mode=int(output.folder_mode, 8) if output.folder_mode else None,
        group=output.group,
    )


def temporary_path(output: Path, token: str) -> Path:
    """Return the name of a temporary file for `output`; `token` tells whose attempt it is."""
    return output.with_name(f".{output.name}.{token}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


def remove_leftovers(output: Path, token: str) -> None:
    """Remove what an attempt called `token` at writing `output` left behind when its process was killed."""
    ours = f".{token}."  # the output may have got another name, with a number
    with contextlib.suppress(OSError), os.scandir(output.parent) as entries:
        for entry in entries:
            if entry.name.startswith(".") and ours in entry.name and entry.name.endswith(TEMPORARY_SUFFIX):
                Path(entry.path).unlink(missing_ok=True)


def publish(output: Path, write: Write, attempt: Attempt) -> int:
    """Let `write` write a file and let it appear as `output`; return its size in bytes.

    Raises
    ------
    OutputWriteError
        if the folder or the disk refuses; nothing partial is left.
    FileExistsError
        if the attempt is exclusive and the name is taken.
    """
    try:
        _make_folder(output.parent, attempt.ownership)
        with _temporary_file(output, attempt) as (temporary, file):
            write(file)
            size = file.tell()
            if attempt.durable:
                os.fsync(file.fileno())
            file.close()
            if attempt.mtime_ns is not None:
                os.utime(temporary, ns=(attempt.mtime_ns, attempt.mtime_ns))
            _take_name(temporary, output, exclusive=attempt.exclusive)
        if attempt.durable:
            _sync_folder(output.parent)
    except FileExistsError:
        if attempt.exclusive and output.exists():
            raise
        raise _refused(output, "a file is where its folder should be") from None
    except LookupError as error:  # a group that this host does not know
        raise _refused(output, str(error).strip("'\"")) from None
    except OSError as error:
        held = os.name == "nt" and isinstance(error, PermissionError)
        raise _refused(output, "another program holds it open" if held else str(error.strerror or error)) from error
    return size


def write_parts(parts: Iterable[Buffer]) -> Write:
    """Return the function that writes `parts` one after the other."""

    def write(file: BinaryIO) -> None:
        for part in parts:
            view = memoryview(part).cast("B")
            while len(view):  # one call may take less than it is given
                view = view[file.write(view) :]

    return write


def _refused(output: Path, found: str) -> OutputWriteError:
    return OutputWriteError(
        output,
        f"it can't be written ({found})",
        "a writable folder with free space",
        "Check the permissions of the folder, the free space of the disk, and who has the file open.",
    )


def _make_folder(folder: Path, ownership: Ownership) -> None:
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for part in missing:
        if ownership.group is not None:
            shutil.chown(part, group=ownership.group)
        if ownership.folder_mode is not None:
            part.chmod(ownership.folder_mode)


@contextmanager
def _temporary_file(output: Path, attempt: Attempt) -> Iterator[tuple[Path, BinaryIO]]:
    temporary = temporary_path(output, attempt.token)
    file = temporary.open("x+b", buffering=0)
    try:
        with file:
            if attempt.ownership.group is not None:
                shutil.chown(temporary, group=attempt.ownership.group)
            if attempt.ownership.file_mode is not None:
                temporary.chmod(attempt.ownership.file_mode)
            yield temporary, file
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _take_name(temporary: Path, output: Path, *, exclusive: bool) -> None:
    rename = _rename_new if exclusive else Path.replace
    for pause in _RETRY_PAUSES if os.name == "nt" else ():
        try:
            rename(temporary, output)
        except PermissionError:
            time.sleep(pause)
        else:
            return
    rename(temporary, output)


def _rename_new(temporary: Path, output: Path) -> None:
    if os.name == "nt":
        temporary.rename(output)  # raises FileExistsError there
        return
    try:
        output.hardlink_to(temporary)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # Some network file systems have no hard links; what is left is to look, with an instant of uncertainty.
        if output.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(output)) from None
        temporary.replace(output)
    else:
        temporary.unlink()


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows has no handle on a folder to flush; its rename is journalled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
