"""Conversion without a server: selects frames, and converts them or groups of them in worker processes."""

import fnmatch
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import ANYWHERE
from tango_server.conversion.files.temporary_names import remove_leftovers
from tango_server.jobs.containers import may_kill_its_reader
from tango_server.jobs.executors import worker
from tango_server.jobs.executors.base import Result
from tango_server.jobs.executors.processes import ProcessExecutor
from tango_server.jobs.executors.worker import Failure, Task
from tango_server.jobs.frame_listing import frames_in
from tango_server.jobs.group_planning import PlannedGroup
from tango_server.jobs.job import Job, Part
from tango_server.jobs.orphans import OURS, remove_orphans
from tango_server.jobs.planning import Planned
from tango_server.messages import FrameReport, FrameRequest, GroupMember, GroupReport, Outcome
from tango_server.recipe import Recipe
from tango_server.text import split_data_set

_TIME_LIMIT = 3600.0  # s for one frame; no network file system is that slow
_QUICKLY_READ = 100  # frames of a group that are read within this limit
_NOT_COMBINED = "not combined, see the group"
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


def convert_all(
    planned: Sequence[Planned | PlannedGroup],
    recipe: Recipe,
    workers: int,
    stopped: Callable[[], bool] = lambda: False,
) -> Generator[FrameReport, None, None]:
    """Convert frames and groups in worker processes and yield each report as it finishes; closing it stops them.

    No frame or group is started once `stopped` returns True; running ones are finished and reported.
    """
    remove_orphans({item.output.parent for item in planned if item.output is not None})
    tasks = []
    for number, item in enumerate(planned):
        if item.output is None or item.skip:
            yield _unconverted(item, recipe)
        else:
            tasks.append(_task(item, item.output, recipe, f"{OURS}{os.getpid()}-{number}"))
    if len(tasks) == 1 and not any(map(may_kill_its_reader, _files(tasks[0]))):  # not worth a process
        yield _report(tasks[0], worker.run(tasks[0]))
        return
    yield from _in_processes(tasks, min(workers, len(tasks)), stopped)


def _task(item: Planned | PlannedGroup, output: Path, recipe: Recipe, job_id: str) -> Task:
    if isinstance(item, Planned):
        return Task(_job(item, output, recipe, job_id), ANYWHERE)
    whole = _job(item.members[0], output, recipe, job_id)
    parts = [
        Part(_job(each, output, recipe, job_id), each.problem.removeprefix(f"{each.source.file}: "))
        for each in item.members
    ]
    parts += [Part(None, "there are no more frames")] * (item.size - len(parts))
    request = whole.request.model_copy(update={"group": item.name})
    return Task(replace(whole, request=request), ANYWHERE, members=tuple(parts))


def _job(item: Planned, output: Path, recipe: Recipe, job_id: str) -> Job:
    request = FrameRequest.model_construct(
        source=item.source.path, frame=item.source.index, recipe=recipe, metadata=dict(item.fields)
    )
    return Job(job_id, request, item.source.file, output)


def _files(task: Task) -> set[Path]:
    return {task.job.source, *(part.job.source for part in task.members if part.job is not None)}


def _in_processes(tasks: list[Task], workers: int, stopped: Callable[[], bool]) -> Iterator[FrameReport]:
    if not tasks:
        return
    done: SimpleQueue[tuple[Task, Result]] = SimpleQueue()
    crashed: list[Task] = []
    waiting = deque(tasks)
    running = 0
    longest = max(len(task.members) for task in tasks)
    executor = ProcessExecutor(workers, _TIME_LIMIT * max(1, longest // _QUICKLY_READ), worker.run)
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


def _unconverted(item: Planned | PlannedGroup, recipe: Recipe) -> FrameReport:
    outcome: Outcome = "skipped" if item.skip else "failed"
    report = FrameReport(
        source=item.source.path,
        frame=item.source.index,
        output=str(item.output) if item.output else None,
        outcome=outcome,
        reason=item.skip or item.problem,
        recipe_hash=recipe.hash,
        finished=time.time(),
    )
    if isinstance(item, Planned):
        return report
    members = tuple(_listed(each.source, outcome, each.problem or _NOT_COMBINED) for each in item.members)
    return GroupReport.model_validate({**dict(report), "group": item.name, "members": members})


def _report(task: Task, result: Result) -> FrameReport:
    if isinstance(result, FrameReport):
        return result
    reason = result.reason if isinstance(result, Failure) else f"{task.job.source}: {result}"
    report = task.job.failed(reason, time.time())
    if not task.members:
        return report
    problems = result.members if isinstance(result, Failure) else {}
    members = tuple(
        _listed(part.job.location, "failed", problems.get(number) or part.problem or _NOT_COMBINED)
        for number, part in enumerate(task.members)
        if part.job is not None
    )
    return GroupReport.model_validate({**dict(report), "members": members})


def _listed(source: FrameLocation, outcome: Outcome, reason: str) -> GroupMember:
    return GroupMember(source=source.path, frame=source.index, outcome=outcome, reason=reason)
