"""Conversion without a server: selects frames, plans their outputs, converts them in worker processes."""

import fnmatch
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from tango_server.conversion.errors import ConversionError, SourceError
from tango_server.conversion.esperanto.angle_table import AngleTable, AngleTableError, fields_of
from tango_server.conversion.esperanto.experiment import Experiment, experiment_of
from tango_server.conversion.esperanto.scan_numbers import numbers_in_scans, uncounted_names
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.naming import counted_by
from tango_server.conversion.files.roots import ANYWHERE, output_path
from tango_server.conversion.files.temporary_names import remove_leftovers
from tango_server.conversion.formats import open_frame
from tango_server.conversion.frame_header import NO_HEADER, FrameHeader
from tango_server.conversion.image.orientation import Orientation
from tango_server.conversion.sidecar import read_sidecar
from tango_server.jobs.containers import may_kill_its_reader
from tango_server.jobs.executors import worker
from tango_server.jobs.executors.base import Result
from tango_server.jobs.executors.processes import ProcessExecutor
from tango_server.jobs.executors.worker import Failure, Task
from tango_server.jobs.frame_listing import frames_in
from tango_server.jobs.job import Job
from tango_server.jobs.orphans import OURS, remove_orphans
from tango_server.jobs.output_check import OutputCheck
from tango_server.messages import FrameReport, FrameRequest
from tango_server.recipe import NewFile, Recipe
from tango_server.text import split_data_set

_TIME_LIMIT = 3600.0  # s for one frame; no network file system is that slow
_CLOSE_TIMEOUT = 10.0  # s


@dataclass(frozen=True, slots=True)
class FileSelection:
    """Which files of a folder are frames. `patterns` are shell patterns of the file name; none means every frame.

    Files below `beside`, the folder of the outputs, are left out.
    """

    recursive: bool = False
    patterns: tuple[str, ...] = ()
    skip_dark: bool = True
    beside: Path | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """One frame with its output, or the `problem` if there is none; `skip` says why it is skipped.

    `fields` are available to its name and header; `experiment` goes into its header.
    """

    source: FrameLocation
    output: Path | None
    problem: str = ""
    skip: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)
    experiment: Experiment | None = None


def select(paths: Iterable[Path], selection: FileSelection) -> list[Path]:
    """Return the files at `paths`: as given, perhaps with a data set, folders expanded, each file once.

    Raises
    ------
    OSError
        if a folder can't be listed.
    """
    found: dict[Path, None] = {}
    for path in paths:
        file, data_set = split_data_set(str(path))
        if data_set or not path.is_dir():
            found[Path(FrameLocation(ANYWHERE.frame(file), data_set).path)] = None
            continue
        for frame in frames_in(path, recursive=selection.recursive, skip_dark=selection.skip_dark):
            source = ANYWHERE.frame(frame)
            if selection.beside is not None and source.is_relative_to(selection.beside):
                continue
            if not selection.patterns or any(fnmatch.fnmatch(frame.name, pattern) for pattern in selection.patterns):
                found[source] = None
    return list(found)


def plan(
    sources: Iterable[FrameLocation | Path],
    recipe: Recipe,
    *,
    newer_only: bool = False,
    angles: AngleTable | None = None,
    frame_number: int | None = None,
) -> list[Planned]:
    """Return the output of each source, and the contents of its header; `newer_only` skips those that are current.

    `frame_number` selects the number in a file name that counts the frames of an ESPERANTO scan, see `counted_by`; None
    is the last one. The first of several frames in a file has the number 1. Two sources with the same output are both
    refused, and so are sources whose angles depend on a number that does not look like a frame number.
    """
    frames = [source if isinstance(source, FrameLocation) else FrameLocation(source) for source in sources]
    counted = {
        frame.file: frame.file
        if frame_number is None or recipe.esperanto is None
        else counted_by(frame.file, frame_number)
        for frame in frames
        if frame.index is None
    }
    numbers: dict[Path, int] = {}
    uncounted: dict[Path, str] = {}
    if recipe.esperanto is not None:
        numbers = numbers_in_scans(counted.values())
        if any(circle.step is not None for circle in recipe.esperanto.circles.values()):
            uncounted = uncounted_names(counted, gaps_are_meant=frame_number is not None)
    newer = OutputCheck(recipe) if newer_only else None
    planned = []
    for frame in frames:
        named = counted.get(frame.file, frame.file)
        number = numbers.get(named, 1) if frame.index is None else frame.index + 1
        if frame.index is None and frame.file in uncounted:
            planned.append(Planned(frame, None, problem=uncounted[frame.file]))
        else:
            planned.append(_planned(frame, replace(frame, file=named), recipe, number, angles, newer=newer))
    takers: dict[Path, list[FrameLocation]] = {}
    for item in planned:
        if item.output is not None:
            takers.setdefault(item.output, []).append(item.source)
    return [_without_clash(item, takers) for item in planned]


