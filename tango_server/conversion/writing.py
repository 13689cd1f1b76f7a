"""Images on their way into a TIFF file: the layout that XDI reads where it can hold them, tifffile's where it can't."""

import io
import struct
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO

from tango_server.conversion.kept_tags import NOTHING_KEPT, KeptTags, Tag
from tango_server.conversion.layout import tiff_header
from tango_server.conversion.provenance import software
from tango_server.conversion.publish import Write, write_parts
from tango_server.conversion.transform import Turning
from tango_server.recipe import Recipe

_CLASSIC_LIMIT = 2**32 - 2**16  # bytes of pixels; offsets of a classic TIFF have 32 bits
_TIFFFILE_NAMES = {"none": None, "deflate": "zlib", "lzw": "lzw", "zstd": "zstd"}


def image_writer(  # noqa: PLR0917 - each is of another type, or named as its parameter
    turnings: Iterator[Turning],
    pages: int,
    recipe: Recipe,
    description: str,
    taken: str,
    kept: KeptTags = NOTHING_KEPT,
) -> Write:
    """Return the function that writes `pages` turned images, one after the other, into an open file.

    `taken` is the DateTime of the acquisition, `kept` are tags of the source.
    A single uncompressed image below 4 GiB gets the layout that XDI reads.
    """
    first = next(turnings)
    if pages == 1 and recipe.compression == "none" and _size(first) + kept.size < _CLASSIC_LIMIT:
        return write_parts(_plain(first, description, taken, kept))
    return _by_tifffile(chain([first], turnings), pages, recipe, description, taken, kept=kept)


def _size(turning: Turning) -> int:
    rows, columns = turning.shape
    return rows * columns * turning.pixel_type.itemsize


def _plain(turning: Turning, description: str, taken: str, kept: KeptTags) -> Iterator[Any]:
    head = tiff_header(
        turning.shape,
        turning.pixel_type,
        description=description,
        software=software(),
        taken=taken,
        kept=kept.of(0),
    )
    little = turning.pixel_type.newbyteorder("<")
    return chain([head], (block.astype(little, copy=False) for block in turning.blocks()))


def _by_tifffile(
    turnings: Iterable[Turning], pages: int, recipe: Recipe, description: str, taken: str, *, kept: KeptTags
) -> Write:
    def write(file: BinaryIO) -> None:
        import tifffile  # noqa: PLC0415 - 0.1 s of import that XDI's layout doesn't need

        compression = _TIFFFILE_NAMES[recipe.compression]
        buffered = io.BufferedRandom(file)  # type: ignore[arg-type]  # an unbuffered file may write less than asked
        try:
            writer: tifffile.TiffWriter | None = None
            for number, turning in enumerate(turnings):
                if writer is None:
                    writer = tifffile.TiffWriter(
                        buffered, bigtiff=pages * _size(turning) + kept.size >= _CLASSIC_LIMIT, byteorder="<"
                    )
                writer.write(
                    turning.whole(),
                    photometric="minisblack",
                    compression=compression,
                    predictor=compression is not None,
                    description=description if number == 0 else None,
                    extratags=[_extra(tag) for tag in kept.of(number)],
                    software=software(),
                    datetime=taken,
                    metadata=None,
                    contiguous=False,
                )
            buffered.flush()
        finally:
            buffered.detach()

    return write


def _extra(tag: Tag) -> tuple[int, int, int, Any, bool]:
    """Return a tag as tifffile wants it: values as bytes, those of rational numbers as integers."""
    code = {5: "I", 10: "i"}.get(tag.kind)
    values = tag.data if code is None else struct.unpack(f"<{2 * tag.count}{code}", tag.data)
    return tag.code, tag.kind, tag.count, values, True
