"""Frames converted without a server: which ones, to where, in worker processes."""

import contextlib
import fnmatch
import os
import platform
import re
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import psutil

from tango_server.conversion.errors import ConversionError
from tango_server.conversion.esperanto.angle_table import AngleTable, AngleTableError, fields_of
from tango_server.conversion.esperanto.experiment import Experiment, experiment_of
from tango_server.conversion.files.atomic_write import TEMPORARY_SUFFIX, is_in_use, remove_leftovers
from tango_server.conversion.files.naming import counted_by, series_of
from tango_server.conversion.files.roots import ANYWHERE, output_path
from tango_server.conversion.image.orientation import Orientation
from tango_server.conversion.records import is_placeholder_of
from tango_server.conversion.sidecar import read_sidecar
from tango_server.jobs.executors import worker
from tango_server.jobs.executors.base import Result
from tango_server.jobs.executors.processes import ProcessExecutor
from tango_server.jobs.executors.worker import Failure, Task
from tango_server.jobs.frame_listing import frames_in
from tango_server.messages import FrameReport
from tango_server.recipe import NewFile, Recipe

_TIME_LIMIT = 3600.0  # s for one frame; a network file system may be slow, but not that slow
_PATIENCE = 10.0
_FEWEST = 3
"""Frames of a scan, of which more than half are missing, that are too many for chance."""
_NAMED = 3
_EXPECTED = (
    "expected a number that counts the frames. Say which one does (--frame-number; -1 is the last), or give their "
    "angles in a table (--angles)."
)
_LONGEST_ATTEMPT = 3600.0
"""How old (s) a temporary file is that nobody can be at work on."""
_OURS = f"{platform.node()}-offline-"


@dataclass(frozen=True, slots=True)
class FileSelection:
    """Which files of folders are taken. `patterns` are shell patterns of the file name; none means every TIFF.

    What lies below `beside`, the folder of the outputs, is none.
    """

    recursive: bool = False
    patterns: tuple[str, ...] = ()
    skip_dark: bool = True
    beside: Path | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """One frame: its output, or (without one) the reason why there is none, or why it is skipped.

    `fields` are what its name and header may take; `experiment` is what its header will say.
    """

    source: Path
    output: Path | None
    problem: str = ""
    skip: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)
    experiment: Experiment | None = None


