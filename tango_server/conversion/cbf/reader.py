"""Check and read the frame of a CBF file.

The pixels are decoded by fabio's own extension, which believes what it is given: it reads beyond the end of data that
stop within an escape. So bytes that begin no escape are behind the data: those that follow in the file, or zeros. A
wrong number of pixels shows that the data stopped within one.
"""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tango_server.conversion.cbf.section import Section, read_section
from tango_server.conversion.dectris import dectris_header, is_dectris_text
from tango_server.conversion.errors import IncompleteFileError, SourceUnreadableError
from tango_server.conversion.file_state import FileState
from tango_server.conversion.files.frame_file import open_frame_file
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.frame_header import NO_HEADER
from tango_server.conversion.frame_source import FrameSource, ImageInfo
from tango_server.conversion.image.buffers import Workspace
from tango_server.conversion.image.pixels import Image
from tango_server.conversion.tiff.detector_header import DECTRIS_MASK
from tango_server.conversion.tiff.parser import reading

_BEHIND = 16
"""Bytes behind the data: more than the longest escape reads, each one more pixel."""
_ESCAPE = b"\x80"


def check_cbf(location: FrameLocation, roots: Roots = ANYWHERE) -> FileState:
    """Return the state of a file by its header and size, and by the MD5 of its pixels.

    Raises
    ------
    UnsupportedImageError
        if it is encoded otherwise, or holds other than one image.
    SourceMissingError, SourceUnreadableError
        if it does not exist or cannot be opened.
    OutsideRootsError
        if it is outside the read roots.

    """
    with reading(location.file), open_frame_file(location.file, roots) as file:
        state, section = read_section(location.file, file)
        if section is None or state.state != "complete" or not section.md5:
            return state
        try:
            _require_md5(location.file, _data(location.file, file, section), section)
        except IncompleteFileError as error:
            return replace(state, state="incomplete", problem=error.problem, proof="")
        return state


@contextmanager
def open_cbf(location: FrameLocation, workspace: Workspace, roots: Roots = ANYWHERE) -> Iterator[FrameSource]:
    """Open the frame; raise as `check_cbf` does, and `IncompleteFileError` while its pixels have another MD5."""
    path = location.file
    with reading(path), open_frame_file(path, roots) as file:
        state, section = read_section(path, file)
        state.require_complete(path)
        assert section is not None  # noqa: S101 - a complete file has one
        data = _data(path, file, section)
        if location.proven != state.identity:
            _require_md5(path, data, section)
    if location.index:
        raise SourceUnreadableError(path, f"has one frame, so no frame {location.index}", "Check the request.")
    dectris = is_dectris_text(section.contents)

    def read() -> Iterator[Image]:
        yield _decoded(path, data, section)

    yield FrameSource(
        location=location,
        state=state,
        images=(ImageInfo(section.shape, section.pixel_type),),
        read=read,
        workspace=workspace,
        header=dectris_header(section.contents) if dectris else NO_HEADER,
        own_mask=DECTRIS_MASK if dectris else None,
    )


def _data(path: Path, file: BinaryIO, section: Section) -> bytes:
    """Return the data and `_BEHIND` bytes more."""
    file.seek(section.start)
    data = b""
    while len(data) < section.length:
        more = file.read(section.length + _BEHIND - len(data))
        if not more:
            raise IncompleteFileError(path, "the file shrank while it was read", "Convert it again.")
        data = data + more if data else more
    behind = data[section.length :]
    return data[: section.length] + bytes(_BEHIND) if len(behind) < _BEHIND or _ESCAPE in behind else data


def _require_md5(path: Path, data: bytes, section: Section) -> None:
    """Raise `IncompleteFileError` while the pixels have another MD5 than the header states, if it states one."""
    if section.md5:
        found = base64.b64encode(hashlib.md5(memoryview(data)[:-_BEHIND], usedforsecurity=False).digest()).decode()
        if found != section.md5:
            raise IncompleteFileError(
                path,
                f"the MD5 differs: its pixels have {found}, its header says {section.md5[:60]}",
                "If it is no longer being written, copy it again from its origin.",
            )


def _decoded(path: Path, data: bytes, section: Section) -> Image:
    """Return the pixels; raise `SourceUnreadableError` if they are not as many, or not of the type, as stated."""
    wanted = section.shape[0] * section.shape[1]
    kind = section.pixel_type
    pixels = None
    if kind.itemsize == 4:  # noqa: PLR2004 - bytes of int32; writers count the steps of uint32 modulo 2**32
        pixels = _exactly(data, wanted, wide=False)
    if pixels is not None:
        return pixels.view(kind).reshape(section.shape)
    pixels = _exactly(data, wanted, wide=True)  # another type, or steps that int32 cannot hold
    if pixels is None:
        raise _unreadable(path, f"they are not {section.shape[0]} x {section.shape[1]}")
    limits = np.iinfo(kind)
    low, high = int(pixels.min()), int(pixels.max())
    if kind.itemsize < pixels.itemsize and (low < limits.min or high > limits.max):
        raise _unreadable(path, f"their values, {low} to {high}, are not {kind}")
    return pixels.astype(kind, copy=False).reshape(section.shape)


def _exactly(data: bytes, wanted: int, *, wide: bool) -> np.ndarray[Any, Any] | None:
    """Return the pixels in int32 or int64; None if the data are not exactly those of `wanted` pixels."""
    from fabio.ext import byte_offset  # noqa: PLC0415 - half a second of import that other frames don't need

    decode = byte_offset.dec_cbf if wide else byte_offset.dec_cbf32
    found = np.asarray(decode(data, wanted + _BEHIND + 1))
    return found[:wanted] if len(found) == wanted + _BEHIND else None


def _unreadable(path: Path, why: str) -> SourceUnreadableError:
    return SourceUnreadableError(
        path, f"cannot decode the pixels: {why}", "The file is damaged: copy it again from its origin."
    )
