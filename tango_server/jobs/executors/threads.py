"""Conversions in threads of this process: for small frames, and for hosts where processes are not welcome.

Nothing can end a thread from outside. A conversion that takes too long is given up: its job is told, another thread
takes its place, and what the late one says in the end is ignored. It keeps its memory until then, and if it does get
as far as its output, that is a right one: as with every other attempt that was given up.
"""

import contextlib
import logging
import queue
import threading
from collections import deque
from concurrent.futures import Future, InvalidStateError, wait
from functools import partial

from tango_server.jobs.executors import worker
from tango_server.jobs.executors.base import Done, Result
from tango_server.jobs.executors.watchdog import Watchdog
from tango_server.jobs.executors.worker import Failure, Task
from tango_server.messages import FrameReport

_log = logging.getLogger(__name__)

_Outcome = Future[FrameReport | Failure]
_END_PATIENCE = 1.0


class ThreadExecutor:
    """Threads that convert one frame after the other, each with memory of its own."""

    def __init__(self, workers: int, time_limit: float) -> None:
        self._time_limit = time_limit
        self._watchdog = Watchdog(time_limit)
        self._free = deque(_Slot() for _ in range(workers))
        self._running: set[_Outcome] = set()
        self._closed = False

    @property
    def trouble(self) -> str:
        """Empty: there is always a thread."""
        return ""

    def start(self, task: Task, done: Done) -> None:
        """Run `task` in a free thread; raise `IndexError` if there is none."""
        slot = self._free.popleft()
        outcome: _Outcome = Future()
        self._running.add(outcome)
        call_off = self._watchdog.watch(partial(_give_up, outcome, self._time_limit))

        def ended(outcome: _Outcome) -> None:
            call_off()
            self._running.discard(outcome)
            if self._closed:
                slot.end()
                return
            late = isinstance(outcome.exception(), TimeoutError)
            if late:
                slot.end()
            self._free.append(_Slot() if late else slot)
            done(_result(outcome))

        outcome.add_done_callback(ended)
        slot.start(task, outcome)

    def close(self, patience: float) -> None:
        """Let running tasks finish for at most `patience` seconds; a thread that hangs on ends with the process."""
        wait(list(self._running), timeout=patience)
        self._closed = True
        self._watchdog.close()
        for outcome in list(self._running):
            _settle(outcome, TimeoutError("the server ended before the conversion did"))
        idle = list(self._free)
        for slot in idle:
            slot.end()
        for slot in idle:
            slot.thread.join(_END_PATIENCE)


class _Slot:
    """One thread and its work. A daemon: one that hangs must not keep the server from ending."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[tuple[Task, _Outcome] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="petif-convert", daemon=True)
        self.thread.start()

    def start(self, task: Task, outcome: _Outcome) -> None:
        self._tasks.put((task, outcome))

    def end(self) -> None:
        """End the thread once it has finished what it is at."""
        self._tasks.put(None)

    def _work(self) -> None:
        with contextlib.suppress(ImportError):  # the first conversion tells it
            worker.warm_up()
        while (item := self._tasks.get()) is not None:
            _run(*item)


def _run(task: Task, outcome: _Outcome) -> None:
    result: Result
    try:
        result = worker.run(task)
    except Exception as error:  # noqa: BLE001 - the boundary of the thread; it is told and logged
        result = error
    if not _settle(outcome, result):
        _log.warning(
            "job %s: a conversion that was given up has ended after all (%s)", task.token, type(result).__name__
        )


def _settle(outcome: _Outcome, result: Result) -> bool:
    """Tell the outcome; return False if another one was told before."""
    try:
        if isinstance(result, BaseException):
            outcome.set_exception(result)
        else:
            outcome.set_result(result)
    except InvalidStateError:
        return False
    return True


def _give_up(outcome: _Outcome, time_limit: float) -> None:
    _settle(outcome, TimeoutError(f"the conversion took longer than {time_limit:g} s and was given up"))


def _result(outcome: _Outcome) -> Result:
    error = outcome.exception()
    if error is None:
        return outcome.result()
    if not isinstance(error, TimeoutError):
        _log.error("a conversion failed in a way that it should not", exc_info=error)
    return error