def select(paths: Iterable[Path], selection: FileSelection) -> list[Path]:
    """Return the frames that `paths` name: files as they are, folders by their content, each once.

    Raises
    ------
    OSError
        if a folder can't be listed.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            found[ANYWHERE.frame(path)] = None
            continue
        for frame in frames_in(path, recursive=selection.recursive, skip_dark=selection.skip_dark):
            source = ANYWHERE.frame(frame)
            if selection.beside is not None and source.is_relative_to(selection.beside):
                continue
            if not selection.patterns or any(fnmatch.fnmatch(frame.name, pattern) for pattern in selection.patterns):
                found[source] = None
    return list(found)


def plan(
    sources: Sequence[Path],
    recipe: Recipe,
    *,
    newer_only: bool = False,
    angles: AngleTable | None = None,
    frame_number: int | None = None,
) -> list[Planned]:
    """Return where each source would go, and what its header would say.

    `frame_number` says which number of a name counts the frames of an ESPERANTO scan: see `counted_by`; None is the
    last one. Two sources that would land on one output are both refused, and so are those whose angles go by that
    number although it seems to be none of a frame.
    """
    counted = {
        source: source if frame_number is None or recipe.esperanto is None else counted_by(source, frame_number)
        for source in sources
    }
    numbers: dict[Path, int] = {}
    uncounted: dict[Path, str] = {}
    if recipe.esperanto is not None:
        numbers = numbers_in_scans(counted.values())
        if any(circle.step is not None for circle in recipe.esperanto.circles.values()):
            uncounted = _uncounted(counted, gaps_are_meant=frame_number is not None)
    planned = [
        Planned(source, None, problem=uncounted[source])
        if source in uncounted
        else _planned(source, named, recipe, numbers.get(named), angles, newer_only=newer_only)
        for source, named in counted.items()
    ]
    takers: dict[Path, list[Path]] = {}
    for item in planned:
        if item.output is not None:
            takers.setdefault(item.output, []).append(item.source)
    return [_without_clash(item, takers) for item in planned]


def convert_all(
    planned: Sequence[Planned], recipe: Recipe, workers: int, stopped: Callable[[], bool] = lambda: False
) -> Generator[FrameReport, None, None]:
    """Convert frames in worker processes and yield a report of each as it comes; closing the iterator ends the workers.

    No frame is begun once `stopped` returns True; those that are running then are finished and reported.
    """
    remove_orphans({item.output.parent for item in planned if item.output is not None})
    tasks = []
    for number, item in enumerate(planned):
        if item.output is None or item.skip:
            yield _unconverted(item, recipe)
        else:
            token = f"{_OURS}{os.getpid()}-{number}"
            tasks.append(Task(item.source, item.output, recipe, ANYWHERE, token, fields=item.fields))
    if len(tasks) == 1:  # not worth a process
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
    executor = ProcessExecutor(workers, _TIME_LIMIT)
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
                remove_leftovers(task.output, task.token)  # its process is gone
                if task not in crashed:
                    crashed.append(task)
                    waiting.appendleft(task)
                    continue
            yield _report(task, result)
    finally:
        executor.close(_PATIENCE)


def _put(done: "SimpleQueue[tuple[Task, Result]]", task: Task, result: Result) -> None:
    done.put((task, result))


def remove_orphans(folders: Iterable[Path]) -> None:
    """Remove what earlier calls on this host left in these folders when they were killed.

    By the lock of a temporary file, or its age: a container may have the name of its host, and other process ids.
    """
    for folder in folders:
        try:
            names = [entry.name for entry in os.scandir(folder) if entry.name.endswith(TEMPORARY_SUFFIX)]
        except OSError:  # there is nothing to clean, or nobody may
            continue
        for name in names:
            owner = re.search(re.escape(f".{_OURS}") + r"(\d+)-\d+\.", name)
            with contextlib.suppress(OSError):
                if owner and _is_orphan(folder / name, int(owner[1])):
                    (folder / name).unlink()


def _is_orphan(temporary: Path, owner: int) -> bool:
    if used := is_in_use(temporary):
        return False
    if time.time() - temporary.stat().st_mtime > _LONGEST_ATTEMPT:
        return True
    return used is False and not psutil.pid_exists(owner)  # in the instant after it was made it has no lock yet


def numbers_in_scans(sources: Iterable[Path]) -> dict[Path, int]:
    """Return each frame's number in its scan, from 1: that of its name, counted from the first one's.

    A frame that is missing leaves a gap. Without a number in their names frames count in their order.
    """
    scans: dict[tuple[Path, str], list[tuple[int | None, Path]]] = {}
    for source in sources:
        name, number = series_of(source)
        scans.setdefault((source.parent, name), []).append((number, source))
    numbers = {}
    for frames in scans.values():
        known = [number for number, _ in frames if number is not None]
        for place, (number, source) in enumerate(frames, start=1):
            numbers[source] = place if number is None else number - min(known) + 1
    return numbers


def _uncounted(counted: Mapping[Path, Path], *, gaps_are_meant: bool) -> dict[Path, str]:
    """Return the sources that the number of their `counted` names does not seem to count, each with why.

    That is so where several names are alike but for their numbers (or have none), and each makes a scan of its own, as
    `scan_001_300K.tif` and `scan_002_300K.tif`; and where a scan has more gaps than frames, as times of day make them.
    """
    scans: dict[tuple[Path, str], dict[Path, int | None]] = {}
    for source, named in counted.items():
        name, number = series_of(named)
        scans.setdefault((named.parent, name), {})[source] = number
    alike: dict[tuple[Path, str], list[dict[Path, int | None]]] = {}
    for (folder, name), scan in scans.items():
        shape = "" if None in scan.values() else re.sub(r"\d+", "0", name)
        alike.setdefault((folder, shape), []).append(scan)
    reasons: dict[Path, str] = {}
    for group in alike.values():
        if len(group) > 1 and all(len(scan) == 1 for scan in group):
            sources = [source for scan in group for source in scan]
            some = _names(sources)
            why = f"by the numbers in their names, {some} are scans of one frame each, and all begin at the first angle"
            reasons |= dict.fromkeys(sources, why)
    for scan in scans.values():
        known = [number for number in scan.values() if number is not None]
        missing = max(known) - min(known) + 1 - len(known) if known else 0
        if not gaps_are_meant and len(known) >= _FEWEST and missing > len(known):
            why = f"by the last numbers in their names, {_names(scan)} are a scan in which {missing} frames are missing"
            reasons |= dict.fromkeys(scan, why)
    return {source: f"{source}: {why}; {_EXPECTED}" for source, why in reasons.items()}


def _names(sources: Iterable[Path]) -> str:
    names = [source.name for source in sources]
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _planned(
    source: Path, named: Path, recipe: Recipe, number: int | None, angles: AngleTable | None, *, newer_only: bool
) -> Planned:
    try:
        source.lstat()
    except FileNotFoundError:
        return Planned(source, None, problem=f"{source}: no such file or folder; expected a TIFF file. Check the path.")
    except PermissionError:
        return Planned(
            source,
            None,
            problem=f"{source}: its folder can't be looked into; expected a readable one. Check its rights.",
        )
    experiment = None
    fields: Mapping[str, object] = {}
    try:
        if recipe.esperanto is not None:
            fields = fields_of(angles, source, number or 1)
            turned = Orientation.of(recipe)
            experiment = experiment_of(source, recipe.esperanto, fields, read_sidecar(source), turned)
        output = output_path(named, recipe, fields=fields)
    except (ConversionError, AngleTableError) as error:
        return Planned(source, None, problem=str(error))
    if newer_only and isinstance(recipe.output, NewFile) and _is_newer(output, source):
        return Planned(source, output, skip=f"{output} is newer")
    return Planned(source, output, fields=fields, experiment=experiment)


def _is_newer(output: Path, source: Path) -> bool:
    try:
        newer = output.stat().st_mtime_ns >= source.stat().st_mtime_ns
    except OSError:
        return False
    return newer and not is_placeholder_of(source, output)


def _without_clash(item: Planned, takers: dict[Path, list[Path]]) -> Planned:
    others = [source for source in takers.get(item.output, []) if source != item.source] if item.output else []
    if not others:
        return item
    return Planned(
        item.source,
        None,
        problem=f"{item.source}: its output would be {item.output}, as that of {others[0]}; expected one output for "
        "each source. Give a template that tells them apart, or convert the folders one by one.",
    )


def _unconverted(item: Planned, recipe: Recipe) -> FrameReport:
    return FrameReport(
        source=str(item.source),
        output=str(item.output) if item.output else None,
        outcome="skipped" if item.skip else "failed",
        reason=item.skip or item.problem,
        recipe_hash=recipe.hash,
        finished=time.time(),
    )


def _report(task: Task, result: Result) -> FrameReport:
    if isinstance(result, FrameReport):
        return result
    reason = result.reason if isinstance(result, Failure) else f"{task.source}: {result}"
    return FrameReport(
        source=str(task.source), outcome="failed", reason=reason, recipe_hash=task.recipe.hash, finished=time.time()
    )
