"""Conversions on a real Dask cluster, parts of which are killed."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import dask
import psutil
import pytest
from distributed import LocalCluster

from tango_server.conversion.files.roots import ANYWHERE
from tango_server.jobs.executors.base import ExecutorUnavailableError, Result
from tango_server.jobs.executors.dask_cluster import DaskExecutor
from tango_server.jobs.executors.factory import make_executor
from tango_server.jobs.executors.worker import Failure
from tango_server.jobs.runner import JobRunner
from tango_server.jobs.startup import open_runner
from tango_server.messages import FrameReport
from tango_server.recipe.corrections import Corrections
from tango_server.settings import Settings
from tests.executor_tasks import (
    ATTEMPTS,
    PATIENCE,
    RECIPE,
    DeadlyRoots,
    Dispatcher,
    HangingRoots,
    frame_tasks,
    require_converted,
)
from tests.system.waiting import until

pytestmark = pytest.mark.long

MakeExecutor = Callable[..., DaskExecutor]


@pytest.fixture
def make_cluster(root: Path) -> Iterator[Callable[[int], LocalCluster]]:
    with contextlib.ExitStack() as clusters:
        clusters.enter_context(dask.config.set({"temporary-directory": str(root / "dask")}))

        def make(workers: int) -> LocalCluster:
            return clusters.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                    worker_dashboard_address=None,
                )
            )

        yield make


@pytest.fixture
def cluster(make_cluster: Callable[[int], LocalCluster]) -> LocalCluster:
    return make_cluster(2)


@pytest.fixture
def connect() -> Iterator[MakeExecutor]:
    executors: list[Any] = []

    def make(scheduler: str, time_limit: float = PATIENCE) -> Any:
        executors.append(make_executor("dask", workers=2, time_limit=time_limit, scheduler=scheduler))
        return executors[-1]

    yield make
    for executor in executors:
        executor.close(0.0)
    assert "petif-dask" not in {thread.name for thread in threading.enumerate()}


@pytest.fixture
def answers() -> "SimpleQueue[Result]":
    return SimpleQueue()


def worker_pids(cluster: LocalCluster) -> list[int]:
    return [nanny.pid for nanny in cluster.workers.values()]


@pytest.fixture
def open_service(root: Path) -> Iterator[Callable[..., JobRunner]]:
    """The job service itself, as a server has it, in front of a cluster."""
    with contextlib.ExitStack() as close:

        def start(scheduler: str, **changes: Any) -> JobRunner:
            settings = Settings(
                read_roots=(root,),
                state_dir=root / "state",
                recipe=RECIPE,
                numworkers=2,
                executor="dask",
                dask_scheduler=scheduler,
                **changes,
            )
            runner = open_runner(settings, lambda _: None)
            close.callback(runner.close)
            return runner

        yield start


def test_all_frames_are_converted_when_one_of_two_workers_dies(
    cluster: LocalCluster, open_service: Callable[..., JobRunner], root: Path
) -> None:
    tasks = frame_tasks(root, 40, side=700)
    runner = open_service(cluster.scheduler_address)
    runner.submit_files([str(task.job.source) for task in tasks])
    until(lambda: runner.snapshot.converted >= 15, "15 frames are converted")
    psutil.Process(worker_pids(cluster)[0]).kill()
    until(lambda: runner.snapshot.processed == 40, "every frame has its report")
    assert runner.snapshot.converted == 40
    require_converted(tasks)


def test_frame_that_kills_workers_costs_only_its_own_attempts(
    cluster: LocalCluster, connect: MakeExecutor, root: Path
) -> None:
    deadly, *tasks = frame_tasks(root, 20)
    deadly = replace(deadly, roots=DeadlyRoots((root,), (root,), diary=root / "diary"))
    dispatcher = Dispatcher(connect(cluster.scheduler_address))
    dispatcher.add([deadly, *tasks])
    dispatcher.run()
    assert "the Dask worker that converted it was lost" in str(dispatcher.ended[deadly.job.job_id])
    assert len((root / "diary").read_text().split()) == ATTEMPTS
    require_converted(tasks)


def test_a_conversion_that_hangs_is_given_up_and_others_go_on(
    cluster: LocalCluster, connect: MakeExecutor, root: Path, answers: "SimpleQueue[Result]"
) -> None:
    hanging, *tasks = frame_tasks(root, 5)
    roots = HangingRoots((root,), (root,), release=root / "release")
    executor = connect(cluster.scheduler_address, time_limit=2.0)
    executor.start(replace(hanging, roots=roots), answers.put)
    answer = answers.get(timeout=PATIENCE)
    assert isinstance(answer, TimeoutError)
    assert "longer than 2 s" in str(answer)
    dispatcher = Dispatcher(executor)
    dispatcher.add(tasks)
    dispatcher.run()
    require_converted(tasks)
    roots.release.touch()


def test_closing_cancels_what_hangs_in_the_time_it_is_given(
    cluster: LocalCluster, connect: MakeExecutor, root: Path, answers: "SimpleQueue[Result]"
) -> None:
    (hanging,) = frame_tasks(root, 1)
    roots = HangingRoots((root,), (root,), release=root / "release")
    executor = connect(cluster.scheduler_address)
    executor.start(replace(hanging, roots=roots), answers.put)
    until((root / "hanging").exists, "the conversion hangs")
    began = time.monotonic()
    executor.close(0.2)
    assert time.monotonic() - began < 5
    until(lambda: not cluster.scheduler.tasks, "the scheduler has forgotten the task")
    assert not cluster.scheduler.extensions["events"]._events
    assert answers.empty()
    roots.release.touch()


def test_frames_wait_for_the_first_worker(
    make_cluster: Callable[[int], LocalCluster], connect: MakeExecutor, root: Path, answers: "SimpleQueue[Result]"
) -> None:
    cluster = make_cluster(0)
    tasks = frame_tasks(root, 4)
    executor = connect(cluster.scheduler_address, time_limit=1.0)
    executor.start(tasks[0], answers.put)
    answer = answers.get(timeout=PATIENCE)
    assert isinstance(answer, ExecutorUnavailableError)
    assert "No Dask worker started the frame within 1 s" in str(answer)
    executor.close(PATIENCE)
    cluster.scale(1)
    dispatcher = Dispatcher(connect(cluster.scheduler_address))
    dispatcher.add(tasks)
    dispatcher.run()
    assert not dispatcher.crashes
    require_converted(tasks)


def test_worker_without_this_package_is_reported_and_costs_no_attempt(
    cluster: LocalCluster, connect: MakeExecutor, root: Path, answers: "SimpleQueue[Result]"
) -> None:
    (task,) = frame_tasks(root, 1)
    with cluster.get_client() as client:
        client.run(lambda: sys.modules.update({"tango_server.jobs.executors.dask_task": None}))  # type: ignore[dict-item]
    connect(cluster.scheduler_address).start(task, answers.put)
    answer = answers.get(timeout=PATIENCE)
    assert isinstance(answer, ExecutorUnavailableError)
    assert "tango_server" in str(answer)
    assert "petif-bluesky[server,dask]" in str(answer)


def test_a_worker_of_another_version_converts_nothing(
    cluster: LocalCluster, connect: MakeExecutor, root: Path, answers: "SimpleQueue[Result]"
) -> None:
    (task,) = frame_tasks(root, 1)
    with cluster.get_client() as client:
        client.run(_pretend_version)
    connect(cluster.scheduler_address).start(task, answers.put)
    answer = answers.get(timeout=PATIENCE)
    assert isinstance(answer, ExecutorUnavailableError)
    assert "runs petif-bluesky 0.0.0" in str(answer)
    assert not task.job.output.exists()


def _pretend_version() -> None:
    from tango_server.jobs.executors import dask_task

    dask_task.package_version = lambda: "0.0.0"


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs a path that differs from process to process")
def test_file_missing_only_on_the_worker_is_reported(
    cluster: LocalCluster,
    connect: MakeExecutor,
    root: Path,
    answers: "SimpleQueue[Result]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (task,) = frame_tasks(root, 1)
    monkeypatch.chdir(task.job.source.parent)
    executor = connect(cluster.scheduler_address)
    executor.start(
        replace(task, job=replace(task.job, source=Path("/proc/self/cwd") / task.job.source.name), roots=ANYWHERE),
        answers.put,
    )
    answer = answers.get(timeout=PATIENCE)
    assert isinstance(answer, ExecutorUnavailableError)
    assert f"{task.job.source.name}: the Dask worker at tcp://127.0.0.1" in str(answer)
    assert "cannot see this file" in str(answer)
    mask = Path("/proc/self/cwd") / "mask.tif"
    (root / "raw" / "mask.tif").touch()
    masked = replace(task.job, corrections=Corrections(mask=str(mask)))
    executor.start(replace(task, job=masked, roots=ANYWHERE), answers.put)
    answer = answers.get(timeout=PATIENCE)
    assert isinstance(answer, ExecutorUnavailableError)
    assert f"{mask}: the Dask worker at" in str(answer)
    task.job.source.unlink()
    executor.start(task, answers.put)
    failure = answers.get(timeout=PATIENCE)
    assert isinstance(failure, Failure)
    assert failure.kind == "not_ready"
    assert "Dask" not in failure.reason


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def start_dask(root: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a part of a cluster as a process of its own."""
    with contextlib.ExitStack() as stop:

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            common = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments, *common],
                env={
                    **os.environ,
                    "PYTHONPATH": str(Path(__file__).parents[2]),
                    "DASK_TEMPORARY_DIRECTORY": str(root / "dask"),
                },
                cwd=root,
                stderr=stop.enter_context((root / f"dask-{time.monotonic_ns()}.log").open("wb")),
            )
            stop.callback(process.wait)
            stop.callback(process.kill)
            return process

        yield start


