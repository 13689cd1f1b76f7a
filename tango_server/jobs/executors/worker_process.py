"""One spawned worker process, at the other end of a pipe."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic

from tango_server.jobs.executors import worker
from tango_server.jobs.executors.worker import Answer, Work

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
_ENVIRONMENT = {"PYTHONSAFEPATH": "1", **dict.fromkeys(_THREADS, "1")}
_CHANGING = threading.Lock()


class WorkerProcess(Generic[Work, Answer]):
    """One process at the other end of a pipe, which calls `run` for each task.

    It first prepares; if that fails, no task was started.

    It uses no named system resources, so that nothing is left behind when it is killed together with its server.
    """

    def __init__(self, prepared: "Callable[[Future[None]], None]", run: Callable[[Work], Answer]) -> None:
        """Start the process; raise `OSError` or `MemoryError` if that fails. `prepared` is called with the result."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        with theirs:
            self._process = context.Process(target=worker.serve, args=(theirs, worker.prepare, run), daemon=True)
            try:
                with _worker_environment():
                    self._process.start()
            except BaseException:
                self._pipe.close()
                raise
        self._tasks: SimpleQueue[tuple[list[Work], Future[list[Answer]]] | None] = SimpleQueue()
        self._preparation: Future[None] = Future()
        self._preparation.add_done_callback(prepared)
        self._exit_thread = threading.Thread(target=self._process.join, name="petif-worker-exit", daemon=True)
        self._thread = threading.Thread(target=self._communicate, name="petif-worker", daemon=True)
        self._exit_thread.start()
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether it has prepared successfully."""
        return self._preparation.done() and self._preparation.exception() is None

    @property
    def has_failed(self) -> bool:
        """Whether its preparation has failed."""
        return self._preparation.done() and not self.is_ready

    def submit(self, tasks: list[Work]) -> "Future[list[Answer]]":
        """Queue tasks; raise `BrokenExecutor` if the process is gone."""
        if not self._exit_thread.is_alive():
            raise BrokenExecutor
        future: Future[list[Answer]] = Future()
        self._tasks.put((tasks, future))
        return future

    def kill(self) -> None:
        """Kill the process; tasks without an answer get `BrokenExecutor`."""
        self._process.kill()

    def give_up(self) -> None:
        """Kill the process without waiting."""
        self.kill()
        self._tasks.put(None)

    def close(self) -> None:
        """Kill the process and wait for its threads."""
        self.give_up()  # running tasks have had their time
        self._thread.join()
        self._exit_thread.join()

    def _communicate(self) -> None:
        """Exchange tasks and answers with the process until stopped."""
        with self._pipe:
            _settle(self._preparation, self._answer)
            while (item := self._tasks.get()) is not None:
                _settle(item[1], partial(self._answer, item[0]))

    def _answer(self, tasks: list[Work] | None = None) -> Any:
        try:
            if tasks is not None:
                self._pipe.send(tasks)
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:  # the process is gone
            raise BrokenExecutor from error
        if isinstance(answer, BaseException):
            raise answer
        return answer


@contextmanager
def _worker_environment() -> Iterator[None]:
    """Set the environment of a new process: no imports from the working directory, one thread per library.

    A `signal.py` among the frames would run in every worker; libraries with one thread per core would compete.
    """
    with _CHANGING:
        before = {name: os.environ.get(name) for name in _ENVIRONMENT}
        os.environ.update(_ENVIRONMENT)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _settle(future: "Future[Any]", answer: Callable[[], Any]) -> None:
    try:
        result = answer()
    except BaseException as error:  # noqa: BLE001 - passed on through the future
        future.set_exception(error)
    else:
        future.set_result(result)
    finally:
        del future  # it holds the error, which holds this frame: only the garbage collector would end such a circle
