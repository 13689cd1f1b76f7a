"""Count, for each run of a session, the documents that were read and the frames that were submitted."""

import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from weakref import WeakSet

from petif_bluesky.documents.text_set import TextSet
from tango_server.messages import FrameReport

_KEPT_RUNS = 100

StreamCounts = dict[str, tuple[int, int]]
"""By stream: how many of its events and stream datum indices were read, and how many frames were submitted for them."""


class FrameSource(Protocol):
    """What the converter needs of a callback."""

    @property
    def waiting(self) -> int:
        """Number of frames that the server has not accepted yet."""

    @property
    def spool_path(self) -> Path:
        """The file that holds them."""

    def release(self, run_uid: str) -> None:
        """Submit the frames of a run that wait for readings; never raises."""

    def fill_map(self, run_uid: str, reports: Sequence[FrameReport]) -> int:
        """Request placeholders for points of a run's map whose frames failed; return how many; never raises."""


@dataclass(slots=True)
class _Frames:
    """The frames of one run. After its end only their numbers are kept, because sessions last for weeks."""

    keys: TextSet = field(default_factory=TextSet)
    by_stream: Counter[str] = field(default_factory=Counter)
    before: Counter[str] = field(default_factory=Counter)
    """The numbers of `by_stream` when the run was closed."""
    aside: dict[str, str] = field(default_factory=dict)
    """Rejected frames: stream by key."""
    read: Mapping[str, int] = field(default_factory=dict)
    waiting: int = 0
    held_back: int = 0
    """Frames that wait for their dark."""
    in_open_groups: int = 0
    """Frames in groups to which further ones may come."""
    is_ending: bool = False

    def submitted(self) -> Counter[str]:
        return (self.by_stream | self.before) - Counter(self.aside.values())

    def counts(self) -> StreamCounts:
        submitted = self.submitted()
        read = {stream: max(count - self.waiting - self.held_back, 0) for stream, count in self.read.items()}
        return {stream: (read.get(stream, 0), submitted[stream]) for stream in {**read, **submitted}}

    def end(self) -> None:
        self.before |= self.by_stream
        self.keys, self.by_stream = TextSet(), Counter()


