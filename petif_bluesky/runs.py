"""What this session knows of its runs: how many frames it has put into the spool for each."""

import threading
from collections import OrderedDict

_KEPT_RUNS = 100


class RunBook:
    """Shared between the callback, which counts, and the converter, which waits for as many reports."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._submitted: OrderedDict[str, int] = OrderedDict()

    def announce(self, run_uid: str) -> None:
        """A run has begun."""
        with self._lock:
            self._submitted.setdefault(run_uid, 0)
            while len(self._submitted) > _KEPT_RUNS:
                self._submitted.popitem(last=False)

    def count(self, run_uid: str, frames: int) -> None:
        """So many more frames of a run are in the spool."""
        with self._lock:
            self._submitted[run_uid] = self._submitted.get(run_uid, 0) + frames

    def submitted(self, run_uid: str) -> int:
        """Return how many frames of a run went into the spool."""
        with self._lock:
            return self._submitted.get(run_uid, 0)
