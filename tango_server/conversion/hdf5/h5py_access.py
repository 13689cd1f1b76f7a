"""h5py with the filters of hdf5plugin, imported when the first HDF5 file comes, and its errors as ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tango_server.conversion.errors import (
    IncompleteFileError,
    SourceMissingError,
    SourceUnreadableError,
    UnsupportedImageError,
)
from tango_server.text import printable

READER_ERRORS = (OSError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, AttributeError,
                 NotImplementedError, MemoryError)  # fmt: skip
"""What h5py raises for files that it cannot read."""


def h5py_for(path: Path) -> Any:
    """Return the module h5py, to read the file at `path`.

    Raises
    ------
    UnsupportedImageError
        if it or hdf5plugin is not installed.
    """
    try:
        import h5py  # noqa: PLC0415 - of the extra `formats`
        import hdf5plugin  # noqa: F401, PLC0415 - registers the filters
    except ImportError as error:
        raise UnsupportedImageError(
            path,
            f"HDF5 cannot be read: {error.name or 'h5py'} is not installed",
            'Install the extra "formats": pip install "petif-bluesky[formats]".',
        ) from error
    return h5py


@contextmanager
def reading(path: Path, what: str = "the file cannot be read") -> Iterator[None]:
    """Raise errors of h5py as `SourceUnreadableError` that says `what`.

    A missing file is a `SourceMissingError`, metadata with a wrong checksum an `IncompleteFileError`.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise SourceMissingError(path, "no such file", "Check the path.") from error
    except READER_ERRORS as error:
        if "metadata checksum" in str(error):  # of a growing file they may be half written
            raise IncompleteFileError(path, f"{what} ({reason(error)})", "Check what wrote this file.") from error
        raise SourceUnreadableError(path, f"{what} ({reason(error)})", "Check what wrote this file.") from error


def reason(error: BaseException) -> str:
    """Return the first line of an error of h5py."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return printable((text.splitlines() or [type(error).__name__])[0], 300)
