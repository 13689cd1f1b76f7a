"""What this session knows of its runs: which frames it has put into the spool for each."""

import threading
from collections import deque
from dataclasses import dataclass, field

from petif_bluesky.text_set import TextSet

_KEPT_RUNS = 100


@dataclass(slots=True)
class _Frames:
    """The frames of one run. Once it has ended their number is enough: sessions go on for weeks."""

    keys: TextSet = field(default_factory=TextSet)
    aside: set[str] = field(default_factory=set)
    before: int = 0

    @property
    def submitted(self) -> int:
        return max(0, self.before, len(self.keys)) - len(self.aside)


class RunBook:
    """Shared between the callback, which counts, and the converter, which waits for as many reports."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, _Frames] = {}
        self._open: dict[str, None] = {}
        self._closed: deque[str] = deque()

    def announce(self, run_uid: str) -> None:
        """A run has begun."""
        with self._lock:
            self._opened(run_uid)

    def add(self, run_uid: str, key: str) -> None:
        """A frame of a run is in the spool; the same key is the same frame, however often its documents come."""
        with self._lock:
            self._opened(run_uid).keys.add(key)

    def set_aside(self, run_uid: str, key: str) -> None:
        """The server will never take a frame; nobody is to wait for its report."""
        with self._lock:
            if run_uid in self._runs:
                self._runs[run_uid].aside.add(key)

    def close(self, run_uid: str) -> None:
        """A run has ended; the last closed runs are kept for whoever asks late."""
        with self._lock:
            self._close(run_uid)

    def is_closed(self, run_uid: str) -> bool:
        """Return whether a run has ended, as far as is known here."""
        with self._lock:
            return run_uid in self._closed

    def newest_open(self) -> str | None:
        """Return the run that has begun last of those that have not ended."""
        with self._lock:
            return next(reversed(self._open), None)

    def submitted(self, run_uid: str) -> int:
        """Return how many frames of a run went into the spool, without those that were set aside."""
        with self._lock:
            frames = self._runs.get(run_uid)
            return frames.submitted if frames else 0

    def set_aside_of(self, run_uid: str) -> int:
        """Return how many frames of a run the server will never take."""
        with self._lock:
            frames = self._runs.get(run_uid)
            return len(frames.aside) if frames else 0

    def _opened(self, run_uid: str) -> _Frames:
        self._open[run_uid] = None
        frames = self._runs.setdefault(run_uid, _Frames())
        if len(self._open) > _KEPT_RUNS:  # a session that died within a run never says that the run has ended
            self._close(next(iter(self._open)))
        return frames

    def _close(self, run_uid: str) -> None:
        self._open.pop(run_uid, None)
        if frames := self._runs.get(run_uid):
            frames.before = max(frames.before, len(frames.keys))
            frames.keys = TextSet()
        if run_uid not in self._closed:
            self._closed.append(run_uid)
        while len(self._closed) > _KEPT_RUNS:
            oldest = self._closed.popleft()
            if oldest not in self._open:
                self._runs.pop(oldest, None)
