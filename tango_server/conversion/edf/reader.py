"""Check and read the frames of an EDF file.

fabio reads zeros where a file was cut off, so blocks are found and read here; each is a frame of its own.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tango_server.conversion.edf.blocks import MAX_BLOCKS, Block, CutOffError, DamagedError, blocks, number_in
from tango_server.conversion.edf.header import edf_header
from tango_server.conversion.errors import IncompleteFileError, UnsupportedImageError
from tango_server.conversion.file_state import FileState, State
from tango_server.conversion.files.frame_file import open_frame_file
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.frame_source import FrameSource, ImageInfo
from tango_server.conversion.image.buffers import Workspace
from tango_server.conversion.image.pixels import Image
from tango_server.conversion.tiff.parser import reading
from tango_server.text import counted


def check_edf(location: FrameLocation, roots: Roots = ANYWHERE) -> FileState:
    """Return the state of one frame, or with `index=None` of the whole file.

    Raises
    ------
    UnsupportedImageError
        if a block is compressed, or holds other than one image.
    SourceMissingError, SourceUnreadableError
        if the file does not exist or cannot be opened.
    OutsideRootsError
        if it is outside the read roots.

    """
    with reading(location.file), open_frame_file(location.file, roots) as file:
        return _state(location, file, _scan(location, file))


@contextmanager
def open_edf(location: FrameLocation, workspace: Workspace, roots: Roots = ANYWHERE) -> Iterator[FrameSource]:
    """Open a frame, with `index=None` the only one; raise as `check_edf` does, `SourceError` if it is not complete."""
    path = location.file
    with reading(path):
        file = open_frame_file(path, roots)
    with file:
        with reading(path):
            scan = _scan(location, file)
            state = _state(location, file, scan)
        state.require_complete(path)
        if state.frames is not None and location.index is None:
            raise UnsupportedImageError(
                path, f"it has {state.frames} frames", "Name one: --frame, or the index of the request."
            )
        block = scan.found[location.index or 0]

        def read() -> Iterator[Image]:
            yield _pixels(path, file, block, workspace)

        yield FrameSource(
            location=location,
            state=state,
            images=(ImageInfo(block.shape, _native(block.pixel_type)),),
            read=read,
            workspace=workspace,
            header=edf_header(block.values),
        )


@dataclass(frozen=True, slots=True)
class _Scan:
    """The blocks up to the wanted one, and why there are no more; no `problem` at the end of the file."""

    found: list[Block]
    state: State
    problem: str


def _scan(location: FrameLocation, file: BinaryIO) -> _Scan:
    if location.index is not None and location.index < 0:
        return _Scan([], "damaged", f"no frame has the index {location.index}")
    found: list[Block] = []
    wanted = MAX_BLOCKS if location.index is None else location.index + 1
    size = os.fstat(file.fileno()).st_size
    try:
        for block in islice(blocks(location.file, file, size), wanted):
            found.append(block)  # noqa: PERF402 - those before an error count
    except CutOffError as error:
        return _Scan(found, "incomplete", str(error))
    except DamagedError as error:
        return _Scan(found, "damaged", str(error))
    return _Scan(found, "complete", "")


def _state(location: FrameLocation, file: BinaryIO, scan: _Scan) -> FileState:
    status = os.fstat(file.fileno())
    state, problem = _finding(location.index, status.st_size, scan)
    several = len(scan.found) > 1 and location.index is None
    grows = several and "num_images" not in scan.found[0].values  # perhaps: it states no number
    return FileState(
        state,
        problem,
        status.st_size,
        status.st_mtime_ns,
        status.st_ino,
        proof="EDF (each block is whole)" if state == "complete" and not grows else "",
        frames=len(scan.found) if several else None,
    )


def _finding(index: int | None, size: int, scan: _Scan) -> tuple[State, str]:
    """Return the state of a frame, or of the whole file, and the problem."""
    for number, block in enumerate(scan.found):
        if block.end > size and index in {None, number}:
            return "incomplete", f"block {number} should end at byte {block.end}, but the file ends at {size}"
    if index is not None and 0 <= index < len(scan.found):
        return "complete", ""
    if scan.problem:
        return scan.state, scan.problem
    return _missing(index, scan.found)


def _missing(index: int | None, found: list[Block]) -> tuple[State, str]:
    try:
        announced = number_in(found[0].values, "Num_Images") if found else None
    except DamagedError:
        announced = None
    held = f"it has {counted(len(found), 'frame')}"
    if index is not None and announced is not None and index >= announced:
        return "damaged", f"{held} and announces {announced}, so none with the index {index}"
    if index is not None:
        return "incomplete", f"{held} so far, none with the index {index}"
    if not found:
        return "incomplete", "it has no frame"
    if announced is not None and announced > len(found):
        return "incomplete", f"{held} of {announced}"
    return "complete", ""


def _pixels(path: Path, file: BinaryIO, block: Block, workspace: Workspace) -> Image:
    pixels = workspace.array("frame", block.shape, block.pixel_type, file_offset=block.start)
    file.seek(block.start)
    view = pixels.reshape(-1).view(np.uint8).data
    with reading(path):
        while view:
            count = file.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise IncompleteFileError(path, "the file shrank while it was read", "Convert it again.")
            view = view[count:]
    return pixels


def _native(pixel_type: np.dtype[Any]) -> np.dtype[Any]:
    return pixel_type.newbyteorder("=")
