"""Where the pixels of a CBF file are and how they are encoded, by its text, without the pixels.

Text and sizes are limited, so that no file can exhaust the memory: byte offset needs 1 to 15 bytes for a pixel, so a
header that promises more pixels than the file has bytes is wrong.

Format: as fabio's `cbfimage` reads it and Dectris' detectors write it.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tango_server.conversion.errors import UnsupportedImageError
from tango_server.conversion.file_state import FileState, State

BYTE_OFFSET = "x-CBF_BYTE_OFFSET"
_SECTION = b"--CIF-BINARY-FORMAT-SECTION--"
_PIXELS = b"\x0c\x1a\x04\xd5"
_FIRST_LOOK = 16_384  # bytes; a Dectris header has some two thousand
_LONGEST_TEXT = 2**20
_LONGEST_BEHIND = 65_536
_LONGEST_STREAM = 2**31 - 1_024  # bytes; the decoder counts in int32
_MOST_BYTES = 15  # for a pixel in byte offset
_MOST_PIXELS = 2**28
_STARTS = (b"#", b"data_", b"_")
_NUMBER = re.compile(r"\d{1,12}", re.ASCII)
_CONVERSIONS = re.compile(r"conversions\s{0,9}=\s{0,9}\"?([\w.+-]{1,60})", re.IGNORECASE)
_NEXT_SECTION = re.compile(_SECTION + rb"[ \t]*\r?\n")
_PIXEL_TYPES = {
    f"{sign} {bits}-bit integer": np.dtype(f"{code}{bits // 8}")
    for sign, code in (("signed", "i"), ("unsigned", "u"))
    for bits in (8, 16, 32, 64)
}


@dataclass(frozen=True, slots=True)
class Section:
    """The binary section of a file.

    Parameters
    ----------
    shape: (rows, columns)
    pixel_type: in which the pixels fit
    start, length: of the encoded pixels, in bytes
    md5: of them, in base64; empty if none is given
    contents: the detector's own header, as it stands in the file

    """

    shape: tuple[int, int]
    pixel_type: np.dtype[Any]
    start: int
    length: int
    md5: str
    contents: str


class _Found(Exception):  # noqa: N818 - it carries a finding between the functions of this module
    """The file is incomplete or damaged."""

    def __init__(self, state: State, problem: str) -> None:
        super().__init__(state, problem)
        self.state: State = state
        self.problem = problem


def read_section(path: Path, file: BinaryIO) -> tuple[FileState, Section | None]:
    """Return the state of an open file, and its binary section if it is complete.

    Raises
    ------
    UnsupportedImageError
        if it is encoded otherwise, or holds other than one image.
    OSError
        if it cannot be read.

    """
    status = os.fstat(file.fileno())
    known: dict[str, Any] = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "inode": status.st_ino}
    try:
        section = _section(path, file, status.st_size)
    except _Found as found:
        return FileState(found.state, found.problem, **known), None
    proof = "CBF (X-Binary-Size and MD5)" if section.md5 else "CBF (X-Binary-Size)"
    return FileState("complete", proof=proof, **known), section


def _section(path: Path, file: BinaryIO, size: int) -> Section:
    text = _text(file, size)
    begin = text.find(_SECTION)
    pixels = text.find(_PIXELS, begin) if begin >= 0 else -1
    before = text[: begin if begin >= 0 else len(text)]
    if pixels < 0:
        _refuse_strangers(path, text)
        if size <= len(text):
            raise _Found("incomplete", f"its header does not end within the {size} bytes of the file")
        raise _Found("damaged", f"no binary section within {len(text)} bytes")
    if _in_loop(before):
        raise _unsupported(path, "an imgCIF file with its arrays in a loop")
    mime = text[begin:pixels].decode("latin-1")
    fields = _fields(mime)
    _require_byte_offset(path, mime, fields)
    section = _checked(path, fields, pixels + len(_PIXELS), before.decode("latin-1"))
    end = section.start + section.length
    if end > size:
        raise _Found("incomplete", f"the pixels should end at byte {end}, but the file ends at {size}")
    file.seek(end)
    if _NEXT_SECTION.search(file.read(_LONGEST_BEHIND)):
        raise _unsupported(path, "an imgCIF file with several binary sections")
    return section


def _in_loop(before: bytes) -> bool:
    """Whether the names before the section, the last of which is that of the arrays, are those of a loop."""
    words = before.split()
    if b"_array_data.data" not in words:
        return False
    place = words.index(b"_array_data.data")
    while place and words[place].startswith(b"_"):
        place -= 1
    return words[place].lower() == b"loop_"


def _text(file: BinaryIO, size: int) -> bytes:
    """Return the beginning of the file with all of its text, as far as it is there."""
    file.seek(0)
    text = file.read(_FIRST_LOOK)
    if not text.strip(b"\0"):
        raise _Found("incomplete", "it is empty, or starts with zeros: the header is not written yet")
    start = text.lstrip()
    if not start.startswith(_STARTS):
        raise _Found("damaged", f"not a CBF file: it starts with {start[:8]!r}")
    if size > len(text) and _PIXELS not in text:
        text += file.read(_LONGEST_TEXT)
    return text


def _fields(mime: str) -> dict[str, str]:
    """Return the header fields of the section, with their names in lower case."""
    pairs = (line.partition(":") for line in mime.splitlines())
    return {name.strip().lower(): value.strip(' \t;"') for name, colon, value in pairs if colon}


def _require_byte_offset(path: Path, mime: str, fields: dict[str, str]) -> None:
    conversion = _CONVERSIONS.search(mime)
    encoding = conversion[1] if conversion else "no compression"
    if encoding.lower() != BYTE_OFFSET.lower():
        raise _unsupported(path, f"pixels in the encoding {encoding}")
    transfer = fields.get("content-transfer-encoding", "BINARY")
    if transfer.upper() != "BINARY":
        raise _unsupported(path, f"pixels in the transfer encoding {transfer[:60]}")
    order = fields.get("x-binary-element-byte-order", "LITTLE_ENDIAN")
    if order.upper() != "LITTLE_ENDIAN":
        raise _unsupported(path, f"pixels in the byte order {order[:60]}")


def _checked(path: Path, fields: dict[str, str], start: int, before: str) -> Section:
    kind = fields.get("x-binary-element-type", "no stated type")
    if kind.lower() not in _PIXEL_TYPES:
        raise _unsupported(path, f"pixels of {kind[:60]}")
    if _number(fields, "X-Binary-Size-Third-Dimension", 1) != 1:
        raise _unsupported(path, "an imgCIF file with a third dimension (several panels or frames)")
    rows = _number(fields, "X-Binary-Size-Second-Dimension")
    columns = _number(fields, "X-Binary-Size-Fastest-Dimension")
    length = _number(fields, "X-Binary-Size")
    elements = _number(fields, "X-Binary-Number-of-Elements", rows * columns)
    if not elements or elements != rows * columns:
        raise _Found("damaged", f"its header names {rows} x {columns} pixels and {elements} elements")
    if not elements <= length <= _MOST_BYTES * elements:
        raise _Found("damaged", f"its header names {length} bytes for {rows} x {columns} pixels, which cannot be")
    if length > _LONGEST_STREAM or elements > _MOST_PIXELS:
        raise _unsupported(path, f"an image of {rows} x {columns} pixels in {length} bytes")
    return Section(
        (rows, columns), _PIXEL_TYPES[kind.lower()], start, length, fields.get("content-md5", ""), _contents(before)
    )


def _number(fields: dict[str, str], name: str, default: int | None = None) -> int:
    text = fields.get(name.lower())
    if text is None and default is not None:
        return default
    if text is None or not _NUMBER.fullmatch(text):
        raise _Found("damaged", f"{name} is not a number" if text else f"{name} is missing")
    return int(text)


def _contents(before: str) -> str:
    """Return the value of `_array_data.header_contents`: a text between lines that start with a semicolon."""
    _, found, rest = before.partition("_array_data.header_contents")
    lines = rest.splitlines()[1:] if found else []
    if not lines or not lines[0].startswith(";"):
        return ""
    ends = [number for number, line in enumerate(lines[1:], 1) if line.startswith(";")]
    return "\n".join([lines[0][1:], *lines[1 : ends[0] if ends else len(lines)]])


def _refuse_strangers(path: Path, text: bytes) -> None:
    """Refuse at once what will never have a section: the CBF of FIT2D and of imgCIF before version 1."""
    introduction = text[:_FIRST_LOOK].partition(b"_array_data.header_contents")[0].lower()
    if b"START OF BINARY" in text or (b"fit2d" in introduction and _SECTION not in text):
        raise _unsupported(path, "a CBF file of FIT2D, or of a version before 1.0")


def _unsupported(path: Path, what: str) -> UnsupportedImageError:
    return UnsupportedImageError(
        path,
        f"cannot convert {what}: of CBF, only one image with the encoding {BYTE_OFFSET} is supported",
        "Convert it with another program first.",
    )
