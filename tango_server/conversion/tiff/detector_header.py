"""What a detector states in its TIFF: Dectris in the ImageDescription, MarCCD before the pixels."""

from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from tango_server.conversion.dectris import dectris_header, is_dectris_text
from tango_server.conversion.file_state import FileState
from tango_server.conversion.frame_header import NO_HEADER, FrameHeader
from tango_server.conversion.image.own_mask import OwnMask
from tango_server.conversion.marccd.header import HEAD, marccd_header, marccd_size
from tango_server.conversion.tiff.parser import reading
from tango_server.conversion.tiff.structure import Structure

DECTRIS_MASK = OwnMask("negative values", negatives=True, always=False)
"""The mask of Dectris' TIFF and CBF: gaps are -1, bad pixels -2."""


def state_in(path: Path, file: BinaryIO, structure: Structure) -> FileState:
    """Return the state of an open file: of a MarCCD, its size is the proof."""
    state = structure.file_state
    expected = None if _is_no_marccd(structure) else marccd_size(_head(path, file))
    if expected is None or state.state != "complete":
        return state
    if state.size < expected:
        return replace(state, state="incomplete", problem=f"{state.size} of {expected} bytes")
    return replace(state, proof="MarCCD: the file has the size that its header states")


def header_in(path: Path, file: BinaryIO, structure: Structure) -> tuple[FrameHeader, OwnMask | None]:
    """Return the detector's header in an open, complete file, and its own mask."""
    text = structure.pages[0].texts.get("description", "")
    if is_dectris_text(text):
        return dectris_header(text), DECTRIS_MASK
    if _is_no_marccd(structure):
        return NO_HEADER, None
    return marccd_header(_head(path, file)) or NO_HEADER, None


def _is_no_marccd(structure: Structure) -> bool:
    """Whether a file cannot be a MarCCD, without reading it: its directory comes first, and its pixels at byte 4096."""
    return structure.ifd_last or not structure.pages or structure.pages[0].offsets != (HEAD,)


def _head(path: Path, file: BinaryIO) -> bytes:
    with reading(path):
        file.seek(0)
        return file.read(HEAD) or b""
