"""Conversions in threads of this process, and how executors are chosen."""

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import pytest

from tango_server.jobs.executors.base import Result
from tango_server.jobs.executors.factory import make_executor
from tango_server.jobs.executors.threads import ThreadExecutor
from tango_server.jobs.executors.worker import Failure
from tango_server.messages import FrameReport
from tests.executor_tasks import PATIENCE, Dispatcher, HangingRoots, frame_tasks, require_converted


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path.resolve()


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "petif-convert"}


def hanging(folder: Path) -> HangingRoots:
    return HangingRoots((folder,), (folder,), release=folder / "release")


def test_threads_convert_frames_at_once_without_mixing_them_up(folder: Path) -> None:
    tasks = frame_tasks(folder, 40, side=400)
    executor = make_executor("thread", workers=4, time_limit=PATIENCE)
    dispatcher = Dispatcher(executor, workers=4)
    dispatcher.add(tasks)
    dispatcher.run()
    executor.close(PATIENCE)
    assert not dispatcher.crashes
    require_converted(tasks)
    assert not threads()


def test_an_exception_costs_its_task_only(folder: Path) -> None:
    broken, *rest = frame_tasks(folder, 3)
    broken = replace(broken, roots=None)  # type: ignore[arg-type]
    executor = ThreadExecutor(1, PATIENCE)
    dispatcher = Dispatcher(executor, workers=1)
    dispatcher.add([broken, *rest])
    dispatcher.run()
    executor.close(PATIENCE)
    assert not dispatcher.crashes, "no worker died"
    failure = dispatcher.ended[broken.token]
    assert isinstance(failure, Failure)
    assert failure.kind == "final"
    assert "AttributeError" in failure.reason
    assert "AttributeError" in failure.trace
    require_converted(rest)


def test_hanging_thread_is_abandoned_and_its_late_result_ignored(folder: Path) -> None:
    late, *rest = frame_tasks(folder, 5)
    roots = hanging(folder)
    late = replace(late, roots=roots)
    executor = ThreadExecutor(1, time_limit=0.5)
    answers: SimpleQueue[Result] = SimpleQueue()
    before = threads()
    executor.start(late, answers.put)
    answer = answers.get(timeout=PATIENCE)
    assert isinstance(answer, TimeoutError)
    assert "longer than 0.5 s" in str(answer)
    for task in rest:
        executor.start(task, answers.put)
        assert isinstance(answers.get(timeout=PATIENCE), FrameReport)
    roots.release.touch()
    for thread in before:
        thread.join(PATIENCE)
    assert late.output.exists(), "the late one did not get to its end: this shows nothing"
    assert answers.empty()
    executor.close(PATIENCE)
    require_converted([late, *rest])
    assert not threads()


def test_close_keeps_its_time_limit_and_reports_nothing_after(folder: Path) -> None:
    (task,) = frame_tasks(folder, 1)
    roots = hanging(folder)
    task = replace(task, roots=roots)
    answers: SimpleQueue[Result] = SimpleQueue()
    executor = ThreadExecutor(2, PATIENCE)
    executor.start(task, answers.put)
    executor.close(0.1)
    (left,) = threads()
    assert left.daemon, "it would keep the process from ending"
    roots.release.touch()
    left.join(PATIENCE)
    assert not threads()
    assert answers.empty()


def test_more_tasks_than_agreed_are_refused(folder: Path) -> None:
    first, second = frame_tasks(folder, 2)
    roots = hanging(folder)
    first = replace(first, roots=roots)
    executor = ThreadExecutor(1, PATIENCE)
    answers: SimpleQueue[Result] = SimpleQueue()
    executor.start(first, answers.put)
    with pytest.raises(IndexError):
        executor.start(second, answers.put)
    roots.release.touch()
    executor.close(PATIENCE)
    assert isinstance(answers.get(timeout=0), FrameReport)
    assert not second.output.exists()


def test_dask_without_a_scheduler_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"Set dask_scheduler, for example to tcp://host:8786"):
        make_executor("dask", workers=1, time_limit=1.0)


def test_cluster_packages_are_loaded_for_dask_only() -> None:
    script = (
        "import sys\n"
        "from tango_server.jobs.executors.factory import make_executor\n"
        "make_executor('thread', workers=1, time_limit=1.0).close(1.0)\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(answer.stdout.split())
    assert "tango_server" in loaded
    assert not loaded & {"distributed", "dask", "tornado"}
