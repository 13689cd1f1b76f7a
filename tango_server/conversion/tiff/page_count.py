"""The number of images in a TIFF whose description names more than its directories.

ImageJ writes one directory for a whole stack, and tifffile may: `images=5` in the description, or a shape. Other
readers see one image. A contiguous ImageJ stack is read as tifffile reads it; every other such file is refused.
"""

import json
from dataclasses import replace
from math import prod
from pathlib import Path

from tango_server.conversion.errors import UnsupportedImageError
from tango_server.conversion.tiff.structure import Page, Structure

_MOST = 65_536


def all_pages(path: Path, structure: Structure) -> tuple[Page, ...]:
    """Return the pages of a complete file, with those that only its description names.

    Raises
    ------
    UnsupportedImageError
        if it has fewer images than it says.
    """
    pages = structure.pages
    text = pages[0].texts.get("description", "") if pages else ""
    promised = max(_of_imagej(text), _of_tifffile(text, pages))
    if promised <= len(pages):
        return pages
    if text.startswith("ImageJ=") and len(pages) == 1 and promised <= _MOST:
        stack = _stack(pages[0], promised, structure.size)
        if stack:
            return stack
    raise UnsupportedImageError(
        path,
        f"the file has {promised} images by its description, but {len(pages)} in its directories",
        "Write each image into its own directory or file first.",
    )


def _of_imagej(text: str) -> int:
    """Return the number of images in a description by ImageJ, 0 for others."""
    if not text.startswith("ImageJ="):
        return 0
    value = next((line[7:] for line in text.splitlines() if line.startswith("images=")), "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0  # noqa: PLR2004


def _of_tifffile(text: str, pages: tuple[Page, ...]) -> int:
    """Return the number of images in a description by tifffile, 0 for others."""
    if not text.startswith('{"shape":'):
        return 0
    try:
        shape = json.loads(text)["shape"]
    except (ValueError, RecursionError):
        return 0
    rows, columns = pages[0].shape
    if not isinstance(shape, list) or not all(type(side) is int and 0 < side <= _MOST for side in shape):
        return 0
    return prod(shape) // max(rows * columns, 1)


def _stack(page: Page, images: int, size: int) -> tuple[Page, ...]:
    """Return the pages of a contiguous, uncompressed stack, none for others."""
    rows, columns = page.shape
    frame = rows * columns * page.bits[0] // 8
    ends = [offset + count for offset, count in zip(page.offsets, page.counts, strict=True)]
    in_one_piece = (
        bool(ends) and list(page.offsets[1:]) == ends[:-1] and ends[-1] - page.offsets[0] in {frame, frame * images}
    )
    plain = all(page.tags.get(tag, 1) == 1 for tag in (259, 266, 277, 317)) and 322 not in page.tags  # noqa: PLR2004
    if not (in_one_piece and plain and frame and page.offsets[0] + images * frame <= size):
        return ()
    return tuple(
        replace(page, offsets=(page.offsets[0] + number * frame,), counts=(frame,)) for number in range(images)
    )
