"""Conversions in real worker processes."""

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import psutil
import pytest
import tango

from tango_server.client.local_server import LocalServer
from tango_server.jobs.executors import worker
from tango_server.jobs.executors.base import ExecutorUnavailableError, Result
from tango_server.jobs.executors.processes import ProcessExecutor
from tango_server.jobs.executors.worker import Task
from tango_server.messages import FrameReport
from tests.executor_tasks import (
    ATTEMPTS,
    DIARY,
    PATIENCE,
    DeadlyRoots,
    Dispatcher,
    HangingRoots,
    fail_to_prepare,
    frame_tasks,
    require_converted,
)
from tests.system.conftest import FAST, settings
from tests.system.waiting import reports, submit, until, workers_of


@pytest.fixture
def executor() -> Iterator[ProcessExecutor]:
    executor = ProcessExecutor(2, PATIENCE, worker.run)
    yield executor
    executor.close(0.0)


def workers() -> list[psutil.Process]:
    return workers_of(os.getpid())


def test_workers_convert_every_frame_and_end_with_the_executor(executor: ProcessExecutor, root: Path) -> None:
    tasks = frame_tasks(root, 20)
    dispatcher = Dispatcher(executor)
    dispatcher.add(tasks)
    dispatcher.run()
    assert not dispatcher.crashes
    require_converted(tasks)
    assert len(workers()) == 2
    executor.close(PATIENCE)
    assert not workers()


@pytest.mark.long
def test_frame_that_kills_its_worker_costs_only_its_own_attempts(executor: ProcessExecutor, root: Path) -> None:
    deadly, *tasks = frame_tasks(root, 20)
    deadly = replace(deadly, roots=DeadlyRoots((root,), (root,), diary=root / "diary"))
    dispatcher = Dispatcher(executor)
    dispatcher.add([deadly, *tasks])
    dispatcher.run()
    assert "the worker process died" in str(dispatcher.ended[deadly.job.job_id])
    assert len((root / "diary").read_text().split()) == len(dispatcher.crashes) == ATTEMPTS
    require_converted(tasks)


def test_frame_that_kills_its_worker_costs_others_no_attempt(executor: ProcessExecutor, root: Path) -> None:
    """They reach the worker in one message: what had been converted is found, what had not been begun is begun."""
    tasks = frame_tasks(root, 20)
    tasks[9] = replace(tasks[9], roots=DeadlyRoots((root,), (root,), diary=root / "diary"))
    answers: SimpleQueue[tuple[Task, Result]] = SimpleQueue()
    for task in tasks:
        executor.start(task, partial(lambda task, result: answers.put((task, result)), task))
    results = {task.job.job_id: result for task, result in (answers.get(timeout=PATIENCE) for _ in tasks)}
    died = results.pop(tasks[9].job.job_id)
    assert isinstance(died, RuntimeError)
    assert len((root / "diary").read_text().split()) == 2, "once with the others, once alone"
    assert {type(result) for result in results.values()} == {FrameReport}
    require_converted([*tasks[:9], *tasks[10:]])


def test_killed_idle_workers_cost_no_attempt(executor: ProcessExecutor, root: Path) -> None:
    tasks = frame_tasks(root, 8)
    dispatcher = Dispatcher(executor)
    dispatcher.add(tasks[:4])
    dispatcher.run()
    idle = workers()
    for process in idle:
        process.kill()
    until(lambda: not any(process.is_running() for process in idle), "the workers are dead")
    dispatcher.add(tasks[4:])
    dispatcher.run()
    require_converted(tasks)


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("import", "No module named 'cv2'"),
        pytest.param("memory", "MemoryError", marks=pytest.mark.long),
        pytest.param("killed", "ended before it was ready", marks=pytest.mark.long),
    ],
)
def test_workers_that_cannot_start_cost_no_attempt_and_back_off(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str, words: str
) -> None:
    diary = root / "diary"
    monkeypatch.setenv(DIARY, str(diary))
    monkeypatch.setattr(worker, "prepare", fail_to_prepare)
    diary.with_name("fault").write_text(fault)
    answers: SimpleQueue[Result] = SimpleQueue()
    (task,) = frame_tasks(root, 1)
    executor = ProcessExecutor(1, PATIENCE, worker.run)
    try:
        asked = 0
        while len(diary.read_text().split() if diary.exists() else []) < 2:
            asked += 1
            executor.start(task, answers.put)
            answer = answers.get(timeout=PATIENCE)
            assert isinstance(answer, ExecutorUnavailableError)
            assert words in str(answer)
        assert words in executor.problem
        assert asked > 10, "a process was started for nearly each task"
        diary.with_name("fault").unlink()
        while isinstance(answer, ExecutorUnavailableError):
            executor.start(task, answers.put)
            answer = answers.get(timeout=PATIENCE)
        assert isinstance(answer, FrameReport)
        assert not executor.problem
        require_converted([task])
    finally:
        executor.close(0.0)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert not workers()


@pytest.mark.long
def test_a_conversion_that_hangs_ends_with_its_process(root: Path) -> None:
    executor = ProcessExecutor(1, 5.0, worker.run)
    answers: SimpleQueue[Result] = SimpleQueue()
    hanging, task = frame_tasks(root, 2)
    try:
        executor.start(replace(hanging, roots=HangingRoots((root,), (root,), release=root / "release")), answers.put)
        answer = answers.get(timeout=PATIENCE)
        assert isinstance(answer, TimeoutError)
        assert "longer than 5 s" in str(answer)
        executor.start(task, answers.put)
        assert isinstance(answers.get(timeout=PATIENCE), FrameReport)
    finally:
        executor.close(0.0)
    assert not hanging.job.output.exists()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="the system shows no shared memory as files")
def test_server_and_workers_use_no_shared_memory(root: Path) -> None:
    with LocalServer(root, root / "state", settings(*FAST)) as server:
        proxy = tango.DeviceProxy(server.address)
        (task,) = frame_tasks(root, 1)
        reports(proxy, submit(proxy, {"source": str(task.job.source)}))
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        assert len(family) > 2, "the worker and Python's tracker of resources"
        shared = [each.path for process in family for each in process.memory_maps() if "/dev/shm/" in each.path]
    assert shared == []
