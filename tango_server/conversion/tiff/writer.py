"""Write TIFF files: the layout that XDI reads if possible, otherwise by tifffile.

XDI is known to read the output of fabio's writer: little-endian classic TIFF, one image file directory at byte 8 with
twelve entries, then the texts, then one uncompressed strip. Tags kept from the source are added to the directory.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, BinaryIO

import numpy as np

from tango_server.conversion.files.atomic_write import Write, write_parts
from tango_server.conversion.image.transform import OutputImage
from tango_server.conversion.provenance import software
from tango_server.conversion.tiff.kept_tags import NOTHING_KEPT, KeptTags, Tag
from tango_server.conversion.tiff.tifffile_writer import CLASSIC_LIMIT, tifffile_writer
from tango_server.recipe import Recipe

_SAMPLE_FORMAT = {"u": 1, "i": 2, "f": 3}
_SHORT, _LONG, _ASCII = 3, 4, 2
_IFD_AT = 8
_ENTRIES = 12
_SEARCHED = 8192  # bytes
_INLINE = 4  # bytes of a value in its entry
_STRIP_ALIGNMENT = 64  # a cache line; fabio's varies, and the tags say where the strip is


def image_writer(  # noqa: PLR0917 - each is of another type, or named as its parameter
    turnings: Iterator[OutputImage],
    pages: int,
    recipe: Recipe,
    description: str,
    taken: str,
    kept: KeptTags = NOTHING_KEPT,
) -> Write:
    """Return the function that writes `pages` turned images, one after the other, into an open file.

    `taken` is the DateTime of the acquisition, `kept` are tags from the source.
    A single uncompressed image below 4 GiB gets the layout that XDI reads.
    """
    first = next(turnings)
    if pages == 1 and recipe.compression == "none" and first.size + kept.size < CLASSIC_LIMIT:
        return write_parts(_plain(first, description, taken, kept))
    return tifffile_writer(chain([first], turnings), pages, recipe, description, taken, kept=kept)


def counted(write: Write, description: str, final: Callable[[], str]) -> Write:
    """Return the function that writes an image and then replaces its description by `final()`, of the same length.

    The counts in it are known only after the last block.
    """

    def write_twice(file: BinaryIO) -> None:
        write(file)
        end = file.tell()
        file.seek(_place_of(description.encode("ascii"), file))
        file.write(final().encode("ascii"))
        file.seek(end)

    return write_twice


def _place_of(text: bytes, file: BinaryIO) -> int:
    """Return the offset of a text, which is near the beginning of a file."""
    size = 2 * len(text) + _SEARCHED
    while True:
        file.seek(0)
        data = file.read(size)
        if (place := data.find(text)) >= 0:
            return place
        if len(data) < size:
            raise ValueError("the file has no such text")
        size *= 8


def _plain(turning: OutputImage, description: str, taken: str, kept: KeptTags) -> Iterator[Any]:
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


def tiff_header(
    shape: tuple[int, int],
    pixel_type: np.dtype[Any],
    *,
    description: str,
    software: str,
    taken: str,
    kept: Sequence[Tag] = (),
) -> bytes:
    """Return everything before the pixels of a frame of `shape` (rows, columns); the strip follows directly.

    `taken` is the DateTime of the acquisition, `YYYY:MM:DD HH:MM:SS`; `kept` are other tags from the source.
    """
    rows, columns = shape
    outside = [tag.data for tag in kept if len(tag.data) > _INLINE]
    texts = [*(text.encode("ascii") + b"\0" for text in (description, software, taken)), *outside]
    count = _ENTRIES + len(kept)
    texts_at = _IFD_AT + 2 + count * 12 + 4
    places, end = [], texts_at
    for text in texts:
        places.append(end)
        end += len(text) + len(text) % 2
    strip_at = end + -end % _STRIP_ALIGNMENT
    entries = [
        _integer(256, _LONG, columns),
        _integer(257, _LONG, rows),
        _integer(258, _SHORT, pixel_type.itemsize * 8),
        _integer(259, _SHORT, 1),
        _integer(262, _SHORT, 1),
        struct.pack("<HHII", 270, _ASCII, len(texts[0]), places[0]),
        _integer(273, _LONG, strip_at),
        _integer(278, _LONG, rows),
        _integer(279, _LONG, rows * columns * pixel_type.itemsize),
        struct.pack("<HHII", 305, _ASCII, len(texts[1]), places[1]),
        struct.pack("<HHII", 306, _ASCII, len(texts[2]), places[2]),
        _integer(339, _SHORT, _SAMPLE_FORMAT[pixel_type.kind]),
    ]
    further = iter(places[3:])
    for tag in kept:
        value = struct.pack("<I", next(further)) if len(tag.data) > _INLINE else tag.data.ljust(_INLINE, b"\0")
        entries.append(struct.pack("<HHI4s", tag.code, tag.kind, tag.count, value))
    entries.sort(key=lambda entry: int.from_bytes(entry[:2], "little"))
    head = struct.pack("<2sHI", b"II", 42, _IFD_AT) + struct.pack("<H", count) + b"".join(entries) + b"\0" * 4
    for place, text in zip(places, texts, strict=True):
        head = head.ljust(place, b"\0") + text
    return head.ljust(strip_at, b"\0")


def _integer(tag: int, kind: int, value: int) -> bytes:
    return struct.pack("<HHIHxx" if kind == _SHORT else "<HHII", tag, kind, 1, value)
