"""Count the frames that this session has submitted for each of its runs."""

import threading
from collections import deque
from dataclasses import dataclass, field
from weakref import WeakSet

from petif_bluesky.spool import Spool
from petif_bluesky.text_set import TextSet

_KEPT_RUNS = 100


@dataclass(slots=True)
class _Frames:
    """The frames of one run. After its end only their number is kept, because sessions last for weeks."""

    keys: TextSet = field(default_factory=TextSet)
    aside: set[str] = field(default_factory=set)
    before: int = 0

    @property
    def submitted(self) -> int:
        return max(0, self.before, len(self.keys)) - len(self.aside)


class RunBook:
    """Shared by the callback, which counts frames, and the converter, which waits for as many reports."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, _Frames] = {}
        self._open: dict[str, None] = {}
        self._closed: deque[str] = deque()
        self.spools: WeakSet[Spool] = WeakSet()
        """The open spools of this session's callbacks."""

    @property
    def waiting(self) -> int:
        """Number of frames that wait in this session for the server; counting reads the spools."""
        return sum(spool.frames for spool in tuple(self.spools))

    def announce(self, run_uid: str) -> None:
        """A run has started."""
        with self._lock:
            self._opened(run_uid)

    def add(self, run_uid: str, key: str) -> None:
        """A frame of a run is in the spool; repeated documents with the same key are the same frame."""
        with self._lock:
            self._opened(run_uid).keys.add(key)

    def set_aside(self, run_uid: str, key: str) -> None:
        """The server rejected a frame; there will be no report to wait for."""
        with self._lock:
            if run_uid in self._runs:
                self._runs[run_uid].aside.add(key)

    def close(self, run_uid: str) -> None:
        """A run has ended; the most recent ones are kept for late queries."""
        with self._lock:
            self._close(run_uid)

    def is_closed(self, run_uid: str) -> bool:
        """Return whether a run is known to have ended."""
        with self._lock:
            return run_uid in self._closed

    def newest_open(self) -> str | None:
        """Return the open run that started last."""
        with self._lock:
            return next(reversed(self._open), None)

    def submitted(self, run_uid: str) -> int:
        """Return how many frames of a run were spooled, without rejected ones."""
        with self._lock:
            frames = self._runs.get(run_uid)
            return frames.submitted if frames else 0

    def set_aside_of(self, run_uid: str) -> int:
        """Return how many frames of a run the server rejected."""
        with self._lock:
            frames = self._runs.get(run_uid)
            return len(frames.aside) if frames else 0

    def _opened(self, run_uid: str) -> _Frames:
        self._open[run_uid] = None
        frames = self._runs.setdefault(run_uid, _Frames())
        if len(self._open) > _KEPT_RUNS:  # a session that crashed during a run never closes it
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
