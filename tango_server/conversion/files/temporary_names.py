"""Temporary files by name: whose they are, whether they are in use, and how they are removed."""

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from tango_server.conversion.errors import OutsideRootsError
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.files.sandbox import open_folder

try:
    import fcntl

    _HAS_LOCKS = True
except ImportError:  # Windows
    _HAS_LOCKS = False

TEMPORARY_SUFFIX = ".petif-tmp"
_LONGEST_STEM = 120  # bytes; the whole name stays below the 255 that file systems allow


def temporary_path(output: Path, token: str) -> Path:
    """Return the name of a temporary file for `output`; `token` identifies the attempt."""
    name = os.fsencode(output.name)[:_LONGEST_STEM].decode("utf-8", "ignore")  # it may be too long
    return output.with_name(f".{name}.{token}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


def temporary_names(path: Path, roots: Roots = ANYWHERE) -> list[str]:
    """Return the names of all temporary files in a folder; raise `OSError` or `OutsideRootsError`."""
    with open_folder(path, roots.write) as folder:
        return [name for name in folder.names() if name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)]


def is_temporary_of(token: str, name: str) -> bool:
    """Whether a temporary file belongs to the attempt `token`, whatever its output."""
    return f".{token}." in name


def remove_leftovers(output: Path, token: str, roots: Roots = ANYWHERE, *, among: Sequence[str] | None = None) -> None:
    """Remove the temporary files of the attempt `token` at `output`, whose process was killed.

    `among`: the names of temporary files in that folder, if known; else it is listed.
    """
    with contextlib.suppress(OSError, OutsideRootsError):
        names = temporary_names(output.parent, roots) if among is None else among
        with open_folder(output.parent, roots.write) as folder:
            for name in names:
                if is_temporary_of(token, name):
                    folder.remove(name)


def is_in_use(temporary: Path) -> bool | None:
    """Whether an attempt, on any host, is writing a temporary file; None if the system cannot tell.

    Raises
    ------
    OSError
        if it cannot be opened.

    """
    if not _HAS_LOCKS:  # Windows cannot remove an open file
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
def held(file: FileIO) -> Iterator[None]:
    """Lock a temporary file (see `is_in_use`), also after the file is closed; the lock ends with the process."""
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
