"""Where conversions run: spawned worker processes. The one interface that a cluster will fill, too."""

import contextlib
import logging
import multiprocessing
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Protocol

from pebble import ProcessExpired, ProcessPool

from tango_server.jobs import worker
from tango_server.jobs.worker import Failure, Task
from tango_server.messages import FrameReport

_log = logging.getLogger(__name__)

Result = FrameReport | Failure | BaseException
"""What becomes of a task: a report, a reason, or the exception of a worker that crashed, hung or has a fault."""


class Executor(Protocol):
    """Runs tasks elsewhere and tells what became of each, from a thread of its own."""

    def start(self, task: Task, done: Callable[[Result], None]) -> None:
        """Run `task`; call `done` once, unless the executor is closed before."""

    def close(self, patience: float) -> None:
        """Let running tasks finish for at most `patience` seconds, then end them; leave no process."""


class ProcessExecutor:
    """A pool of spawned worker processes; a crash or a hang costs the one task that was running in it."""

    def __init__(self, workers: int, time_limit: float) -> None:
        self._time_limit = time_limit
        self._pool = ProcessPool(
            max_workers=workers, initializer=worker.prepare, context=multiprocessing.get_context("spawn")
        )
        self._closed = False
        for _ in range(workers):  # the pool starts its workers with its first task; the first frame should not wait
            self._pool.schedule(worker.idle)

    def start(self, task: Task, done: Callable[[Result], None]) -> None:
        """Run `task` in a worker process."""
        future = self._pool.schedule(worker.run, args=(task,), timeout=self._time_limit)
        future.add_done_callback(lambda finished: None if self._closed else done(_result(finished, self._time_limit)))

    def close(self, patience: float) -> None:
        """Let running tasks finish for at most `patience` seconds, then kill the workers."""
        self._pool.close()
        with contextlib.suppress(TimeoutError):
            self._pool.join(timeout=patience)
        self._closed = True
        self._pool.stop()
        self._pool.join()


def _result(future: "Future[FrameReport | Failure]", time_limit: float) -> Result:
    try:
        return future.result()
    except TimeoutError:
        return TimeoutError(f"the conversion took longer than {time_limit:g} s and its worker was ended")
    except ProcessExpired as error:
        return RuntimeError(f"the worker process {error.pid} died (exit code {error.exitcode})")
    except CancelledError as error:
        return error
    except Exception as error:  # noqa: BLE001 - the boundary of the worker process: a fault of ours comes back here
        _log.exception("a worker failed in a way that it should not")
        return error
