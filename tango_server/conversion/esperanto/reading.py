"""ESPERANTO frames read back, in both encodings: `read_esperanto` and, without the pixels, `read_header`."""

import os
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.errors import NotEsperantoError, SourceMissingError, SourceUnreadableError
from tango_server.conversion.esperanto.codec import BitfieldError, decode
from tango_server.conversion.esperanto.header import SIZE, EsperantoHeader, HeaderError
from tango_server.conversion.esperanto.padding import LARGEST
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.files.sandbox import open_file

_LARGEST_PIXEL = 5 + 1 / 16  # bytes that AGI_BITFIELD takes for one at most


def read_header(path: str | Path, roots: Roots = ANYWHERE) -> EsperantoHeader:
    """Return the header of a frame; raises as `read_esperanto` does."""
    with _opened(Path(path), roots) as file:
        return _header(Path(path), file.read(SIZE))


def read_esperanto(path: str | Path, roots: Roots = ANYWHERE) -> tuple[EsperantoHeader, NDArray[np.int32]]:
    """Return header and pixels (rows, columns) of a frame.

    Raises
    ------
    SourceMissingError, SourceUnreadableError
        if there is no such file, or it can't be read.
    NotEsperantoError
        if it is something else, or damaged.
    OutsideRootsError
        if there are read roots, and it lies beyond.

    """
    path = Path(path)
    with _opened(path, roots) as file:
        header = _header(path, file.read(SIZE))
        most = int(header.side**2 * _LARGEST_PIXEL) + 4 + 4 * header.side
        size = os.fstat(file.fileno()).st_size - SIZE
        if size > most:
            raise _damaged(path, f"{size} bytes of pixels, more than {most}")
        data = file.readall()
    shape = (header.side, header.side)
    if header.encoding == "AGI_BITFIELD":
        try:
            return header, decode(data, shape)
        except BitfieldError as error:
            raise _damaged(path, str(error)) from error
    if len(data) != 4 * header.side**2:
        raise _damaged(path, f"{len(data)} bytes of pixels")
    return header, np.frombuffer(data, "<i4").reshape(shape).astype(np.int32)


def _opened(path: Path, roots: Roots) -> FileIO:
    try:
        return open_file(path, roots.read)
    except FileNotFoundError as error:
        raise SourceMissingError(path, "no such file", "an ESPERANTO frame", "Check the path.") from error
    except OSError as error:
        raise SourceUnreadableError(path, str(error), "a readable file", "Check its permissions.") from error


def _header(path: Path, data: bytes) -> EsperantoHeader:
    try:
        header = EsperantoHeader.from_bytes(data)
    except HeaderError as error:
        found, _, expected = str(error).partition("; expected ")
        raise NotEsperantoError(path, found, expected, "Check whether it is the right file.") from error
    if not 0 < header.side <= LARGEST:
        raise _damaged(path, f"a side of {header.side} pixels")
    return header


def _damaged(path: Path, found: str) -> NotEsperantoError:
    return NotEsperantoError(path, found, "a whole ESPERANTO frame", "Convert its source anew.")
