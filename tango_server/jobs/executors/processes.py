"""Conversions, and checks of files, in spawned worker processes of this host."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Future, wait
from dataclasses import dataclass, replace
from typing import Generic

from tango_server.jobs.executors.base import ExecutorUnavailableError
from tango_server.jobs.executors.start_backoff import StartBackoff
from tango_server.jobs.executors.watchdog import Watchdog
from tango_server.jobs.executors.worker import Answer, Work
from tango_server.jobs.executors.worker_process import WorkerProcess

_log = logging.getLogger(__name__)

_MOST_AT_ONCE = 8
"""Tasks in one message, which has the time limit of one."""


class ProcessExecutor(Generic[Work, Answer]):
    """Independent spawned worker processes: a crash or a hang costs only the task in it.

    A pool of the standard library fails every pending task when one worker dies, and leaks semaphores when it is killed
    as a whole. A worker that can't start (no memory, a broken installation) fails no frame: the frames wait, and the
    start is retried after a pause.

    The time limit, in s, is for one frame: `frames` returns how many a task has.

    A worker gets its waiting tasks in one message: with small frames there may be several, see `ReadyQueue`. With
    `twice`, a task that was alone in it is tried again, too, before it counts as the one that kills its worker.
    """

    def __init__(
        self,
        workers: int,
        time_limit: float,
        run: Callable[[Work], Answer],
        *,
        frames: Callable[[Work], int] = lambda _: 1,
        twice: bool = False,
    ) -> None:
        self._watchdog = Watchdog(time_limit)
        self._starts = StartBackoff()
        self._slots = [
            _Slot(run, time_limit, self._watchdog, self._starts, frames=frames, twice=twice) for _ in range(workers)
        ]

    @property
    def problem(self) -> str:
        """Why no worker process can be started; empty if no problem is known."""
        return self._starts.problem

    def start(self, task: Work, done: Callable[[Answer | BaseException], None]) -> None:
        """Run `task` in the least busy worker process."""
        min(self._slots, key=lambda slot: slot.load).start(task, done)

    def close(self, timeout: float) -> None:
        """Let running tasks finish for at most `timeout` seconds, then kill the workers."""
        for slot in self._slots:
            slot.stop_starting()
        wait([slot.running for slot in self._slots if slot.running is not None], timeout=timeout)
        self._watchdog.close()
        for slot in self._slots:
            slot.close()


@dataclass(frozen=True, slots=True)
class _Given(Generic[Work, Answer]):
    """A task and its callback. `alone`: a worker died or hung while it had this task and others."""

    task: Work
    done: Callable[[Answer | BaseException], None]
    alone: bool = False


class _Slot(Generic[Work, Answer]):
    """A worker process, replaced when it dies."""

    def __init__(
        self,
        run: Callable[[Work], Answer],
        time_limit: float,
        watchdog: Watchdog,
        starts: StartBackoff,
        *,
        frames: Callable[[Work], int],
        twice: bool,
    ) -> None:
        self._frames = frames
        self._run = run
        self._twice = twice
        self._time_limit = time_limit
        self._watchdog = watchdog
        self._starts = starts
        self._ending = False  # start nothing more
        self._closed = False  # drop all results
        self._lock = threading.Lock()
        self._waiting: deque[_Given[Work, Answer]] = deque()
        self._current: list[_Given[Work, Answer]] = []
        self.running: Future[list[Answer]] | None = None
        self._worker: WorkerProcess[Work, Answer] | None = None
        self._renew()

    @property
    def load(self) -> int:
        """Number of tasks, waiting and running."""
        with self._lock:
            return len(self._waiting) + len(self._current)

    def start(self, task: Work, done: Callable[[Answer | BaseException], None]) -> None:
        with self._lock:
            self._waiting.append(_Given(task, done))
        self._submit_waiting()

    def stop_starting(self) -> None:
        with self._lock:
            self._ending = True

    def close(self) -> None:
        self._closed = True
        if self._worker is not None:
            self._worker.close()

    def _submit_waiting(self) -> None:
        """Send the waiting tasks to the worker if it is idle."""
        with self._lock:
            if self._current or not self._waiting or self._ending:
                return
            self._current = group = self._next()
        submitted = self._submit([given.task for given in group])
        if submitted is None:
            self._report(group, [self._unavailable()] * len(group))
            return
        process, future = submitted
        self.running = future
        hung = threading.Event()

        def end_hung() -> None:
            if self.running is future:  # a late watchdog must not kill the worker of other tasks
                hung.set()
                process.kill()

        times = max(self._frames(given.task) for given in group)
        cancel_watch = self._watchdog.watch(end_hung, times)

        def ended(future: "Future[list[Answer]]") -> None:
            cancel_watch()
            late = times * self._time_limit if hung.is_set() else None
            results = self._results(process, future, len(group), late)
            self.running = None
            self._report(group, results)

        future.add_done_callback(ended)

    def _next(self) -> list[_Given[Work, Answer]]:
        """Take the tasks of the next message: those that wait, but a task marked `alone` by itself."""
        group = [self._waiting.popleft()]
        while self._waiting and len(group) < _MOST_AT_ONCE and not group[0].alone and not self._waiting[0].alone:
            group.append(self._waiting.popleft())
        return group

    def _report(self, group: list[_Given[Work, Answer]], results: Sequence[Answer | BaseException]) -> None:
        """Pass on the results; if a worker died with several tasks, retry each alone to find out which one it was."""
        retry_alone = len(group) > 1 or (self._twice and not group[0].alone)
        retry_alone = retry_alone and isinstance(results[0], BaseException)
        retry_alone = retry_alone and not isinstance(results[0], ExecutorUnavailableError)
        with self._lock:
            self._current = []
            if retry_alone:
                self._waiting.extendleft(replace(given, alone=True) for given in reversed(group))
        if not retry_alone and not self._closed:
            for given, result in zip(group, results, strict=True):
                given.done(result)
        self._submit_waiting()

    def _submit(self, tasks: list[Work]) -> "tuple[WorkerProcess[Work, Answer], Future[list[Answer]]] | None":
        """Submit tasks to the worker, or to a new one if it is gone; return None if there is none."""
        if self._worker is None or self._worker.has_failed:
            self._renew()
        for _ in range(2):
            if self._worker is None:
                break
            try:
                return self._worker, self._worker.submit(tasks)
            except BrokenExecutor:  # its process was killed while idle
                self._renew()
        return None

    def _renew(self) -> None:
        """Start a process now, so that the next frame does not wait for its imports; none if that fails."""
        if self._worker is not None:
            self._worker.give_up()
        self._worker = None
        if self._closed or not self._starts.may_begin():
            return
        try:
            self._worker = WorkerProcess(self._prepared, self._run)
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
        return ExecutorUnavailableError(self._starts.problem or "A worker process ended before it was ready")

    def _results(
        self, process: "WorkerProcess[Work, Answer]", future: "Future[list[Answer]]", count: int, late: float | None
    ) -> Sequence[Answer | BaseException]:
        """Return the results of `count` tasks; the same error for each if the worker has not answered.

        `late`: the time (s) after which it was killed, since it took too long; None if it was not.
        """
        error = future.exception()
        if error is None:
            return future.result()
        broken, ready = isinstance(error, BrokenExecutor), process.is_ready
        if broken or not ready:
            self._renew()
        if not ready:
            error = self._unavailable()
        elif not broken:
            _log.error("Unexpected error in a worker process", exc_info=error)
        elif late is not None:
            error = TimeoutError(f"the conversion took longer than {late:g} s and its worker was killed")
        else:
            error = RuntimeError("the worker process died (killed, or out of memory?)")
        return [error] * count
