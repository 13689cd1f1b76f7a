"""From a file to an array: the uncompressed single strip of QXRD directly, everything else through tifffile."""

from pathlib import Path
from typing import Any

import numpy as np

from tango_server.conversion.errors import SourceMissingError, SourceUnreadableError, UnsupportedImageError
from tango_server.conversion.pixels import Image
from tango_server.conversion.structure import Page, Structure, read_structure

_KINDS = {1: "u", 2: "i", 3: "f"}
_UNCOMPRESSED = 1
_TOP_LEFT = 1


def read_image(path: Path, structure: Structure) -> Image:
    """Return the image of a complete file as an array (rows, columns) in the file's pixel type.

    Raises
    ------
    UnsupportedImageError
        if the file holds several images, several samples per pixel, no pixels, or a type we can't convert rightly.
    SourceUnreadableError, SourceMissingError
        if the pixels can't be decoded, or the file went away meanwhile.

    """
    page = _only_page(path, structure)
    try:
        if _is_plain_strip(page):
            return _read_strip(path, page, structure)
        return _read_with_tifffile(path)
    except FileNotFoundError:
        raise SourceMissingError(path, "it went away while it was read", "a file", "Was it moved or deleted?") from None
    except (OSError, ValueError) as error:
        raise SourceUnreadableError(
            path, f"its pixels can't be decoded ({error})", "an intact TIFF", "Check the file with another program."
        ) from error


def read_whole(path: Path) -> Image:
    """Return the image of the file at `path`; raise a `SourceError` if it is not a complete file that we can read."""
    structure = read_structure(path)
    structure.require_complete(path)
    return read_image(path, structure)


def pixel_type_of(page: Page) -> np.dtype[Any] | None:
    """Return the native numpy type of the pixels of `page`, None if there is no such type."""
    try:
        return np.dtype(f"{_KINDS[page.sample_formats[0]]}{page.bits[0] // 8}")
    except (KeyError, TypeError):
        return None


def _only_page(path: Path, structure: Structure) -> Page:
    def refuse(found: str) -> UnsupportedImageError:
        return UnsupportedImageError(path, found, "one grey image of 8 to 64 bits", "Convert it by other means first.")

    if len(structure.pages) != 1:
        raise refuse(f"{len(structure.pages)} images")
    (page,) = structure.pages
    rows, columns = page.shape
    if not rows or not columns or not page.offsets:
        raise refuse(f"an image of {rows} x {columns} pixels in {len(page.offsets)} strips")
    if page.tags.get(277, 1) != 1 or len(page.bits) != 1:
        raise refuse(f"{page.tags.get(277, 1)} samples per pixel")
    if page.bits[0] not in {8, 16, 32, 64} or pixel_type_of(page) is None:
        raise refuse(f"pixels of {page.bits[0]} bits in sample format {page.sample_formats[0]}")
    if page.tags.get(274, _TOP_LEFT) != _TOP_LEFT:
        raise refuse(f"an orientation tag of {page.tags[274]}, which programs disagree about")
    return page


def _is_plain_strip(page: Page) -> bool:
    rows, columns = page.shape
    size = rows * columns * page.bits[0] // 8
    return page.tags.get(259, _UNCOMPRESSED) == _UNCOMPRESSED and len(page.offsets) == 1 and page.counts[0] == size


def _read_strip(path: Path, page: Page, structure: Structure) -> Image:
    rows, columns = page.shape
    pixel_type = pixel_type_of(page)
    assert pixel_type is not None  # noqa: S101 - _only_page has checked it
    pixels = np.fromfile(
        path, dtype=pixel_type.newbyteorder(structure.byte_order), count=rows * columns, offset=page.offsets[0]
    )
    return pixels.reshape(rows, columns)


def _read_with_tifffile(path: Path) -> Image:
    import tifffile  # noqa: PLC0415 - 0.1 s of import that QXRD's own files don't need

    image: Image = tifffile.imread(path)
    return image
