"""The blocks of an EDF file by their headers, without the pixels.

A block is a header in braces and the pixels behind it, perhaps with padding. A header that names an
`EDF_DataFormatVersion` has no pixels; its values hold for all blocks. Where a header ends is found by its brace, as
fabio does it, whatever `EDF_HeaderSize` says. Headers and blocks are limited, so that no file can exhaust the memory.

Format: as fabio's `edfimage` reads it; names by P. Boesecke, "Keywords for SAXS Data in EDF Files" (ESRF).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tango_server.conversion.errors import UnsupportedImageError

MAX_BLOCKS = 65_536
_FIRST_LOOK = 4_096  # bytes
_LONGEST_HEADER = 262_144
_LARGEST = 2**31  # bytes of one image
_END = re.compile(rb"}\r?\n")
_BLANK = b" \t\r\n\0"
_NUMBER = re.compile(r"(\d{1,12})(?:\.0*)?", re.ASCII)
_PIXEL_TYPES = {
    "i1": ("SignedByte", "Signed8"),
    "u1": ("UnsignedByte", "Unsigned8"),
    "i2": ("SignedShort", "Signed16"),
    "u2": ("UnsignedShort", "Unsigned16", "UnsignedShortInteger"),
    "i4": ("SignedInteger", "Signed32", "SignedLong"),
    "u4": ("UnsignedInteger", "Unsigned32", "UnsignedLong"),
    "i8": ("Signed64",),
    "u8": ("Unsigned64",),
    "f4": ("FloatValue", "Float", "FloatIEEE32", "Float32"),
    "f8": ("Double", "DoubleValue", "FloatIEEE64", "DoubleIEEE64"),
}
_BY_NAME = {name.lower(): code for code, names in _PIXEL_TYPES.items() for name in names}


@dataclass(frozen=True, slots=True)
class Block:
    """One image of a file.

    Parameters
    ----------
    shape: (rows, columns)
    pixel_type: with the byte order of the file
    start: of the pixels, in bytes
    space: that the pixels and their padding take, in bytes
    values: of its header and the general one, by names in lower case

    """

    shape: tuple[int, int]
    pixel_type: np.dtype[Any]
    start: int
    space: int
    values: Mapping[str, str]

    @property
    def end(self) -> int:
        """Where the pixels end, without padding."""
        return self.start + self.shape[0] * self.shape[1] * self.pixel_type.itemsize


class CutOffError(Exception):
    """The file ends within a header; the message says where."""


class DamagedError(Exception):
    """A header can never be right; the message says why."""


def number_in(values: Mapping[str, str], name: str) -> int | None:
    """Return an integer of a header, None if it has none; raise `DamagedError` if that is none."""
    text = values.get(name.lower())
    if text is None:
        return None
    found = _NUMBER.fullmatch(text)
    if not found:
        raise DamagedError(f"{name} is not a number")
    return int(found[1])


def blocks(path: Path, file: BinaryIO, size: int) -> Iterator[Block]:
    """Yield the blocks of an open file of `size` bytes; the pixels of the last one may be missing.

    Raises
    ------
    CutOffError, DamagedError
        if a header is not complete, or can never be.
    UnsupportedImageError
        if a block is compressed, or holds other than one image.

    """
    general: dict[str, str] = {}
    place = 0
    for number in range(MAX_BLOCKS):
        found = _header(file, place, size, number)
        if found is None:
            return
        own, start = found
        if "edf_dataformatversion" in own:
            general = own
            place = start + (number_in(own, "EDF_BinarySize") or 0)
            continue
        values = {**{name: text for name, text in general.items() if not _is_own(name)}, **own}
        block = _block(path, values, start, number)
        yield block
        place = start + block.space
    raise DamagedError(f"it has more than {MAX_BLOCKS} blocks")


def _is_own(name: str) -> bool:
    """Whether a value of the general header is for that block alone."""
    return name.startswith("edf_") or name in {"size", "image", "headerid"}


def _header(file: BinaryIO, place: int, size: int, number: int) -> tuple[dict[str, str], int] | None:
    """Return the values of the header at `place` and where it ends; None at the end of the file."""
    if place >= size and number:
        return None
    file.seek(place)
    text = file.read(_FIRST_LOOK)
    begin = text.lstrip(_BLANK)[:1]
    if not begin:
        _require_padding(file, place, size, number)
        return None
    if begin != b"{":
        start = text.lstrip(_BLANK)[:8]
        raise DamagedError(f"{'no header follows' if number else 'not an EDF file: it starts with'} {start!r}")
    end = _END.search(text)
    if end is None and len(text) == _FIRST_LOOK:
        text += file.read(_LONGEST_HEADER)
        end = _END.search(text)
    if end is None and place + len(text) < size:
        raise DamagedError(f"the header of block {number} has no end within {len(text)} bytes")
    if end is None:
        raise CutOffError(f"the header of block {number} does not end within the {size} bytes of the file")
    pairs = (each.partition("=") for each in text[text.index(b"{") + 1 : end.start()].decode("latin-1").split(";"))
    blank = _BLANK.decode()
    values = {name.strip(blank).lower(): value.strip(blank) for name, equals, value in pairs if equals}
    return values, place + end.end()


def _require_padding(file: BinaryIO, place: int, size: int, number: int) -> None:
    """Raise unless the rest of the file is padding."""
    if not number:
        raise CutOffError("it is empty, or starts with zeros: the header is not written yet")
    if size - place <= _LONGEST_HEADER and not file.read(_LONGEST_HEADER).strip(_BLANK):
        return
    raise DamagedError(f"no header follows block {number - 1}")


def _block(path: Path, values: dict[str, str], start: int, number: int) -> Block:
    _refuse_others(path, values)
    columns, rows = number_in(values, "Dim_1"), number_in(values, "Dim_2")
    kind = values.get("datatype", "no stated type")
    if kind.lower() not in _BY_NAME:
        raise _unsupported(path, f"pixels of the type {kind[:60]}")
    pixel_type = np.dtype(_BY_NAME[kind.lower()]).newbyteorder(_byte_order(path, values, kind))
    if not rows or not columns:
        raise DamagedError(f"block {number} has no pixels: Dim_1 or Dim_2 is missing or 0")
    needed = rows * columns * pixel_type.itemsize
    if needed > _LARGEST:
        raise _unsupported(path, f"an image of {rows} x {columns} pixels, more than {_LARGEST} bytes")
    stated = [each for each in (number_in(values, "Size"), number_in(values, "EDF_BinarySize")) if each is not None]
    space = stated[0] if stated else needed
    if space < needed or len(set(stated)) > 1:
        raise DamagedError(f"block {number} has {rows} x {columns} pixels of {kind[:60]}, but its size is {stated}")
    return Block((rows, columns), pixel_type, start, space, values)


def _byte_order(path: Path, values: dict[str, str], kind: str) -> Any:
    order = values.get("byteorder", "")
    if "Low" in order:
        return "<"
    if "High" in order:
        return ">"
    if np.dtype(_BY_NAME[kind.lower()]).itemsize == 1:
        return "="
    raise _unsupported(path, f"pixels in the byte order {order[:60]!r}")


def _refuse_others(path: Path, values: dict[str, str]) -> None:
    compression = values.get("compression", "none")
    if not compression.lower().startswith("no"):
        raise _unsupported(path, f"pixels with the compression {compression[:60]}")
    if "edf_binaryfilename" in values:
        raise _unsupported(path, "pixels in another file (EDF_BinaryFileName)")
    further = {
        name: text for name, text in values.items() if name.startswith("dim_") and name not in {"dim_1", "dim_2"}
    }
    if any(text != "1" for text in further.values()):
        raise _unsupported(path, f"a block of {2 + len(further)} dimensions")


def _unsupported(path: Path, what: str) -> UnsupportedImageError:
    return UnsupportedImageError(
        path,
        f"cannot convert {what}: of EDF, only uncompressed blocks of one image each are supported",
        "Convert it with another program first.",
    )
