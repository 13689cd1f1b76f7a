"""Files of several frames without a server: counted in a process of their own, since a damaged one may kill its reader.

Only files that may have several frames are counted: a folder of ten thousand TIFFs costs nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from tango_server.conversion.errors import ConversionError
from tango_server.conversion.file_state import FileState
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.series_names import makes_jobs
from tango_server.conversion.formats import check_file, needs_own_process
from tango_server.jobs.executors.processes import ProcessExecutor

_Answer = TypeVar("_Answer")

_TIME_LIMIT = 30.0  # s for one message of a few checks
WHOLE_FILE = 600.0
"""How long the reading of a file with all of its frames may take, s."""
_CLOSE_TIMEOUT = 1.0  # s
_SINGLE = (".tif", ".tiff", ".cbf", ".mccd")


@dataclass(frozen=True, slots=True)
class Contents:
    """The frames of files, and the files that have none: those `skipped` on purpose and the others, with the reason.

    `uncounted`: files that are not complete, so that more frames may belong to them than were found, and why.
    """

    frames: list[FrameLocation] = field(default_factory=list)
    skipped: dict[FrameLocation, str] = field(default_factory=dict)
    failed: dict[FrameLocation, str] = field(default_factory=dict)
    uncounted: dict[FrameLocation, str] = field(default_factory=dict)


def contents_of(sources: Iterable[Path], chosen: slice | None = None) -> Contents:
    """Return the frames of files, in order; with `chosen` only those indices of a file of several frames.

    A path may name a data set in an HDF5 file (`run.h5::/entry/data`).
    """
    files = [FrameLocation.of(source) for source in sources]
    states = states_of([file for file in files if file.data_set or file.file.suffix.lower() not in _SINGLE])
    found = Contents()
    for file in files:
        state = states.get(file)
        if isinstance(state, str):
            found.failed[file] = found.uncounted[file] = state
        elif state is None or state.frames is None:
            _add_single(file, chosen, found)
        else:
            _add_frames(file, state, chosen, found)
        if isinstance(state, FileState) and state.state != "complete" and not _states_its_frames(file, state):
            found.uncounted[file] = f"{file}: {state.problem}"
    return found


def states_of(locations: Sequence[FrameLocation]) -> dict[FrameLocation, FileState | str]:
    """Return the state of each file or frame, or why it is unknown; read in another process."""
    return read_elsewhere(locations, check_file)


def read_elsewhere(
    locations: Sequence[FrameLocation], read: Callable[[FrameLocation], _Answer], time_limit: float = _TIME_LIMIT
) -> dict[FrameLocation, _Answer | str]:
    """Return what `read` returns for each file or frame in another process, or why that is not possible."""
    if not locations:
        return {}
    answers: SimpleQueue[tuple[FrameLocation, _Answer | str | BaseException]] = SimpleQueue()
    executor = ProcessExecutor(1, time_limit, partial(_answer, read), twice=True)
    try:
        for location in locations:
            executor.start(location, partial(_put, answers, location))
        return {location: _in_words(location, found, time_limit) for location, found in _taken(answers, len(locations))}
    finally:
        executor.close(_CLOSE_TIMEOUT)


def _answer(read: Callable[[FrameLocation], _Answer], location: FrameLocation) -> _Answer | str:
    try:
        return read(location)
    except ConversionError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - only this file fails
        return f"{location}: cannot read the file: unexpected {type(error).__name__}: {error}"


def may_kill_its_reader(path: Path) -> bool:
    """Whether a file must not be opened in a process that others need."""
    try:
        return needs_own_process(path)
    except (ConversionError, OSError):  # its conversion reports it
        return False


def _states_its_frames(file: FrameLocation, state: FileState) -> bool:
    """Whether the number of frames is known of a file that is not complete: by HDF5's data set, not by blocks."""
    return state.frames is not None and file.file.suffix.lower() != ".edf"


def _add_single(file: FrameLocation, chosen: slice | None, found: Contents) -> None:
    if chosen is None:
        found.frames.append(file)
    else:
        found.failed[file] = f"{file}: one frame, so that --frames selects nothing. Leave out --frames for this file."


def _add_frames(file: FrameLocation, state: FileState, chosen: slice | None, found: Contents) -> None:
    frames = state.frames or 0
    indices = range(frames)[chosen or slice(None)]
    if not makes_jobs(file.file.name, _Beside(file.file.parent)):
        found.skipped[file] = "its frames are converted from another file beside it, its first module or its master"
    elif not frames:
        found.skipped[file] = state.problem or "no image in this file"
    elif not indices:
        found.failed[file] = f"{file}: --frames selects none of its {frames} frames. Indices count from 0."
    else:
        found.frames.extend(FrameLocation(file.file, file.data_set, index) for index in indices)


class _Beside:
    """The names in a folder, of which only a few are looked up."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (self._folder / name).exists()


def _put(
    answers: "SimpleQueue[tuple[FrameLocation, _Answer | str | BaseException]]",
    location: FrameLocation,
    found: _Answer | str | BaseException,
) -> None:
    answers.put((location, found))


def _taken(
    answers: "SimpleQueue[tuple[FrameLocation, _Answer | str | BaseException]]", count: int
) -> Iterator[tuple[FrameLocation, _Answer | str | BaseException]]:
    for _ in range(count):
        yield answers.get()


def _in_words(location: FrameLocation, found: _Answer | BaseException, time_limit: float) -> _Answer | str:
    if not isinstance(found, BaseException):
        return found
    if isinstance(found, TimeoutError):
        return f"{location}: cannot read the file: its reader took longer than {time_limit:g} s. Check what wrote it."
    return f"{location}: cannot read the file: its reader crashed ({found}). The file is damaged: check what wrote it."
