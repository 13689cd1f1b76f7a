"""One thread that detects overdue tasks: a timer thread per task would take longer than a small frame."""

import logging
import math
import threading
from collections.abc import Callable
from time import monotonic

_log = logging.getLogger(__name__)

_Overdue = Callable[[], None]


class Watchdog:
    """Calls a callback `time_limit` seconds (monotonic), or a multiple of it, after `watch`, unless it was cancelled.

    It may be late on a busy machine, never early.
    """

    def __init__(self, time_limit: float) -> None:
        self._time_limit = time_limit
        self._watched: dict[object, tuple[float, _Overdue]] = {}
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="petif-watchdog", daemon=True)
        self._thread.start()

    def watch(self, overdue: _Overdue, times: int = 1) -> Callable[[], None]:
        """Call `overdue` from the watchdog's thread after `times` the time limit.

        Return a function that cancels this.
        """
        ticket = object()
        with self._lock:
            self._watched[ticket] = (monotonic() + times * self._time_limit, overdue)
        return lambda: self._cancel(ticket)

    def close(self) -> None:
        """Stop; no more calls."""
        self._ending.set()
        self._thread.join()

    def _cancel(self, ticket: object) -> None:
        with self._lock:
            self._watched.pop(ticket, None)

    def _run(self) -> None:
        # A task added during the wait is due after the time limit or later, so never before the wait is over.
        while not self._ending.wait(self._until_next()):
            for overdue in self._take_due():
                self._call(overdue)

    def _call(self, overdue: _Overdue) -> None:
        try:
            overdue()
        except Exception:  # noqa: BLE001 - thread boundary: the other tasks must still be watched
            _log.exception("Cannot stop a task that takes too long")

    def _until_next(self) -> float:
        with self._lock:
            first = min((deadline for deadline, _ in self._watched.values()), default=math.inf)
        return min(max(first - monotonic(), 0.0), self._time_limit)

    def _take_due(self) -> list[_Overdue]:
        with self._lock:
            now = monotonic()
            due = [ticket for ticket, (deadline, _) in self._watched.items() if deadline <= now]
            return [self._watched.pop(ticket)[1] for ticket in due]
