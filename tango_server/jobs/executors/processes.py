"""Conversions in spawned worker processes of this host."""

import logging
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, wait
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any

from tango_server.jobs.executors import worker
from tango_server.jobs.executors.base import Done, ExecutorUnavailableError, Result
from tango_server.jobs.executors.start_backoff import StartBackoff
from tango_server.jobs.executors.watchdog import Watchdog
from tango_server.jobs.executors.worker import Failure, Task
from tango_server.messages import FrameReport

_log = logging.getLogger(__name__)

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
_ENVIRONMENT = {"PYTHONSAFEPATH": "1", **dict.fromkeys(_THREADS, "1")}
_CHANGING = threading.Lock()


class ProcessExecutor:
    """Spawned worker processes, each for itself: a crash or a hang costs the one task in it.

    A pool of the standard library fails every pending task when one worker dies, and leaves semaphores in the system
    when it is killed as a whole. A worker that can't get ready (no memory, a broken installation) costs no frame
    anything: they wait, and it is tried again after a pause.
    """

    def __init__(self, workers: int, time_limit: float) -> None:
        self._watchdog = Watchdog(time_limit)
        self._starts = StartBackoff()
        self._slots = [_Slot(time_limit, self._watchdog, self._starts) for _ in range(workers)]
        self._free = deque(self._slots)
        self._closed = False

    @property
    def trouble(self) -> str:
        """Why no worker process can be started; empty: nothing is known against it."""
        return self._starts.trouble

    def start(self, task: Task, done: Done) -> None:
        """Run `task` in a free worker process; raise `IndexError` if there is none."""
        slot = self._free.popleft()

        def finished(result: Result) -> None:
            self._free.append(slot)
            if not self._closed:
                done(result)

        slot.start(task, finished)

    def close(self, patience: float) -> None:
        """Let running tasks finish for at most `patience` seconds, then kill the workers."""
        wait([slot.running for slot in self._slots if slot.running is not None], timeout=patience)
        self._closed = True
        self._watchdog.close()
        for slot in self._slots:
            slot.close()


class _Slot:
    """One worker process after the other, each for as long as it lives."""

    def __init__(self, time_limit: float, watchdog: Watchdog, starts: StartBackoff) -> None:
        self._time_limit = time_limit
        self._watchdog = watchdog
        self._starts = starts
        self._closing = False
        self.running: Future[FrameReport | Failure] | None = None
        self._worker: _Worker | None = None
        self._renew()

    def start(self, task: Task, finished: Done) -> None:
        submitted = self._submit(task)
        if submitted is None:
            finished(self._unavailable())
            return
        in_charge, future = submitted
        self.running = future
        hung = threading.Event()

        def end_hung() -> None:
            if self.running is future:  # a watchdog that was held up may be late, when another task is at work
                hung.set()
                in_charge.kill()

        call_off = self._watchdog.watch(end_hung)

        def ended(future: "Future[FrameReport | Failure]") -> None:
            call_off()
            result = self._result(in_charge, future, hung=hung.is_set())
            self.running = None
            finished(result)

        future.add_done_callback(ended)

    def close(self) -> None:
        self._closing = True
        if self._worker is not None:
            self._worker.close()

    def _submit(self, task: Task) -> "tuple[_Worker, Future[FrameReport | Failure]] | None":
        """Hand the task to the worker, or to its successor if it is gone; return None if there is none."""
        if self._worker is None or self._worker.is_unfit:
            self._renew()
        for _ in range(2):
            if self._worker is None:
                break
            try:
                return self._worker, self._worker.submit(task)
            except BrokenExecutor:  # its process was killed while it had nothing to do
                self._renew()
        return None

    def _renew(self) -> None:
        """Start a process at once, so that the next frame does not wait for its imports; none if that has failed."""
        if self._worker is not None:
            self._worker.give_up()
        self._worker = None
        if self._closing or not self._starts.may_begin():
            return
        try:
            self._worker = _Worker(self._prepared)
        except (OSError, MemoryError) as error:
            self._starts.failed(error)

    def _prepared(self, preparation: "Future[None]") -> None:
        if self._closing:
            return
        error = preparation.exception()
        if error is None:
            self._starts.succeeded()
        else:
            self._starts.failed(error)

    def _unavailable(self) -> ExecutorUnavailableError:
        return ExecutorUnavailableError(self._starts.trouble or "a worker process ended before it was ready")

    def _result(self, in_charge: "_Worker", future: "Future[FrameReport | Failure]", *, hung: bool) -> Result:
        error = future.exception()
        if error is None:
            return future.result()
        broken, ready = isinstance(error, BrokenExecutor), in_charge.is_ready
        if broken or not ready:
            self._renew()
        if not ready:
            return self._unavailable()
        if not broken:
            _log.error("a worker failed in a way that it should not", exc_info=error)
            return error
        if hung:
            return TimeoutError(f"the conversion took longer than {self._time_limit:g} s and its worker was ended")
        return RuntimeError("the worker process died (was it killed, or did the memory run out?)")


