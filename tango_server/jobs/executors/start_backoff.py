"""Whether worker processes can be started: one that can't is no frame's fault, and is not tried again at once."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from time import monotonic

from tango_server.backoff import Backoff

_log = logging.getLogger(__name__)

PAUSES = Backoff(shortest=1.0, longest=30.0)


class StartBackoff:
    """What is known of the last starts; all workers of an executor share it, so that it is logged once."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pause = 0.0
        self._again = 0.0
        self._trouble = ""

    @property
    def trouble(self) -> str:
        """Why no worker can be started; empty: nothing is known against it."""
        return self._trouble

    def may_begin(self) -> bool:
        """Whether it is time to start a worker."""
        return not self._trouble or self._clock() >= self._again

    def failed(self, error: BaseException) -> None:
        """A worker could not be started: start none for a while, which doubles from time to time."""
        found = (
            "it ended before it was ready" if isinstance(error, BrokenExecutor) else f"{type(error).__name__}: {error}"
        )
        with self._lock:
            before, now = self._trouble, self._clock()
            self._trouble = (
                f"no worker process can be started ({found}). Look into the log, and at the installation and the "
                "memory of this host; it is tried again with the next frame."
            )
            if before and now < self._again:  # it was begun together with the one that failed before
                return
            self._pause = PAUSES.after(self._pause)
            self._again = now + self._pause
        if not before:
            _log.error("%s Frames wait until then.", self._trouble, exc_info=error)

    def succeeded(self) -> None:
        """A worker is ready."""
        with self._lock:
            before, self._trouble, self._pause = self._trouble, "", 0.0
        if before:
            _log.warning("worker processes can be started again")
