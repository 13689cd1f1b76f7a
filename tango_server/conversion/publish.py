"""Files appear whole or not at all: a temporary file in the same folder, then a rename."""

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tango_server.conversion.errors import OutputWriteError

TEMPORARY_SUFFIX = ".petif-tmp"
_NEW_FILE_MODE = 0o666  # less the umask, as for every other program

Buffer = Any
"""Anything with C-contiguous bytes."""


def temporary_path(output: Path, token: str) -> Path:
    """Return the name of a temporary file for `output`; `token` tells whose attempt it is."""
    return output.with_name(f".{output.name}.{token}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


def remove_leftovers(output: Path, token: str) -> None:
    """Remove what an attempt called `token` at writing `output` left behind when its process was killed."""
    prefix = f".{output.name}.{token}."
    with contextlib.suppress(OSError), os.scandir(output.parent) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.name.endswith(TEMPORARY_SUFFIX):
                Path(entry.path).unlink(missing_ok=True)


def publish(
    output: Path, parts: Iterable[Buffer], *, token: str, durable: bool = False, mode: int | None = None
) -> int:
    """Write `parts` one after the other and let them appear as `output`; return the number of bytes.

    `durable` flushes the content to disk before it takes the name, and the name after it. `mode` sets the permission
    bits (default: those of any new file).

    Raises
    ------
    OutputWriteError
        if the folder or the disk refuses; nothing partial is left.

    """
    try:
        with _temporary_file(output, token, mode) as (temporary, file):
            written = sum(_write_whole(file, part) for part in parts)
            if durable:
                os.fsync(file.fileno())
            file.close()
            temporary.replace(output)
        if durable:
            _sync_folder(output.parent)
    except OSError as error:
        raise OutputWriteError(
            output,
            f"it can't be written ({error.strerror or error})",
            "a writable folder with free space",
            "Check the permissions of the folder and the free space of the disk.",
        ) from error
    return written


@contextmanager
def _temporary_file(output: Path, token: str, mode: int | None) -> Iterator[tuple[Path, BinaryIO]]:
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(output, token)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, _NEW_FILE_MODE)
    try:
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor has no Path
            if mode is not None:
                temporary.chmod(mode)
            yield temporary, file
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_whole(file: BinaryIO, part: Buffer) -> int:
    view = memoryview(part).cast("B")
    written = 0
    while written < len(view):  # one call may take less than it is given
        written += file.write(view[written:])
    return written


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows has no handle on a folder to flush; its rename is journalled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
