"""Tags that a conversion in place keeps.

A detector's header may be in ImageDescription (Pilatus) or in private tags (areaDetector), and exists nowhere else. The
first ImageDescription becomes `original` in our provenance, those of later pages stay, and private tags and the texts
of `structure.KEPT_TAGS` are copied byte for byte, in the byte order of the output.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tango_server.conversion.errors import UnsupportedImageError
from tango_server.conversion.tiff.parser import MAX_TEXT, reading
from tango_server.conversion.tiff.structure import DESCRIPTION, Structure, TagPlace

LARGEST = 16 * 2**20
"""Bytes of all kept tags of a file."""
_RECORD = 4_096  # bytes of our provenance without `original`
_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 1, 7: 1, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8}  # bytes per value, for swapping
_FOLDERS = {34665: "EXIF", 34853: "GPS", 40965: "interoperability"}  # offsets of directories in the old file
_OF_PIXELS = frozenset(range(32_995, 32_999))  # libtiff's, about the storage of pixels, which changes


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag with its values in little-endian order; `kind` is TIFF's field type."""

    code: int
    kind: int
    count: int
    data: bytes


@dataclass(frozen=True, slots=True)
class KeptTags:
    """The tags of each page, and the first ImageDescription (None: there was none)."""

    pages: tuple[tuple[Tag, ...], ...] = ()
    original: str | None = None

    def of(self, page: int) -> tuple[Tag, ...]:
        """Return the tags of a page, counted from 0."""
        return self.pages[page] if page < len(self.pages) else ()

    @property
    def size(self) -> int:
        """Bytes of all tags at most, with their entries."""
        return sum(len(tag.data) + 32 for page in self.pages for tag in page)


NOTHING_KEPT = KeptTags()


def read_kept_tags(path: Path, file: BinaryIO, structure: Structure, *, backup: bool, ours: bool) -> KeptTags:
    """Return the tags to keep of an open file that will be replaced.

    Parameters
    ----------
    backup: the whole file is backed up, so tags that do not fit may be left out
    ours: its first ImageDescription is our provenance

    Raises
    ------
    UnsupportedImageError
        if a tag does not fit and there is no backup.
    """
    lost: list[str] = []
    pages: list[tuple[Tag, ...]] = []
    original, left = None, LARGEST
    for number, page in enumerate(structure.pages):
        tags: list[Tag] = []
        shared = number > 0 and page.kept is structure.pages[0].kept  # a stack with one directory
        for place in () if shared else page.kept:
            first = number == 0 and place.code == DESCRIPTION
            if place.code in _OF_PIXELS or (first and ours):
                continue
            why_not = _unfit(place, structure.size, left)
            if why_not:
                lost.append(f"tag {place.code} of page {number} {why_not}")
                continue
            left -= place.length
            with reading(path):
                data = _read(file, place)
            if first:
                original = _text(data)
                if len(json.dumps(original)) > MAX_TEXT - _RECORD:
                    lost.append(f"its ImageDescription has {len(data)} bytes")
                    original = None
                continue
            tags.append(Tag(place.code, place.kind, place.number, _swapped(data, place.kind, structure.byte_order)))
        pages.append(tuple(sorted(tags, key=lambda tag: tag.code)))
    if lost and not backup:
        raise UnsupportedImageError(
            path,
            f"converting in place would lose tags: {'; '.join(lost[:3])} (limits: about {MAX_TEXT // 2} characters of "
            f"ImageDescription, {LARGEST // 2**20} MiB in all)",
            "Keep a backup (--backup), or convert to a new file.",
        )
    return KeptTags(tuple(pages), original)


def shown_tags(file: BinaryIO, structure: Structure, page: int) -> Iterator[tuple[int, str]]:
    """Yield number and beginning of the value of each kept tag of a page, for display."""
    for place in structure.pages[page].kept:
        if place.code == DESCRIPTION:
            continue
        if place.offset + place.length > structure.size:
            yield place.code, "its value is outside the file"
            continue
        data = _read(file, place, most=400)
        code = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d"}.get(place.kind)
        if place.kind == 2:  # noqa: PLR2004 - ASCII
            yield place.code, _text(data)
        elif code is None:
            yield place.code, f"{place.length} bytes"
        else:
            values = [value for (value,) in struct.iter_unpack(structure.byte_order + code, data)]
            yield place.code, ", ".join(map(str, values[:8])) + (", ..." if place.number > 8 else "")  # noqa: PLR2004


def _unfit(place: TagPlace, size: int, left: int) -> str:
    """Return why a tag cannot be copied; empty if it can."""
    if place.code in _FOLDERS:
        return f"points to a directory ({_FOLDERS[place.code]})"
    if place.kind not in _WIDTHS:
        return f"has the field type {place.kind}"
    if place.offset + place.length > size:
        return "is outside the file"
    return f"has {place.length} bytes" if place.length > left else ""


def _read(file: BinaryIO, place: TagPlace, most: int = LARGEST) -> bytes:
    file.seek(place.offset)
    wanted, data = min(place.length, most), b""
    while len(data) < wanted:
        more = file.read(wanted - len(data))
        if not more:
            raise OSError(0, "it shrank while it was read")
        data += more
    return data


def _text(data: bytes) -> str:
    data = data.rstrip(b"\0")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _swapped(data: bytes, kind: int, byte_order: str) -> bytes:
    width = _WIDTHS[kind]
    if byte_order == "<" or width == 1:
        return data
    return b"".join(data[start : start + width][::-1] for start in range(0, len(data), width))
