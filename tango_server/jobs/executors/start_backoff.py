"""Back-off for worker processes that cannot be started; that is not the fault of any frame."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from time import monotonic

from tango_server.backoff import Backoff

_log = logging.getLogger(__name__)

PAUSES = Backoff(shortest=1.0, longest=30.0)


class StartBackoff:
    """State of the last starts; shared by all workers of an executor, so that a failure is logged once."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pause = 0.0
        self._retry_at = 0.0
        self._problem = ""

    @property
    def problem(self) -> str:
        """Why no worker can be started; empty if no problem is known."""
        return self._problem

    def may_begin(self) -> bool:
        """Whether a worker may be started now."""
        return not self._problem or self._clock() >= self._retry_at

    def failed(self, error: BaseException) -> None:
        """A worker could not be started: start none for a pause that doubles each time."""
        found = (
            "it ended before it was ready" if isinstance(error, BrokenExecutor) else f"{type(error).__name__}: {error}"
        )
        with self._lock:
            before, now = self._problem, self._clock()
            self._problem = (
                f"Cannot start worker processes: {found}. Check the log, and the installation and the memory of this "
                "host; the next frame tries again."
            )
            if before and now < self._retry_at:  # started together with the one that failed before
                return
            self._pause = PAUSES.after(self._pause)
            self._retry_at = now + self._pause
        if not before:
            _log.error("%s Frames wait until then.", self._problem, exc_info=error)

    def succeeded(self) -> None:
        """A worker is ready."""
        with self._lock:
            before, self._problem, self._pause = self._problem, "", 0.0
        if before:
            _log.warning("Worker processes can be started again")