class RunBook:
    """Shared by the callback, which counts frames, and the converter, which waits for as many reports.

    With `announcing`, the counts are also for the server, because those who wait are in another process.
    """

    def __init__(self, *, announcing: bool = False) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, _Frames] = {}
        self._open: dict[str, None] = {}
        self._closed: deque[str] = deque()
        self._announcing = announcing
        self._news: dict[str, None] = {}
        self.callbacks: WeakSet[FrameSource] = WeakSet()
        """The open callbacks of this session."""

    @property
    def spooled(self) -> int:
        """Number of frames that wait in this session for the server; counting reads the spools."""
        return sum(callback.waiting for callback in tuple(self.callbacks))

    @property
    def spool_path(self) -> Path | None:
        """The spool file of the callback, None if there is no callback."""
        return next((callback.spool_path for callback in tuple(self.callbacks)), None)

    def announce(self, run_uid: str) -> None:
        """A run has started."""
        with self._lock:
            self._opened(run_uid)

    def release(self, run_uid: str) -> None:
        """A run is about to stop: its frames that wait for readings are submitted, in the caller's thread."""
        with self._lock:
            if frames := self._runs.get(run_uid):
                frames.is_ending = True
        for callback in tuple(self.callbacks):
            callback.release(run_uid)

    def fill_map(self, run_uid: str, reports: Sequence[FrameReport]) -> int:
        """Request placeholders for points of a run's map whose frames failed, in this thread; return how many."""
        return sum(callback.fill_map(run_uid, reports) for callback in tuple(self.callbacks))

    def read(self, run_uid: str, read: Mapping[str, int], waiting: int) -> None:
        """A document of a run was read.

        `read` has the number of events and stream datum indices read so far, by stream. While `waiting` documents wait
        for others, or could not be processed, that many count as not read.
        """
        with self._lock:
            frames = self._runs.get(run_uid)
            if frames is not None:
                frames.read, frames.waiting = read, waiting
                self._note(run_uid)

    def hold_back(self, run_uid: str, change: int) -> None:
        """`change` more frames of a run wait for their dark, or fewer if it is negative."""
        with self._lock:
            frames = self._runs.get(run_uid)
            if frames is not None:
                frames.held_back += change
                self._note(run_uid)

    def note_open_groups(self, run_uid: str, members: int) -> None:
        """`members` frames of a run are in groups that are not closed."""
        with self._lock:
            self._opened(run_uid).in_open_groups = members

    def add(self, run_uid: str, key: str, stream: str | None = None) -> None:
        """A frame of a run is in the spool; repeated documents with the same key are the same frame."""
        with self._lock:
            frames = self._opened(run_uid)
            if frames.keys.add(key):
                frames.by_stream[stream or ""] += 1
                self._note(run_uid)

    def set_aside(self, run_uid: str, key: str, stream: str | None = None) -> None:
        """The server rejected a frame; there will be no report to wait for."""
        with self._lock:
            if run_uid in self._runs:
                self._runs[run_uid].aside[key] = stream or ""
                self._note(run_uid)

    def close(self, run_uid: str) -> None:
        """A run has ended; the most recent ones are kept for late queries."""
        with self._lock:
            self._close(run_uid)

    def is_closed(self, run_uid: str) -> bool:
        """Return whether a run is known to have ended."""
        with self._lock:
            return run_uid in self._closed

    def knows(self, run_uid: str) -> bool:
        """Return whether the frames of a run are submitted by this session."""
        with self._lock:
            return run_uid in self._runs

    def runs(self) -> list[str]:
        """Return the runs that are known: the open ones, and the most recent that have ended."""
        with self._lock:
            return list(self._runs)

    def newest_open(self) -> str | None:
        """Return the open run that started last."""
        with self._lock:
            return next(reversed(self._open), None)

    def submitted(self, run_uid: str) -> int:
        """Return how many frames of a run were spooled, without rejected ones."""
        with self._lock:
            frames = self._runs.get(run_uid)
            return frames.submitted().total() if frames else 0

    def set_aside_of(self, run_uid: str) -> int:
        """Return how many frames of a run the server rejected."""
        with self._lock:
            frames = self._runs.get(run_uid)
            return len(frames.aside) if frames else 0

    def held_back(self, run_uid: str) -> int:
        """Return how many frames of a run wait for their dark; they will be submitted."""
        with self._lock:
            frames = self._runs.get(run_uid)
            return frames.held_back if frames else 0

    def in_open_groups(self, run_uid: str) -> int:
        """Return how many frames of a run are not combined yet, because their groups are open; 0 once it is ending."""
        with self._lock:
            frames = self._runs.get(run_uid)
            return frames.in_open_groups if frames and not frames.is_ending else 0

    def with_open_groups(self) -> list[str]:
        """Return the open runs that have groups that are not closed: the server must know that they are open."""
        with self._lock:
            return [run_uid for run_uid in self._open if self._runs[run_uid].in_open_groups]

    def held(self, run_uid: str) -> int:
        """Return how many documents of a run wait for others or for a dark, or could not be processed."""
        with self._lock:
            frames = self._runs.get(run_uid)
            return frames.waiting + frames.held_back if frames else 0

    def counts(self, run_uid: str) -> StreamCounts:
        """Return what was read and submitted of a run, by stream; empty for an unknown one."""
        with self._lock:
            frames = self._runs.get(run_uid)
            return frames.counts() if frames else {}

    @property
    def has_news(self) -> bool:
        """Whether counts have changed that the server should know."""
        return bool(self._news)

    def news(self) -> dict[str, StreamCounts]:
        """Return the counts, by run, that have changed since they were last returned, for the server."""
        with self._lock:
            news, self._news = self._news, {}
            return {run_uid: self._runs[run_uid].counts() for run_uid in news if run_uid in self._runs}

    def keep_news(self, news: Mapping[str, StreamCounts]) -> None:
        """Return these runs again: the server could not be reached."""
        with self._lock:
            self._news = {**dict.fromkeys(news), **self._news}

    def _note(self, run_uid: str) -> None:
        if self._announcing:
            self._news[run_uid] = None

    def _opened(self, run_uid: str) -> _Frames:
        self._open[run_uid] = None
        frames = self._runs.setdefault(run_uid, _Frames())
        if len(self._open) > _KEPT_RUNS:  # a session that crashed during a run never closes it
            self._close(next(iter(self._open)))
        return frames

    def _close(self, run_uid: str) -> None:
        self._open.pop(run_uid, None)
        if frames := self._runs.get(run_uid):
            frames.end()
        if run_uid not in self._closed:
            self._closed.append(run_uid)
        while len(self._closed) > _KEPT_RUNS:
            oldest = self._closed.popleft()
            if oldest not in self._open:
                self._runs.pop(oldest, None)
                self._news.pop(oldest, None)
