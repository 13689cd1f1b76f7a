"""One thread that notices tasks which take too long: a timer of its own for each would cost more than a small frame."""

import logging
import threading
from collections.abc import Callable
from time import monotonic

_log = logging.getLogger(__name__)

_Overdue = Callable[[], None]


class Watchdog:
    """Calls what it was given once `time_limit` seconds (monotonic) have passed, unless that was called off before.

    It may be late by as much as it was held up, never early.
    """

    def __init__(self, time_limit: float) -> None:
        self._time_limit = time_limit
        self._watched: dict[object, tuple[float, _Overdue]] = {}
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="petif-watchdog", daemon=True)
        self._thread.start()

    def watch(self, overdue: _Overdue) -> Callable[[], None]:
        """Call `overdue` from the watchdog's thread when the time is over; return what calls it off."""
        ticket = object()
        with self._lock:
            self._watched[ticket] = (monotonic() + self._time_limit, overdue)
        return lambda: self._call_off(ticket)

    def close(self) -> None:
        """Call nothing any more."""
        self._ending.set()
        self._thread.join()

    def _call_off(self, ticket: object) -> None:
        with self._lock:
            self._watched.pop(ticket, None)

    def _run(self) -> None:
        # What comes while it waits is due later than all that it knows, and never before the wait is over.
        while not self._ending.wait(self._until_next()):
            for overdue in self._take_due():
                self._tell(overdue)

    def _tell(self, overdue: _Overdue) -> None:
        try:
            overdue()
        except Exception:  # noqa: BLE001 - the boundary of the thread: the other tasks are watched on
            _log.exception("a task that takes too long could not be ended")

    def _until_next(self) -> float:
        with self._lock:
            first = next(iter(self._watched.values()), None)
        return self._time_limit if first is None else max(first[0] - monotonic(), 0.0)

    def _take_due(self) -> list[_Overdue]:
        with self._lock:
            now = monotonic()
            due = [ticket for ticket, (deadline, _) in self._watched.items() if deadline <= now]
            return [self._watched.pop(ticket)[1] for ticket in due]