class _Worker:
    """One process at the other end of a pipe. What it does first is to get ready; whoever can't has begun no frame.

    Nothing of it has a name in the system, so that nothing stays behind when it is killed together with its server.
    """

    def __init__(self, prepared: "Callable[[Future[None]], None]") -> None:
        """Start it; raise `OSError` or `MemoryError` if there can be no process. `prepared` is called in the end."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        with theirs:
            self._process = context.Process(target=worker.serve, args=(theirs, worker.prepare), daemon=True)
            try:
                with _environment_of_a_worker():
                    self._process.start()
            except BaseException:
                self._pipe.close()
                raise
        self._tasks: SimpleQueue[tuple[Task, Future[FrameReport | Failure]] | None] = SimpleQueue()
        self._preparation: Future[None] = Future()
        self._preparation.add_done_callback(prepared)
        self._life = threading.Thread(target=self._process.join, name="petif-worker-life", daemon=True)
        self._thread = threading.Thread(target=self._ask, name="petif-worker", daemon=True)
        self._life.start()
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether it got ready."""
        return self._preparation.done() and self._preparation.exception() is None

    @property
    def is_unfit(self) -> bool:
        """Whether it is known that it can't get ready."""
        return self._preparation.done() and not self.is_ready

    def submit(self, task: Task) -> "Future[FrameReport | Failure]":
        """Have a task run, after those before; raise `BrokenExecutor` if the process is gone."""
        if not self._life.is_alive():
            raise BrokenExecutor
        future: Future[FrameReport | Failure] = Future()
        self._tasks.put((task, future))
        return future

    def kill(self) -> None:
        self._process.kill()

    def give_up(self) -> None:
        """Wait for nothing; a process that could not get ready is ended."""
        self.kill()
        self._tasks.put(None)

    def close(self) -> None:
        self.give_up()  # whatever still runs has had its time, and the idle ones have nothing to lose
        self._thread.join()
        self._life.join()

    def _ask(self) -> None:
        """Hand over one task after the other and pass the answers on, until told to end."""
        with self._pipe:
            _settle(self._preparation, self._answer)
            while (item := self._tasks.get()) is not None:
                task, future = item
                _settle(future, partial(self._answer, task))

    def _answer(self, task: Task | None = None) -> Any:
        try:
            if task is not None:
                self._pipe.send(task)
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:  # the process is gone
            raise BrokenExecutor from error
        if isinstance(answer, BaseException):
            raise answer
        return answer


@contextmanager
def _environment_of_a_worker() -> Iterator[None]:
    """Have a new Python look for no modules where the frames lie, and its libraries use one core each.

    A `signal.py` among frames would run in every worker; workers that each count the cores would take one another's.
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
    except BaseException as error:  # noqa: BLE001 - whoever waits for the future is told
        future.set_exception(error)
    else:
        future.set_result(result)
