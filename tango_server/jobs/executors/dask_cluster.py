"""Conversions on a Dask cluster with a shared file system.

When a worker is lost, Dask reruns its tasks on another one, up to the scheduler's `allowed-failures` times, and a rerun
does not know that it is not the first. So each task sets a mark on the scheduler when it starts, and never starts twice
(`dask_task.run_once`). A task that has not started moves to another worker; one that had started counts as a crash, as
with a killed process, and the job decides whether to try again.
"""

import asyncio
import contextlib
import logging
import pickle
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from distributed import Client, Event, Future, KilledWorker

from tango_server.conversion.provenance import package_version
from tango_server.jobs.executors import dask_task
from tango_server.jobs.executors.base import AttemptLostError, Done, ExecutorUnavailableError, Result
from tango_server.jobs.executors.dask_connection import SchedulerConnection
from tango_server.jobs.executors.worker import Task

_log = logging.getLogger(__name__)

_POLL_INTERVAL = 1.0
_ANSWER_TIMEOUT = 1.0
_RECONNECT_INTERVAL = 5.0  # so that the status is right even when no frames come
_END_TIMEOUT = 6.0  # for the mark of the task, then the connection


class DaskExecutor:
    """The Dask cluster of one scheduler. Its workers need this package and the same paths as the server.

    The scheduler may be down, at the start and later: tasks end with `ExecutorUnavailableError` until it is back. The
    time limit counts from when a worker starts the task; a task that none starts within that time is withdrawn.
    Dask cannot stop a conversion that hangs: its thread is lost until that worker is restarted.
    """

    def __init__(self, scheduler: str, workers: int, time_limit: float) -> None:
        """`scheduler` is an address such as `tcp://host:8786` or `tls://host:8786`; connects in the background."""
        self._time_limit = time_limit
        self._connection = SchedulerConnection(scheduler)
        self._free = threading.Semaphore(workers)
        self._attending: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()
        self._close_timeout = 0.0
        self._closed = False
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._serve, name="petif-dask", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str:
        """Why the last attempt to connect to the scheduler failed; empty if connected, or not tried yet."""
        return self._connection.problem

    def start(self, task: Task, done: Done) -> None:
        """Submit `task` to the cluster; raise `IndexError` if the maximum number is already there."""
        if not self._free.acquire(blocking=False):
            raise IndexError("the maximum number of tasks is already on the cluster")
        self._loop.call_soon_threadsafe(self._begin, task, done)

    def close(self, timeout: float) -> None:
        """Let running tasks finish for at most `timeout` seconds, then cancel them and disconnect."""
        if not self._thread.is_alive():
            return
        self._close_timeout = timeout
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(timeout + _END_TIMEOUT)
        if self._thread.is_alive():
            _log.error("Cannot close the connection to the Dask scheduler; it ends with this process")

    def _serve(self) -> None:
        with self._runner as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        while not self._closing.is_set():
            self._connection.reconnect()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), _RECONNECT_INTERVAL)
        if self._attending:
            await asyncio.wait(self._attending, timeout=self._close_timeout)
        self._closed = True
        for attending in self._attending:
            attending.cancel()
        await asyncio.gather(*self._attending, return_exceptions=True)
        await self._connection.close()

    def _begin(self, task: Task, done: Done) -> None:
        attending = asyncio.create_task(self._attend(task, done))
        self._attending.add(attending)
        attending.add_done_callback(self._attending.discard)

    async def _attend(self, task: Task, done: Done) -> None:
        try:
            result = await self._result(task)
        except Exception as error:  # noqa: BLE001 - boundary of the event loop; passed on to the job
            _log.exception("job %s: unexpected error on the Dask cluster", task.job.job_id)
            result = error
        self._free.release()
        if not self._closed:
            await asyncio.to_thread(done, result)

    async def _result(self, task: Task) -> Result:
        try:
            client = await self._connection.client()
            return await _on_cluster(client, task, task.frames * self._time_limit)
        except ExecutorUnavailableError as error:
            return error


@dataclass(frozen=True)
class _Call:
    """A call of `dask_task.run_once`, made by unpickling this.

    Messages of Dask itself then don't refer to this package: a worker that cannot import what a message refers to loses
    its connection to the scheduler, and one worker after another would.
    """

    task: Task
    mark: str
    version: str

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return dask_task.run_once, (self.task, self.mark, self.version)


async def _on_cluster(client: Client, task: Task, time_limit: float) -> Result:
    """Run `task` and return its result; leave nothing of it on the scheduler."""
    mark = f"petif-{task.job.job_id}-{uuid.uuid4().hex}"
    begun = Event(mark, client)
    call = pickle.dumps(_Call(task, mark, package_version()))
    future: Future[Any] = client.submit(pickle.loads, call, key=mark, pure=False, retries=0)
    answer: asyncio.Future[Any] = asyncio.ensure_future(future)
    try:
        has_begun = await _wait(answer, begun, time_limit)
        if answer.done():
            return await asyncio.to_thread(_result_of, task, future, answer)
    finally:
        answer.cancel()
        await _forget(client, future, begun)
    if has_begun:
        return TimeoutError(f"the conversion took longer than {time_limit:g} s and was abandoned")
    return ExecutorUnavailableError(f"No Dask worker started the frame within {time_limit:g} s. Start more workers.")


async def _wait(answer: "asyncio.Future[Any]", begun: Event, time_limit: float) -> bool:
    """Wait for the answer or the time limit; return whether the task is known to have started."""
    has_begun, deadline = False, monotonic() + time_limit
    while not answer.done() and (left := deadline - monotonic()) > 0:
        await asyncio.wait({answer}, timeout=min(left, _POLL_INTERVAL))
        if not has_begun and not answer.done() and await _is_set(begun):
            has_begun, deadline = True, monotonic() + time_limit
    return has_begun


async def _is_set(begun: Event) -> bool:
    """Whether the scheduler has the mark that the task has started."""
    try:
        return bool(await asyncio.wait_for(begun.is_set(), _ANSWER_TIMEOUT))
    except (OSError, TimeoutError):
        return False


async def _forget(client: Client, future: "Future[Any]", begun: Event) -> None:
    with contextlib.suppress(OSError, TimeoutError):  # a scheduler that is gone has forgotten the task
        if not future.done():
            await client.cancel([future])
        await asyncio.wait_for(begun.clear(), _ANSWER_TIMEOUT)


def _result_of(task: Task, future: "Future[Any]", answer: "asyncio.Future[Any]") -> Result:
    """Return the result for the job from the answer of the cluster."""
    error = answer.exception()
    if error is None:
        return _meaning(task, answer.result())
    if isinstance(error, KilledWorker):
        return RuntimeError(f"the Dask workers that converted it died: {error}")
    if isinstance(error, ImportError):
        return ExecutorUnavailableError(
            f"A Dask worker cannot convert frames: {error}. Install the server's version of petif-bluesky[server,dask] "
            "there and restart the worker."
        )
    if future.status == "error":
        _log.error("job %s: unexpected error in a Dask worker", task.job.job_id, exc_info=error)
        return error
    return AttemptLostError(f"Lost the connection to the Dask scheduler or worker: {error}")


def _meaning(task: Task, result: Any) -> Result:
    match result:
        case dask_task.BegunBefore(reason):
            return RuntimeError(reason)
        case dask_task.Unseen(failure=failure) if task.job.missing_file is not None:
            return failure
        case dask_task.Declined(reason):
            return ExecutorUnavailableError(reason)
    converted: Result = result
    return converted
