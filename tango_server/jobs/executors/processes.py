"""Conversions in spawned worker processes of this host."""

import logging
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, wait
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple

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

Answers = list[FrameReport | Failure]
"""What a worker says of the tasks of one message."""


class ProcessExecutor:
    """Spawned worker processes, each for itself: a crash or a hang costs the one task in it.

    A pool of the standard library fails every pending task when one worker dies, and leaves semaphores in the system
    when it is killed as a whole. A worker that can't get ready (no memory, a broken installation) costs no frame
    anything: they wait, and it is tried again after a pause.

    A worker gets all tasks that wait for it in one message: of small frames there may be several, see `ReadyQueue`.
    """

    def __init__(self, workers: int, time_limit: float) -> None:
        self._watchdog = Watchdog(time_limit)
        self._starts = StartBackoff()
        self._slots = [_Slot(time_limit, self._watchdog, self._starts) for _ in range(workers)]

    @property
    def trouble(self) -> str:
        """Why no worker process can be started; empty: nothing is known against it."""
        return self._starts.trouble

    def start(self, task: Task, done: Done) -> None:
        """Run `task` in the worker process that has least to do."""
        min(self._slots, key=lambda slot: slot.load).start(task, done)

    def close(self, patience: float) -> None:
        """Let running tasks finish for at most `patience` seconds, then kill the workers."""
        for slot in self._slots:
            slot.begin_no_more()
        wait([slot.running for slot in self._slots if slot.running is not None], timeout=patience)
        self._watchdog.close()
        for slot in self._slots:
            slot.close()


class _Given(NamedTuple):
    """A task, and who is to know what becomes of it. `alone`: a worker died or hung over it and others."""

    task: Task
    done: Done
    alone: bool = False


class _Slot:
    """One worker process after the other, each for as long as it lives."""

    def __init__(self, time_limit: float, watchdog: Watchdog, starts: StartBackoff) -> None:
        self._time_limit = time_limit
        self._watchdog = watchdog
        self._starts = starts
        self._ending = False  # begin nothing
        self._closed = False  # nobody wants to know any more
        self._lock = threading.Lock()
        self._waiting: deque[_Given] = deque()
        self._in_work: list[_Given] = []
        self.running: Future[Answers] | None = None
        self._worker: _Worker | None = None
        self._renew()

    @property
    def load(self) -> int:
        """How many tasks it has."""
        with self._lock:
            return len(self._waiting) + len(self._in_work)

    def start(self, task: Task, done: Done) -> None:
        with self._lock:
            self._waiting.append(_Given(task, done))
        self._go_on()

    def begin_no_more(self) -> None:
        with self._lock:
            self._ending = True

    def close(self) -> None:
        self._closed = True
        if self._worker is not None:
            self._worker.close()

    def _go_on(self) -> None:
        """Give the worker what waits, if it has nothing."""
        with self._lock:
            if self._in_work or not self._waiting or self._ending:
                return
            self._in_work = together = self._next()
        submitted = self._submit([given.task for given in together])
        if submitted is None:
            self._told(together, [self._unavailable()] * len(together))
            return
        in_charge, future = submitted
        self.running = future
        hung = threading.Event()

        def end_hung() -> None:
            if self.running is future:  # a watchdog that was held up may be late, when other tasks are at work
                hung.set()
                in_charge.kill()

        call_off = self._watchdog.watch(end_hung)

        def ended(future: "Future[Answers]") -> None:
            call_off()
            results = self._results(in_charge, future, len(together), hung=hung.is_set())
            self.running = None
            self._told(together, results)

        future.add_done_callback(ended)

    def _next(self) -> list[_Given]:
        """Take what goes together: all that waits, but alone whatever has to."""
        together = [self._waiting.popleft()]
        while self._waiting and not together[0].alone and not self._waiting[0].alone:
            together.append(self._waiting.popleft())
        return together

    def _told(self, together: list[_Given], results: Sequence[Result]) -> None:
        """Pass on what became of tasks; which of several has cost the worker its life is found by giving each alone."""
        innocent = len(together) > 1 and isinstance(results[0], BaseException)
        innocent = innocent and not isinstance(results[0], ExecutorUnavailableError)
        with self._lock:
            self._in_work = []
            if innocent:
                self._waiting.extendleft(given._replace(alone=True) for given in reversed(together))
        if not innocent and not self._closed:
            for given, result in zip(together, results, strict=True):
                given.done(result)
        self._go_on()

    def _submit(self, tasks: list[Task]) -> "tuple[_Worker, Future[Answers]] | None":
        """Hand tasks to the worker, or to its successor if it is gone; return None if there is none."""
        if self._worker is None or self._worker.is_unfit:
            self._renew()
        for _ in range(2):
            if self._worker is None:
                break
            try:
                return self._worker, self._worker.submit(tasks)
            except BrokenExecutor:  # its process was killed while it had nothing to do
                self._renew()
        return None

    def _renew(self) -> None:
        """Start a process at once, so that the next frame does not wait for its imports; none if that has failed."""
        if self._worker is not None:
            self._worker.give_up()
        self._worker = None
        if self._closed or not self._starts.may_begin():
            return
        try:
            self._worker = _Worker(self._prepared)
        except (OSError, MemoryError) as error:
            self._starts.failed(error)

    def _prepared(self, preparation: "Future[None]") -> None:
        if self._closed:
            return
        error = preparation.exception()
        if error is None:
            self._starts.succeeded()
        else:
            self._starts.failed(error)

    def _unavailable(self) -> ExecutorUnavailableError:
        return ExecutorUnavailableError(self._starts.trouble or "a worker process ended before it was ready")

    def _results(self, in_charge: "_Worker", future: "Future[Answers]", count: int, *, hung: bool) -> Sequence[Result]:
        """Return what became of so many tasks; the same of each if the worker has not told."""
        error = future.exception()
        if error is None:
            return future.result()
        broken, ready = isinstance(error, BrokenExecutor), in_charge.is_ready
        if broken or not ready:
            self._renew()
        if not ready:
            error = self._unavailable()
        elif not broken:
            _log.error("a worker failed in a way that it should not", exc_info=error)
        elif hung:
            error = TimeoutError(f"the conversion took longer than {self._time_limit:g} s and its worker was ended")
        else:
            error = RuntimeError("the worker process died (was it killed, or did the memory run out?)")
        return [error] * count


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
        self._tasks: SimpleQueue[tuple[list[Task], Future[Answers]] | None] = SimpleQueue()
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

    def submit(self, tasks: list[Task]) -> "Future[Answers]":
        """Have tasks run, after those before; raise `BrokenExecutor` if the process is gone."""
        if not self._life.is_alive():
            raise BrokenExecutor
        future: Future[Answers] = Future()
        self._tasks.put((tasks, future))
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
        """Hand over what there is to do and pass the answers on, until told to end."""
        with self._pipe:
            _settle(self._preparation, self._answer)
            while (item := self._tasks.get()) is not None:
                tasks, future = item
                _settle(future, partial(self._answer, tasks))

    def _answer(self, tasks: list[Task] | None = None) -> Any:
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