def test_scheduler_that_is_down_or_killed_costs_no_attempt(
    port: int,
    start_dask: Callable[..., subprocess.Popen[bytes]],
    open_service: Callable[..., JobRunner],
    root: Path,
) -> None:
    address = f"tcp://127.0.0.1:{port}"

    def start_cluster() -> subprocess.Popen[bytes]:
        scheduler = start_dask("scheduler", "--port", str(port))
        start_dask("worker", address, "--nthreads", "2", "--no-nanny")
        return scheduler

    tasks = frame_tasks(root, 60, side=400)
    runner = open_service(address, attempts=1)
    runner.submit_files([str(task.job.source) for task in tasks])
    until(lambda: runner.snapshot.running == 2, "frames are to be converted")
    scheduler = start_cluster()
    until(lambda: runner.snapshot.converted >= 15, "15 frames are converted")
    scheduler.kill()
    scheduler.wait()
    start_cluster()
    until(lambda: runner.snapshot.processed == 60, "every frame has its report")
    assert runner.snapshot.converted == 60
    require_converted(tasks)


def test_server_reports_a_missing_scheduler_and_notices_a_new_one(
    port: int, start_dask: Callable[..., subprocess.Popen[bytes]], open_service: Callable[..., JobRunner]
) -> None:
    runner = open_service(f"tcp://127.0.0.1:{port}")
    until(lambda: f"Cannot connect to the Dask scheduler at tcp://127.0.0.1:{port}" in runner.problem, "it is missed")
    start_dask("scheduler", "--port", str(port))
    until(lambda: not runner.problem, "it is noticed, though there is no frame")


def test_task_fails_promptly_without_a_scheduler(
    connect: MakeExecutor, root: Path, answers: "SimpleQueue[Result]"
) -> None:
    began = time.monotonic()
    executor = connect("tcp://127.0.0.1:1")
    assert time.monotonic() - began < 0.5
    executor.start(frame_tasks(root, 1)[0], answers.put)
    answer = answers.get(timeout=3)
    assert isinstance(answer, ExecutorUnavailableError)
    assert "Cannot connect to the Dask scheduler at tcp://127.0.0.1:1" in str(answer)
    assert "Start the scheduler, or correct dask_scheduler" in str(answer)


def test_more_tasks_than_agreed_are_refused(
    cluster: LocalCluster, connect: MakeExecutor, root: Path, answers: "SimpleQueue[Result]"
) -> None:
    tasks = frame_tasks(root, 3)
    roots = HangingRoots((root,), (root,), release=root / "release")
    executor = connect(cluster.scheduler_address)
    for task in tasks[:2]:
        executor.start(replace(task, roots=roots), answers.put)
    with pytest.raises(IndexError):
        executor.start(tasks[2], answers.put)
    roots.release.touch()
    assert {type(answers.get(timeout=PATIENCE)) for _ in range(2)} == {FrameReport}
