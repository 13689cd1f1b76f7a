"""One frame of a Lambda: complete when all modules have it, assembled from all of them.

The location names the file of the first module, whose frames are counted. Without their number in the settings, the
modules are those whose files are there: one that comes late changes the identity of the frame's state, and only the
stillness of that can tell that none comes any more.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tango_server.conversion.errors import (
    IncompleteFileError,
    SourceError,
    SourceMissingError,
    UnsupportedImageError,
)
from tango_server.conversion.file_state import FileState
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.files.series_names import module_of
from tango_server.conversion.frame_source import FrameSource, ImageInfo
from tango_server.conversion.hdf5.library import reading
from tango_server.conversion.hdf5.open_files import OpenFiles, open_files
from tango_server.conversion.image.buffers import Workspace
from tango_server.conversion.image.pixels import Image
from tango_server.conversion.lambda_detector.detector import Detector, detector_of, sequence_note
from tango_server.conversion.lambda_detector.module_file import DATA, ModuleFile, stored_bytes
from tango_server.conversion.lambda_detector.modules import ModuleFiles, module_files


def is_lambda_module(location: FrameLocation, roots: Roots = ANYWHERE) -> bool:
    """Whether a file is a module of a Lambda by its name and by what it says of itself.

    False for a file that cannot be read, too: as an ordinary HDF5 file it fails with the reason.

    Raises
    ------
    OutsideRootsError
        if it is outside the folders that may be read.

    """
    named = location.data_set.strip("/") in {"", DATA.strip("/")}
    if not named or module_of(location.file.name) is None:
        return False
    try:
        with open_files(roots) as files:
            return ModuleFile(location.file, files.open(location.file)).is_lambda()
    except SourceError:
        return False


def check_lambda(location: FrameLocation, roots: Roots = ANYWHERE, *, modules: int | None = None) -> FileState:
    """Return the state of one frame, or of the file of the first module.

    A file whose frames are those of an earlier module is complete with 0 frames.

    Parameters
    ----------
    location: of the frame
    roots: the folders that may be read
    modules: how many the detector has, if the settings say so

    Raises
    ------
    SourceError
        if it can never be converted; names the file of the module that is the reason.
    OutsideRootsError
        if a file is outside the folders that may be read.

    """
    found = module_files(location, roots, modules)
    if not found.is_first and location.index is None:
        return FileState("complete", problem=_of_the_first(found), frames=0)
    try:
        with open_files(roots) as files:
            opened = _opened(location, found, files)
            state = _state(location, found, opened)
            if state.state == "complete":
                detector_of(opened)  # whose mask may still be missing
            return state
    except IncompleteFileError as error:
        about = "" if error.path == str(location.file) else f"{Path(error.path).name}: "
        return FileState("incomplete", f"{about}{error.problem}")


@contextmanager
def open_lambda(
    location: FrameLocation, workspace: Workspace, roots: Roots = ANYWHERE, *, modules: int | None = None
) -> Iterator[FrameSource]:
    """Open a frame; parameters and errors are those of `check_lambda`.

    Raises
    ------
    IncompleteFileError
        if a module does not have the frame; names it.

    """
    found = module_files(location, roots, modules)
    with open_files(roots) as files:
        opened = _opened(location, found, files)
        state = _state(location, found, opened)
        state.require_complete(location.file)
        if location.index is None and state.frames != 1:
            raise UnsupportedImageError(location.file, f"it has {state.frames} frames", "Name one by its index.")
        frame = _Frame(detector_of(opened), opened, location.index or 0, workspace)
        yield FrameSource(
            location=location,
            state=state,
            images=(ImageInfo(frame.detector.layout.shape, frame.detector.pixel_type),),
            read=frame.read,
            workspace=workspace,
            header=frame.detector.header,
            own_mask=frame.detector.own_mask,
            note=sequence_note(opened, frame.index),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """A frame to be read while its files are open."""

    detector: Detector
    modules: list[ModuleFile]
    index: int
    workspace: Workspace

    def read(self) -> Iterator[Image]:
        layout = self.detector.layout
        image = self.workspace.array("frame", layout.shape, self.detector.pixel_type)
        image.fill(0)
        for module, (rows, columns) in zip(self.modules, layout.places, strict=True):
            with reading(module.path, f"frame {self.index} does not decode"):
                module.frames().read_direct(image, (self.index,), (rows, columns))
        yield image


def _opened(location: FrameLocation, found: ModuleFiles, files: OpenFiles) -> list[ModuleFile]:
    """Return the open files of all modules; raise `IncompleteFileError` if one is missing."""
    if not found.is_first:
        raise UnsupportedImageError(location.file, _of_the_first(found), "Convert that file.")
    if found.missing:
        missing = ", ".join(found.missing)
        raise IncompleteFileError(location.file, f"missing module: {missing}", "Check whether the detector wrote it.")
    opened = []
    for path in found.files:
        try:
            opened.append(ModuleFile(path, files.open(path)))
        except SourceMissingError as error:
            if path == location.file:
                raise
            raise IncompleteFileError(path, "missing module", "Check whether the detector wrote it.") from error
    return opened


def _state(location: FrameLocation, found: ModuleFiles, opened: list[ModuleFile]) -> FileState:
    """Return the state of a frame in open files, or of all of them."""
    frames = opened[0].frames().shape[0]
    inode, size, modified = opened[0].opened.identity
    if location.index is None and frames > 1:
        every = [module.opened.identity for module in opened]
        size, modified = sum(each[1] for each in every), max(each[2] for each in every)
        return FileState("complete", size=size, mtime_ns=modified, inode=inode, frames=frames)
    index = location.index or 0
    stored = []
    for module in opened:
        data = module.frames()
        stored.append(_stored(data, index, module.path))
        if stored[-1] is None:
            problem = f"{module.path.name} does not have frame {index} yet (its frames: {data.shape[0]})"
            return FileState("incomplete", problem, frames=frames)
    proven = found.counted and all(module.frames().chunks for module in opened)
    # Files that grow with every further frame never become still; what belongs to this frame does.
    return FileState(
        "complete",
        size=sum(filter(None, stored)),
        mtime_ns=modified if proven else 0,
        inode=inode,
        proof=f"all {len(opened)} modules have the frame" if proven else "",
        frames=frames,
    )


def _stored(data: Any, index: int, path: Path) -> int | None:
    if not 0 <= index < data.shape[0]:
        return None
    with reading(path, f"{DATA} cannot be read"):
        return stored_bytes(data, (index,))


def _of_the_first(found: ModuleFiles) -> str:
    return f"module {found.own} of a detector, whose frames are converted from {found.files[0].name}"
