"""What this session knows of its runs: which frames it has put into the spool for each."""

import threading
from collections import deque

_KEPT_RUNS = 100


class RunBook:
    """Shared between the callback, which counts, and the converter, which waits for as many reports."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[str, set[str]] = {}
        self._closed: deque[str] = deque()

    def announce(self, run_uid: str) -> None:
        """A run has begun."""
        with self._lock:
            self._keys.setdefault(run_uid, set())

    def add(self, run_uid: str, key: str) -> None:
        """A frame of a run is in the spool; the same key is the same frame, however often its documents come."""
        with self._lock:
            self._keys.setdefault(run_uid, set()).add(key)

    def close(self, run_uid: str) -> None:
        """A run has ended; the last closed runs are kept for whoever asks late."""
        with self._lock:
            if run_uid not in self._closed:
                self._closed.append(run_uid)
            while len(self._closed) > _KEPT_RUNS:
                self._keys.pop(self._closed.popleft(), None)

    def is_closed(self, run_uid: str) -> bool:
        """Return whether a run has ended, as far as is known here."""
        with self._lock:
            return run_uid in self._closed

    def newest_open(self) -> str | None:
        """Return the run that has begun last of those that have not ended."""
        with self._lock:
            return next((run_uid for run_uid in reversed(self._keys) if run_uid not in self._closed), None)

    def submitted(self, run_uid: str) -> int:
        """Return how many frames of a run went into the spool."""
        with self._lock:
            return len(self._keys.get(run_uid, ()))
