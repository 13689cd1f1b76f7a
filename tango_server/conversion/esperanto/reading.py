"""Read ESPERANTO frames in both encodings: `read_esperanto` and, without the pixels, `read_header`."""

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
        if it does not exist or cannot be read.
    NotEsperantoError
        if it is not an ESPERANTO frame, or a damaged one.
    OutsideRootsError
        if there are read roots, and it is outside them.

    """
    path = Path(path)
    with _opened(path, roots) as file:
        header = _header(path, file.read(SIZE))
        most = int(header.side**2 * _LARGEST_PIXEL) + 4 + 4 * header.side
        size = os.fstat(file.fileno()).st_size - SIZE
        if size > most:
            raise _damaged(path, f"{size} bytes of pixels (at most {most})")
        data = file.readall()
    shape = (header.side, header.side)
    if header.encoding == "AGI_BITFIELD":
        try:
            return header, decode(data, shape)
        except BitfieldError as error:
            raise _damaged(path, str(error)) from error
    if len(data) != 4 * header.side**2:
        raise _damaged(path, f"{len(data)} bytes of pixels instead of {4 * header.side**2}")
    return header, np.frombuffer(data, "<i4").reshape(shape).astype(np.int32)


def _opened(path: Path, roots: Roots) -> FileIO:
    try:
        return open_file(path, roots.read)
    except FileNotFoundError as error:
        raise SourceMissingError(path, "no such file", "Check the path.") from error
    except OSError as error:
        raise SourceUnreadableError(path, f"cannot read the file ({error})", "Check its permissions.") from error


def _header(path: Path, data: bytes) -> EsperantoHeader:
    try:
        header = EsperantoHeader.from_bytes(data)
    except HeaderError as error:
        raise NotEsperantoError(
            path, f"not a valid ESPERANTO frame: {error}", "Check whether it is the right file."
        ) from error
    if not 0 < header.side <= LARGEST:
        raise _damaged(path, f"a side of {header.side} pixels")
    return header


def _damaged(path: Path, problem: str) -> NotEsperantoError:
    return NotEsperantoError(path, f"damaged ESPERANTO frame: {problem}", "Convert its source again.")
