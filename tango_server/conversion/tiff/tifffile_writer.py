"""TIFFs beyond the layout for XDI, written by tifffile: several pages, compression, more than 4 GiB."""

import io
import struct
from collections.abc import Iterable
from typing import Any, BinaryIO

from tango_server.conversion.files.atomic_write import Write
from tango_server.conversion.image.transform import OutputImage
from tango_server.conversion.provenance import software
from tango_server.conversion.tiff.kept_tags import KeptTags, Tag
from tango_server.recipe import Recipe

CLASSIC_LIMIT = 2**32 - 2**16
"""Bytes of pixels: offsets of a classic TIFF have 32 bits."""
_TIFFFILE_NAMES = {"none": None, "deflate": "zlib", "lzw": "lzw", "zstd": "zstd"}


def tifffile_writer(
    turnings: Iterable[OutputImage], pages: int, recipe: Recipe, description: str, taken: str, *, kept: KeptTags
) -> Write:
    """Return the function that writes `pages` turned images into an open file, as a BigTIFF where they need one."""

    def write(file: BinaryIO) -> None:
        import tifffile  # noqa: PLC0415 - 0.1 s of import that XDI's layout doesn't need

        compression = _TIFFFILE_NAMES[recipe.compression]
        buffered = io.BufferedRandom(file)  # type: ignore[arg-type]  # an unbuffered file may write less than requested
        try:
            writer: tifffile.TiffWriter | None = None
            for number, turning in enumerate(turnings):
                if writer is None:
                    writer = tifffile.TiffWriter(
                        buffered, bigtiff=pages * turning.size + kept.size >= CLASSIC_LIMIT, byteorder="<"
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
    """Return a tag for tifffile: values as bytes, rational numbers as integers."""
    code = {5: "I", 10: "i"}.get(tag.kind)
    values = tag.data if code is None else struct.unpack(f"<{2 * tag.count}{code}", tag.data)
    return tag.code, tag.kind, tag.count, values, True
