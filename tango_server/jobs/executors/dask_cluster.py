"""Conversions on a Dask cluster over a shared file system.

When a worker is lost, Dask itself runs its tasks anew on another one, as often as the scheduler's `allowed-failures`
says, and such a run does not know that it is not the first. So each task marks on the scheduler that it has begun, and
never begins twice (`dask_task.run_once`). What nobody has begun moves to another worker; what a lost worker had begun
counts as a crash, as with a process that was killed: its job says whether there is another attempt.
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

from tango_server.conversion.tiff.provenance import package_version
from tango_server.jobs.executors import dask_task
from tango_server.jobs.executors.base import AttemptLostError, Done, ExecutorUnavailableError, Result
from tango_server.jobs.executors.dask_connection import SchedulerConnection
from tango_server.jobs.executors.worker import Task

_log = logging.getLogger(__name__)

_LOOK_INTERVAL = 1.0
_ANSWER_PATIENCE = 1.0
_MEND_INTERVAL = 5.0  # so that people see whether frames could be converted, also when none come
_END_PATIENCE = 6.0  # for the task's mark and the connection, one after the other


class DaskExecutor:
    """The Dask cluster of one scheduler, over which nothing else is known. Its workers need this package and our paths.

    The scheduler may be down, at the start and later: tasks are answered with `ExecutorUnavailableError` until it is
    back. The time limit counts from when a worker begins; if none does for as long, the task is withdrawn, too.
    Dask ends no conversion that hangs: its thread is lost to the cluster until that worker is restarted.
    """

    def __init__(self, scheduler: str, workers: int, time_limit: float) -> None:
        """`scheduler` is an address such as `tcp://host:8786` or `tls://host:8786`; nothing waits for it."""
        self._time_limit = time_limit
        self._connection = SchedulerConnection(scheduler)
        self._free = threading.Semaphore(workers)
        self._attending: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()
        self._patience = 0.0
        self._closed = False
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._serve, name="petif-dask", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str:
        """Why the last attempt to reach the scheduler has failed; empty: it is connected, or was not tried yet."""
        return self._connection.trouble

    def start(self, task: Task, done: Done) -> None:
        """Hand `task` to the cluster; raise `IndexError` if as many as were agreed are there already."""
        if not self._free.acquire(blocking=False):
            raise IndexError("as many tasks as were agreed are on the cluster already")
        self._loop.call_soon_threadsafe(self._begin, task, done)

    def close(self, patience: float) -> None:
        """Let running tasks finish for at most `patience` seconds, then cancel them and leave the cluster."""
        if not self._thread.is_alive():
            return
        self._patience = patience
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(patience + _END_PATIENCE)
        if self._thread.is_alive():
            _log.error("the connection to the Dask scheduler can't be closed; it ends with this process")

    def _serve(self) -> None:
        with self._runner as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        while not self._closing.is_set():
            self._connection.mend()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), _MEND_INTERVAL)
        if self._attending:
            await asyncio.wait(self._attending, timeout=self._patience)
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
        except Exception as error:  # noqa: BLE001 - the boundary of the event loop; the job is told
            _log.exception("job %s: the cluster failed it in a way that it should not", task.job.job_id)
            result = error
        self._free.release()
        if not self._closed:
            await asyncio.to_thread(done, result)

    async def _result(self, task: Task) -> Result:
        try:
            client = await self._connection.client()
            return await _on_cluster(client, task, self._time_limit)
        except ExecutorUnavailableError as error:
            return error


@dataclass(frozen=True)
class _Call:
    """A call of `dask_task.run_once`, made by whoever unpickles it.

    What Dask itself sends has nothing of this package in it: a worker that lacks what a message names loses its
    connection with the scheduler over it, and one after the other would.
    """

    task: Task
    mark: str
    version: str

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return dask_task.run_once, (self.task, self.mark, self.version)


async def _on_cluster(client: Client, task: Task, time_limit: float) -> Result:
    """Return what becomes of `task`; leave nothing of it on the scheduler."""
    mark = f"petif-{task.job.job_id}-{uuid.uuid4().hex}"
    begun = Event(mark, client)
    call = pickle.dumps(_Call(task, mark, package_version()))
    future: Future[Any] = client.submit(pickle.loads, call, key=mark, pure=False, retries=0)
    answer: asyncio.Future[Any] = asyncio.ensure_future(future)
    try:
        has_begun = await _wait(answer, begun, time_limit)
        if answer.done():
            return await asyncio.to_thread(_told, task, future, answer)
    finally:
        answer.cancel()
        await _forget(client, future, begun)
    if has_begun:
        return TimeoutError(f"the conversion took longer than {time_limit:g} s and was given up")
    return ExecutorUnavailableError(
        f"no worker of the Dask cluster has taken the frame within {time_limit:g} s. Start workers, or more of them."
    )


async def _wait(answer: "asyncio.Future[Any]", begun: Event, time_limit: float) -> bool:
    """Wait for the answer, or until the task has had its time; return whether it is known to have begun."""
    has_begun, deadline = False, monotonic() + time_limit
    while not answer.done() and (left := deadline - monotonic()) > 0:
        await asyncio.wait({answer}, timeout=min(left, _LOOK_INTERVAL))
        if not has_begun and not answer.done() and await _is_set(begun):
            has_begun, deadline = True, monotonic() + time_limit
    return has_begun


async def _is_set(begun: Event) -> bool:
    """Whether the task has begun, as far as the scheduler tells."""
    try:
        return bool(await asyncio.wait_for(begun.is_set(), _ANSWER_PATIENCE))
    except (OSError, TimeoutError):
        return False


async def _forget(client: Client, future: "Future[Any]", begun: Event) -> None:
    with contextlib.suppress(OSError, TimeoutError):  # a scheduler that is gone has forgotten it
        if not future.done():
            await client.cancel([future])
        await asyncio.wait_for(begun.clear(), _ANSWER_PATIENCE)


def _told(task: Task, future: "Future[Any]", answer: "asyncio.Future[Any]") -> Result:
    """Return what the answer of the cluster means for the job."""
    error = answer.exception()
    if error is None:
        return _meaning(task, answer.result())
    if isinstance(error, KilledWorker):
        return RuntimeError(f"the Dask workers that took it died: {error}")
    if isinstance(error, ImportError):
        return ExecutorUnavailableError(
            f"a Dask worker can't convert frames ({error}). Install petif-bluesky[server,dask] where it runs, in the "
            "version of the server, and restart it."
        )
    if future.status == "error":
        _log.error("job %s: a worker failed in a way that it should not", task.job.job_id, exc_info=error)
        return error
    return AttemptLostError(f"the Dask scheduler or the worker that had the frame was lost ({error})")


def _meaning(task: Task, result: Any) -> Result:
    match result:
        case dask_task.BegunBefore(reason):
            return RuntimeError(reason)
        case dask_task.Unseen(failure=failure) if not task.job.source.exists():
            return failure
        case dask_task.Declined(reason):
            return ExecutorUnavailableError(reason)
    told: Result = result
    return told