def convert_all(
    planned: Sequence[Planned], recipe: Recipe, workers: int, stopped: Callable[[], bool] = lambda: False
) -> Generator[FrameReport, None, None]:
    """Convert frames in worker processes and yield each report as it finishes; closing the iterator stops them.

    No frame is started once `stopped` returns True; running ones are finished and reported.
    """
    remove_orphans({item.output.parent for item in planned if item.output is not None})
    tasks = []
    for number, item in enumerate(planned):
        if item.output is None or item.skip:
            yield _unconverted(item, recipe)
        else:
            request = FrameRequest.model_construct(
                source=item.source.path, frame=item.source.index, recipe=recipe, metadata=dict(item.fields)
            )
            job = Job(f"{OURS}{os.getpid()}-{number}", request, item.source.file, item.output)
            tasks.append(Task(job, ANYWHERE))
    if len(tasks) == 1 and not may_kill_its_reader(tasks[0].job.source):  # not worth a process
        yield _report(tasks[0], worker.run(tasks[0]))
        return
    yield from _in_processes(tasks, min(workers, len(tasks)), stopped)


def _in_processes(tasks: list[Task], workers: int, stopped: Callable[[], bool]) -> Iterator[FrameReport]:
    if not tasks:
        return
    done: SimpleQueue[tuple[Task, Result]] = SimpleQueue()
    crashed: list[Task] = []
    waiting = deque(tasks)
    running = 0
    executor = ProcessExecutor(workers, _TIME_LIMIT, worker.run)
    try:
        while True:
            while waiting and running < workers and not stopped():
                task = waiting.popleft()
                executor.start(task, partial(_put, done, task))
                running += 1
            if not running:
                return
            task, result = done.get()
            running -= 1
            if isinstance(result, BaseException):
                remove_leftovers(task.job.output, task.job.job_id)  # its process is gone
                if task not in crashed:
                    crashed.append(task)
                    waiting.appendleft(task)
                    continue
            yield _report(task, result)
    finally:
        executor.close(_CLOSE_TIMEOUT)


def _put(done: "SimpleQueue[tuple[Task, Result]]", task: Task, result: Result) -> None:
    done.put((task, result))


def _planned(
    frame: FrameLocation,
    named: FrameLocation,
    recipe: Recipe,
    number: int,
    angles: AngleTable | None,
    *,
    newer: OutputCheck | None,
) -> Planned:
    source = frame.file
    try:
        source.lstat()
    except FileNotFoundError:
        return Planned(frame, None, problem=f"{source}: no such file or folder. Check the path.")
    except PermissionError:
        return Planned(frame, None, problem=f"{source}: cannot access its folder. Check the permissions.")
    experiment = None
    fields: Mapping[str, object] = {}
    try:
        if recipe.esperanto is not None:
            fields = fields_of(angles, source, number)
            stated = _stated(frame)
            if stated is not None:
                experiment = experiment_of(source, recipe.esperanto, fields, stated, Orientation.of(recipe))
        output = output_path(named, recipe, fields=fields)
    except (ConversionError, AngleTableError) as error:
        return Planned(frame, None, problem=str(error))
    if newer is not None and isinstance(recipe.output, NewFile) and newer.is_current(source, output):
        return Planned(frame, output, skip=f"{output} is newer")
    return Planned(frame, output, fields=fields, experiment=experiment)


def _stated(frame: FrameLocation) -> FrameHeader | None:
    """Return what the sidecar of a frame or its file states; None if only its conversion may open it."""
    if may_kill_its_reader(frame.file):
        return None
    sidecar = read_sidecar(frame.file)
    if sidecar is not None:
        return sidecar.header
    try:
        with open_frame(frame) as source:
            return source.header
    except SourceError:  # its conversion reports it
        return NO_HEADER


def _without_clash(item: Planned, takers: dict[Path, list[FrameLocation]]) -> Planned:
    others = [source for source in takers.get(item.output, []) if source != item.source] if item.output else []
    if not others:
        return item
    return Planned(
        item.source,
        None,
        problem=f"{item.source}: cannot convert: its output {item.output} would also be the output of {others[0]}. "
        "Use a name template that distinguishes them, or convert the folders one by one.",
    )


def _unconverted(item: Planned, recipe: Recipe) -> FrameReport:
    return FrameReport(
        source=item.source.path,
        frame=item.source.index,
        output=str(item.output) if item.output else None,
        outcome="skipped" if item.skip else "failed",
        reason=item.skip or item.problem,
        recipe_hash=recipe.hash,
        finished=time.time(),
    )


def _report(task: Task, result: Result) -> FrameReport:
    if isinstance(result, FrameReport):
        return result
    reason = result.reason if isinstance(result, Failure) else f"{task.job.source}: {result}"
    return task.job.failed(reason, time.time())
