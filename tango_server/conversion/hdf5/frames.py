"""Frames in HDF5 files: whether one is complete, and how it is read. `discovery` has the rules by which it is found.

`check_hdf5` proves that the chunks of a frame are written, by their addresses, and that the sources of a virtual data
set are there, long enough and mapped to the whole frame. What has no such proof is left to the stillness of the file.
A threshold is named behind the data set: `file.h5::/entry/data/data[:,1]`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tango_server.conversion.errors import IncompleteFileError, SourceUnreadableError, UnsupportedImageError
from tango_server.conversion.file_state import FileState, State
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.frame_source import FrameSource, ImageInfo
from tango_server.conversion.hdf5.detector import description_of
from tango_server.conversion.hdf5.discovery import Found, find_frames
from tango_server.conversion.hdf5.header import header_of, lost_frames
from tango_server.conversion.hdf5.links import NAME_IT, WAIT
from tango_server.conversion.hdf5.mask import own_mask_of, require_mask
from tango_server.conversion.hdf5.open_files import HDF5File, OpenFiles, open_files
from tango_server.conversion.hdf5.pixels import read_regions
from tango_server.conversion.hdf5.series import Series
from tango_server.conversion.hdf5.stack import Stack
from tango_server.conversion.hdf5.storage import require_all_written, require_written
from tango_server.conversion.hdf5.virtual import Region, regions_of
from tango_server.conversion.image.buffers import Workspace
from tango_server.conversion.image.pixels import Image
from tango_server.text import counted, printable

_PROOF = "every chunk of the frame is written"
_PROOF_OF_SOURCES = "all virtual sources of the frame are there, and every chunk is written"
_PROOF_OF_ALL = "every chunk is written"
_MOST_CHECKED = 1_000
"""Frames of a virtual data set that are checked when it is counted, evenly spread: each is checked again by its job."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """One frame: row `row` of a `stack`, with the places of its pixels, and how it was proven to be complete."""

    stack: Stack
    row: int
    regions: list[Region]
    proof: str


def check_hdf5(location: FrameLocation, roots: Roots) -> FileState:
    """Return the state of a frame, or of a whole file with the number of its frames, also of one that is not complete.

    The frames of a file that is damaged or incomplete may be complete, each for itself.

    Raises
    ------
    SourceError
        if it can never be converted: no numbers, several data sets that may be meant, a missing plugin; or if there is
        no such file.
    OutsideRootsError
        if it is outside the folders that may be read, or leads there.

    """
    used: list[OpenFiles] = []
    frames: list[int] = []
    state: State = "complete"
    problem = proof = ""
    try:
        with open_files(roots) as files:
            used.append(files)
            file = files.open(location.file)
            files.use(file)
            found = _found(files, file, location.data_set)
            if location.index is None:
                frames.append(_count(files, found))
                proof = _proof_of_all(files, file, found, frames[0])
                problem = "" if frames[0] else "it has no image"
            else:
                frame = _frame(files, file, found, location.index)
                require_mask(files, description_of(files, file, location.data_set, frame.stack), frame.stack)
                proof = frame.proof
    except IncompleteFileError as error:
        state, problem = "incomplete", _problem(location, error)
    except SourceUnreadableError as error:
        state, problem = "damaged", _problem(location, error)
    inode, size, modified = used[0].identity_with(location.file)
    return FileState(state, problem, size, modified, inode, proof, frames[0] if frames else None)


@contextmanager
def open_hdf5(location: FrameLocation, workspace: Workspace, roots: Roots) -> Iterator[FrameSource]:
    """Open a frame that is complete; without an index the only one of the file. Its pixels are read into `workspace`.

    Raises
    ------
    SourceError
        if it is not complete, cannot be read, or is one of several.
    OutsideRootsError
        if it is outside the folders that may be read, or leads there.

    """
    with open_files(roots) as files:
        file = files.open(location.file)
        files.use(file)
        found = _found(files, file, location.data_set)
        index = _only(files, file, found) if location.index is None else location.index
        frame = _frame(files, file, found, index)
        stack = frame.stack
        described = description_of(files, file, location.data_set, stack)
        require_mask(files, described, stack)
        own_mask = own_mask_of(files, described, stack)
        masked = own_mask is not None and own_mask.pixels is not None

        def read() -> Iterator[Image]:
            image = workspace.array("frame", (stack.rows, stack.columns), stack.pixel_type)
            read_regions(files, frame.regions, image)
            yield image

        inode, size, modified = files.identity
        yield FrameSource(
            location,
            FileState("complete", "", size, modified, inode, frame.proof),
            (ImageInfo((stack.rows, stack.columns), stack.pixel_type.newbyteorder("=")),),
            read,
            workspace,
            header=header_of(files, described, stack, index, masked=masked),
            own_mask=own_mask,
            note=lost_frames(files, described, index),
        )


def _found(files: OpenFiles, file: HDF5File, data_set: str) -> Found | None:
    """Return the frames of a file; they are searched once."""
    key = ("frames", data_set)
    if key not in file.notes:
        file.notes[key] = find_frames(files, file, data_set)
    found: Found | None = file.notes[key]
    return found


def _frame(files: OpenFiles, file: HDF5File, found: Found | None, index: int) -> _Frame:
    if found is None:
        raise IncompleteFileError(file.named, "it has no image", WAIT)
    stack, row = found.locate(files, index) if isinstance(found, Series) else (found, index)
    whole = Region(stack.place, stack.at(row), (0, stack.rows), (0, stack.columns))
    regions = regions_of(files, whole)
    written = [require_written(files, each) for each in regions]
    proof = _PROOF if regions == [whole] else _PROOF_OF_SOURCES
    return _Frame(stack, row, regions, proof if all(written) else "")


def _count(files: OpenFiles, found: Found | None) -> int:
    if found is None:
        return 0
    return found.frames(files) if isinstance(found, Series) else found.frames


def _only(files: OpenFiles, file: HDF5File, found: Found | None) -> int:
    """Return the index of the only frame of a file."""
    count = _count(files, found)
    if found is not None and count != 1:
        advice = "Name one: --frame, or the index of the request." if count else NAME_IT
        raise UnsupportedImageError(file.named, f"it has {counted(count, 'frame')}", advice)
    return 0


def _proof_of_all(files: OpenFiles, file: HDF5File, found: Found | None, frames: int) -> str:
    """Require that all frames are written; return how that is proven, and that no more will come."""
    if isinstance(found, Series):
        parts = found.parts(files)
        for part in parts:
            if part.problem:
                raise part.problem
        stacks = [part.stack for part in parts if part.stack]
    else:
        stacks = [found] if found else []
    proven = bool(frames) and not file.swmr
    for stack in stacks:
        proven = _all_written(files, stack) and proven
    return _PROOF_OF_ALL if proven else ""


def _all_written(files: OpenFiles, stack: Stack) -> bool:
    """Require that all frames of a data set are written; return whether it is proven."""
    if stack.grows and not stack.frames:
        raise IncompleteFileError(stack.place.file.named, f"{printable(stack.place.name)} has no frame yet", WAIT)
    whole = Region(stack.place, stack.at(0), (0, stack.rows), (0, stack.columns)) if stack.frames else None
    if whole is None or regions_of(files, whole) == [whole]:
        return bool(require_all_written(files, stack)) and not stack.grows
    rows = range(0, stack.frames, max(1, stack.frames // _MOST_CHECKED))
    proven = not stack.grows and len(rows) == stack.frames
    for row in rows:
        region = Region(stack.place, stack.at(row), (0, stack.rows), (0, stack.columns))
        for each in regions_of(files, region):
            proven = require_written(files, each) and proven
    return proven


def _problem(location: FrameLocation, error: IncompleteFileError | SourceUnreadableError) -> str:
    return error.problem if error.path == str(location.file) else f"{error.path}: {error.problem}"
