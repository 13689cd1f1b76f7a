"""Compressed, tiled and striped pages, decoded by tifffile (QXRD's frames are read directly)."""

import struct
import zlib
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from tango_server.conversion.errors import SourceUnreadableError
from tango_server.conversion.image.pixels import Image

if TYPE_CHECKING:
    import tifffile

_DECODER_ERRORS = (
    OSError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, AttributeError, AssertionError,
    MemoryError, struct.error, zlib.error,
)  # fmt: skip


class TifffileDecoder:
    """tifffile on an open file; imported, and the file parsed, for the first page."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._opened: tifffile.TiffFile | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._opened is not None:
            self._opened.close()

    def page(self, number: int) -> Image:
        """Return a page, counted from 0; raise `SourceUnreadableError` if it cannot be decoded."""
        try:
            if self._opened is None:
                import tifffile  # noqa: PLC0415 - 0.1 s of import that QXRD's own files don't need

                self._file.seek(0)
                self._opened = tifffile.TiffFile(self._file)
            image: Image = self._opened.pages[number].asarray(maxworkers=1)
        except _DECODER_ERRORS as error:  # tifffile's own is a ValueError
            raise SourceUnreadableError(
                self._path,
                f"cannot decode the pixels of page {number} ({type(error).__name__}: {error})",
                "Check the file with another program, or copy it again from its origin.",
            ) from error
        return image
