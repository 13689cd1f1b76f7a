"""One frame of a Lambda: complete when all modules have it, assembled from all of them.

The location names the file of the first module, whose frames are counted. Without their number in the settings, the
modules are those whose files are there: one that comes late changes the identity of the frame's state, and only the
stillness of that can tell that none comes any more.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
from tango_server.conversion.hdf5.links import WAIT
from tango_server.conversion.hdf5.open_files import OpenFiles, open_files
from tango_server.conversion.hdf5.pixels import read_regions
from tango_server.conversion.image.buffers import Workspace
from tango_server.conversion.image.pixels import Image
from tango_server.conversion.lambda_detector.detector import Detector, detector_of, sequence_note
from tango_server.conversion.lambda_detector.module_file import DATA, ModuleFile
from tango_server.conversion.lambda_detector.modules import ModuleFiles, module_files
from tango_server.text import counted


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
            return ModuleFile(files, files.open(location.file)).is_lambda()
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
        if a file is outside the folders that may be read, or leads there.

    """
    found = module_files(location, roots, modules)
    if not found.is_first and location.index is None:
        return FileState("complete", problem=_of_the_first(found), frames=0)
    used: list[OpenFiles] = []
    try:
        with open_files(roots) as files:
            used.append(files)
            opened = _opened(location, found, files)
            state = _state(location, found, opened, files)
            detector_of(opened)  # whose mask may still be missing
            return state
    except IncompleteFileError as error:
        inode, size, modified = used[0].identity_with(location.file)
        return FileState("incomplete", f"{Path(error.path).name}: {error.problem}", size, modified, inode)


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
        state = _state(location, found, opened, files)
        if location.index is None and state.frames != 1:
            problem = f"it has {counted(state.frames or 0, 'frame')}"
            raise UnsupportedImageError(location.file, problem, "Name one: --frame, or the index of the request.")
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
            read_regions(module.files, module.regions(self.index, rows.start, columns.start), image)
        yield image


def _opened(location: FrameLocation, found: ModuleFiles, files: OpenFiles) -> list[ModuleFile]:
    """Return the open files of all modules; raise `IncompleteFileError` if one is missing."""
    if not found.is_first:
        raise UnsupportedImageError(location.file, _of_the_first(found), "Convert that file.")
    if found.missing:
        raise IncompleteFileError(location.file.with_name(found.missing[0]), "missing module", WAIT)
    opened = []
    for path in found.files:
        try:
            opened.append(ModuleFile(files, files.open(path)))
        except SourceMissingError as error:
            if path == location.file:
                raise
            raise IncompleteFileError(path, "missing module", WAIT) from error
        files.use(opened[-1].opened)
    return opened


def _state(location: FrameLocation, found: ModuleFiles, opened: list[ModuleFile], files: OpenFiles) -> FileState:
    """Return the state of a complete frame, or of all files; raise `IncompleteFileError` if it is not complete."""
    stacks = [module.frames() for module in opened]
    frames = stacks[0].frames
    proven = False
    if location.index is not None or frames <= 1:
        written = [module.require_frame(location.index or 0) for module in opened]
        proven = all(written) and (location.index is not None or not any(stack.grows for stack in stacks))
    if not proven or found.counted:
        inode, size, modified = files.identity
        proof = f"all {len(opened)} modules have the frame" if proven else ""
        return FileState("complete", "", size, modified, inode, proof, frames)
    # Only a further module could change the frame. Files that other frames are added to never stand still.
    size = sum(stack.rows * stack.columns * stack.pixel_type.itemsize for stack in stacks)
    return FileState("complete", "", size, 0, opened[0].opened.identity[0], frames=frames)


def _of_the_first(found: ModuleFiles) -> str:
    return f"module {found.own} of a detector, whose frames are converted from {found.files[0].name}"
