"""Write frames as QXRD does: the same bytes, written in the same order as by libtiff."""

import itertools
import struct
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER_SIZE = 8
_ENTRY_SIZE = 12
_INLINE_SIZE = 4

_SHORT = 3
_LONG = 4
_ASCII = 2

_UNSIGNED = 1
_IEEE_FLOAT = 3

_SAMPLE_FORMATS = {"float32": _IEEE_FLOAT, "uint16": _UNSIGNED, "uint32": _UNSIGNED}

PIXEL_TYPES = tuple(_SAMPLE_FORMATS)
"""Pixel types saved by QXRD: dark-subtracted frames, single raw exposures, summed raw exposures."""


class Stage(StrEnum):
    """The parts of a file, in the order in which they are written."""

    HEADER = "header"
    HALF_PIXELS = "half_pixels"
    PIXELS = "pixels"
    OFFSET = "offset"
    DOCUMENT_NAME = "document_name"
    DATE_TIME = "date_time"
    IFD = "ifd"


def write_frame(path: Path, image: NDArray[Any], *, document_name: str, acquired: datetime) -> None:
    """Write one frame; see `write_stages` for the arguments."""
    for _ in write_stages(path, image, document_name=document_name, acquired=acquired):
        pass


def write_stages(path: Path, image: NDArray[Any], *, document_name: str, acquired: datetime) -> Iterator[Stage]:
    """Write one frame step by step.

    The iterator pauses after each stage, when the bytes so far have been passed to the operating system. If it is
    dropped early, the file stays incomplete, as when QXRD is killed.

    Parameters
    ----------
    path
        Path of a new file: like QXRD, this never overwrites a frame.
    image
        (H, W) array of float32, uint16 or uint32, in any memory order and byte order.
    document_name
        The full path of the frame on the detector's computer.
    acquired
        Local time of the exposure, as written to the tag (which has no time zone).

    """
    pixels = _as_stored(image)
    ifd_offset = _HEADER_SIZE + pixels.nbytes
    entries, values = _directory(pixels, ifd_offset, document_name, acquired)
    data = pixels.reshape(-1).view(np.uint8).data
    half = data.nbytes // 2
    pieces: list[tuple[Stage, int, bytes | memoryview]] = [
        (Stage.HEADER, 0, struct.pack("<2sHI", b"II", 42, 0)),
        (Stage.HALF_PIXELS, _HEADER_SIZE, data[:half]),
        (Stage.PIXELS, _HEADER_SIZE + half, data[half:]),
        (Stage.OFFSET, 4, struct.pack("<I", ifd_offset)),
        *values,
        (Stage.IFD, ifd_offset, entries),
    ]
    with path.open("xb") as file:
        for stage, offset, piece in pieces:
            file.seek(offset)
            file.write(piece)
            file.flush()
            yield stage


def free_name(path: Path) -> Path:
    """Return `path`, or the first of `stem-00001`, `stem-00002`, ... that does not exist, as QXRD does."""
    if not path.exists():
        return path
    numbered = (path.with_name(f"{path.stem}-{n:05d}{path.suffix}") for n in itertools.count(1))
    return next(name for name in numbered if not name.exists())


def _as_stored(image: NDArray[Any]) -> NDArray[Any]:
    """Return the image as stored in the file: C order, little-endian."""
    if image.dtype.name not in _SAMPLE_FORMATS:
        raise TypeError(f"image has pixel type {image.dtype.name}, but QXRD saves only {', '.join(PIXEL_TYPES)}")
    if image.ndim != 2 or image.size == 0:  # noqa: PLR2004
        raise ValueError(f"image must have two dimensions, not the shape {image.shape}")
    return np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("<"))


def _directory(
    pixels: NDArray[Any], ifd_offset: int, document_name: str, acquired: datetime
) -> tuple[bytes, list[tuple[Stage, int, bytes]]]:
    """Return the IFD and the values stored outside it, each with its stage and offset.

    Values of up to four bytes are stored in their IFD entry, so that their stage writes nothing.
    """
    height, width = pixels.shape
    texts = {Stage.DOCUMENT_NAME: _text(document_name), Stage.DATE_TIME: _text(f"{acquired:%Y:%m:%d %H:%M:%S}")}
    tags: list[tuple[int, int, int | Stage]] = [
        (256, _SHORT, width),
        (257, _SHORT, height),
        (258, _SHORT, pixels.itemsize * 8),
        (259, _SHORT, 1),
        (269, _ASCII, Stage.DOCUMENT_NAME),
        (273, _LONG, _HEADER_SIZE),
        (277, _SHORT, 1),
        (279, _LONG, pixels.nbytes),
        (284, _SHORT, 1),
        (306, _ASCII, Stage.DATE_TIME),
        (339, _SHORT, _SAMPLE_FORMATS[pixels.dtype.name]),
    ]
    free = ifd_offset + 2 + len(tags) * _ENTRY_SIZE + 4
    ifd = struct.pack("<H", len(tags))
    values = []
    for tag, kind, value in tags:
        if not isinstance(value, Stage):
            ifd += struct.pack("<HHII", tag, kind, 1, value)
            continue
        text = texts[value]
        if len(text) <= _INLINE_SIZE:
            ifd += struct.pack("<HHI4s", tag, kind, len(text), text)
            values.append((value, free, b""))
            continue
        ifd += struct.pack("<HHII", tag, kind, len(text), free)
        values.append((value, free, text))
        free += len(text) + len(text) % 2
    return ifd + struct.pack("<I", 0), values


def _text(value: str) -> bytes:
    """Return a NUL-terminated ASCII value; characters not in latin-1 become `?`, as on QXRD's Windows PC."""
    return value.encode("latin-1", "replace") + b"\0"
