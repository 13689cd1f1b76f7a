"""Frames for executors, tasks that kill or hang whoever runs them, and a small stand-in for the job service."""

import os
import signal
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import tifffile

from tango_server.conversion.files.roots import Roots
from tango_server.jobs.executors.base import Executor, ExecutorUnavailableError, Result
from tango_server.jobs.executors.worker import Failure, Task, prepare
from tango_server.jobs.job import Job
from tango_server.messages import FrameReport, FrameRequest
from tango_server.recipe import Recipe

ATTEMPTS = 3
PATIENCE = 60.0
DIARY = "PETIF_TEST_DIARY"
RECIPE = Recipe.preset("xdi", rotation=90)


@dataclass(frozen=True, eq=False)
class DeadlyRoots(Roots):
    """Kill the process whose conversion asks for its roots; each that does leaves a line in `diary`."""

    diary: Path = Path()

    def __ne__(self, other: object) -> bool:
        with self.diary.open("a") as diary:
            diary.write(f"{os.getpid()}\n")
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError(other)


@dataclass(frozen=True, eq=False)
class HangingRoots(Roots):
    """Let a conversion that asks for its roots wait until there is a file `release`."""

    release: Path = Path()

    def __ne__(self, other: object) -> bool:
        (self.release.parent / "hanging").touch()
        while not self.release.exists():
            time.sleep(0.02)
        return self is not other


def fail_to_prepare() -> None:
    """Note a worker process, and let it get ready unless a file next to the note says how it can't."""
    diary = Path(os.environ[DIARY])
    with diary.open("a") as notes:
        notes.write(f"{os.getpid()}\n")
    fault = diary.with_name("fault")
    match fault.read_text() if fault.exists() else "":
        case "import":
            raise ImportError("No module named 'cv2'")
        case "memory":
            raise MemoryError
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case _:
            prepare()


def frame_tasks(folder: Path, frames: int, side: int = 64) -> list[Task]:
    """Write `frames` random frames into `folder`/raw; return the tasks that turn them."""
    raw = folder / "raw"
    raw.mkdir(exist_ok=True)
    tasks = []
    for number in range(frames):
        source = raw / f"frame-{number:05d}.tif"
        image = np.random.default_rng(number).normal(100, 50, (side, side + 16)).astype(np.float32)
        tifffile.imwrite(source, image)
        output = folder / "processed" / source.name
        request = FrameRequest(source=str(source), recipe=RECIPE)
        tasks.append(Task(Job(f"job{number:05d}", request, source, output), Roots.of([folder])))
    return tasks


def require_converted(tasks: Iterable[Task]) -> None:
    """Compare every output with what numpy makes of its source; nothing else may lie beside them."""
    tasks = list(tasks)
    for task in tasks:
        expected = np.rot90(tifffile.imread(task.job.source)).astype(np.int32)
        np.testing.assert_array_equal(tifffile.imread(task.job.output), expected)
    folders = {task.job.output.parent for task in tasks}
    assert {path for folder in folders for path in folder.iterdir()} == {task.job.output for task in tasks}


@dataclass
class Dispatcher:
    """What the job service does with an executor: so many at a time, attempts counted, the unavailable awaited."""

    executor: Executor
    workers: int = 2
    ended: dict[str, FrameReport | Failure | str] = field(default_factory=dict)
    crashes: list[BaseException] = field(default_factory=list)
    _answers: SimpleQueue[tuple[Task, int, Result]] = field(default_factory=SimpleQueue)
    _ready: deque[tuple[Task, int]] = field(default_factory=deque)
    _running: int = 0

    def add(self, tasks: Iterable[Task]) -> None:
        self._ready.extend((task, 0) for task in tasks)

    def run(self) -> None:
        """Run until every job has ended."""
        while self._ready or self._running:
            while self._ready and self._running < self.workers:
                task, crashes = self._ready.popleft()
                self._running += 1
                self.executor.start(task, partial(self._answered, task, crashes))
            task, crashes, result = self._answers.get(timeout=PATIENCE)
            self._running -= 1
            self._take(task, crashes, result)

    def _answered(self, task: Task, crashes: int, result: Result) -> None:
        self._answers.put((task, crashes, result))

    def _take(self, task: Task, crashes: int, result: Result) -> None:
        if isinstance(result, ExecutorUnavailableError):
            time.sleep(0.05)  # as the service does, for longer
            self._ready.append((task, crashes))
        elif not isinstance(result, BaseException):
            self.ended[task.job.job_id] = result
        elif crashes + 1 < ATTEMPTS:
            self.crashes.append(result)
            self._ready.append((task, crashes + 1))
        else:
            self.crashes.append(result)
            self.ended[task.job.job_id] = str(result)
