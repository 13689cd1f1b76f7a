"""Conversions in spawned worker processes of this host."""

import logging
import multiprocessing
import os
import threading
from collections import deque
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, wait

from tango_server.jobs import worker
from tango_server.jobs.executors import Done, Result
from tango_server.jobs.watchdog import Watchdog
from tango_server.jobs.worker import Failure, Task
from tango_server.messages import FrameReport

_log = logging.getLogger(__name__)


class ProcessExecutor:
    """Spawned worker processes, each in an executor of its own: a crash or a hang costs the one task in it.

    A shared pool of the standard library fails every pending task when one worker dies.
    """

    def __init__(self, workers: int, time_limit: float) -> None:
        self._watchdog = Watchdog(time_limit)
        self._slots = [_Slot(time_limit, self._watchdog) for _ in range(workers)]
        self._free = deque(self._slots)
        self._closed = False

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

    def __init__(self, time_limit: float, watchdog: Watchdog) -> None:
        self._time_limit = time_limit
        self._watchdog = watchdog
        self.running: Future[FrameReport | Failure] | None = None
        self._renew()

    def start(self, task: Task, finished: Done) -> None:
        try:
            future = self._executor.submit(worker.run, task)
        except BrokenExecutor:  # its process was killed while it had nothing to do
            self._renew()
            future = self._executor.submit(worker.run, task)
        self.running = future
        hung = threading.Event()

        def end_hung() -> None:
            if self.running is future:  # a watchdog that was held up may be late, when another task is at work
                hung.set()
                self._kill()

        call_off = self._watchdog.watch(end_hung)

        def ended(future: "Future[FrameReport | Failure]") -> None:
            call_off()
            result = self._result(future, hung=hung.is_set())
            self.running = None
            finished(result)

        future.add_done_callback(ended)

    def close(self) -> None:
        self._closing = True
        self._kill()  # whatever still runs has had its time, and the idle ones have nothing to lose
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _renew(self) -> None:
        """Start a process at once, so that the next frame does not wait for its imports."""
        self._closing = False
        self._executor = ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn"), initializer=worker.prepare
        )
        self._executor.submit(os.getpid)

    def _kill(self) -> None:
        # The executor's own list: a process that hangs while it starts has told its pid to nobody.
        for process in list((self._executor._processes or {}).values()):  # noqa: SLF001
            process.kill()

    def _result(self, future: "Future[FrameReport | Failure]", *, hung: bool) -> Result:
        error = future.exception()
        if error is None:
            return future.result()
        if not isinstance(error, BrokenExecutor):
            _log.error("a worker failed in a way that it should not", exc_info=error)
            return error
        if not self._closing:
            self._executor.shutdown(wait=False)
            self._renew()
        if hung:
            return TimeoutError(f"the conversion took longer than {self._time_limit:g} s and its worker was ended")
        return RuntimeError("the worker process died (was it killed, or did the memory run out?)")
