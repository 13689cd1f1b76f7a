"""Waiting until every frame of a run has its report; the waiting never fails, it ends with or without success."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ophyd.status import DeviceStatus

from petif_bluesky.link import Link
from petif_bluesky.runs import RunBook
from tango_server.messages import RunStatistics

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunReading:
    """The statistics of a run at one instant (Unix seconds), and whether every frame submitted had its report."""

    statistics: RunStatistics
    submitted: int
    drained: bool
    taken: float


class DrainStatus(DeviceStatus):
    """Done when every frame of a run has its report, the time is over, or the server is out of reach.

    It shows progress to whoever watches it, as bluesky's progress bars do.
    """

    def __init__(
        self,
        device: Any,
        run_uid: str,
        *,
        link: Link,
        runs: RunBook,
        timeout: float,
        taken: Callable[[RunReading], None],
    ) -> None:
        self._run_uid = run_uid
        self._runs = runs
        self._taken = taken
        self._watchers: list[Callable[..., None]] = []
        self._began = time.monotonic()
        self._ending = threading.Lock()
        self._last = RunStatistics(run_uid=run_uid)
        super().__init__(device)
        self._unfollow: Callable[[], None] = lambda: None
        self._timer = threading.Timer(timeout, self._end, kwargs={"drained": False})
        self._timer.daemon = True
        self._timer.start()
        unfollow = link.follow(run_uid, self._look)
        with self._ending:
            over, self._unfollow = self.done, unfollow
        if over:  # already: by the timer, or by the first look
            unfollow()
        elif link.server.down:
            self._end(drained=False)

    def watch(self, watcher: Callable[..., None]) -> None:
        """Have `watcher` called with the progress, in bluesky's terms."""
        self._watchers.append(watcher)

    def _look(self, statistics: RunStatistics | None) -> None:
        if statistics is None:
            self._end(drained=False)
            return
        self._last = statistics
        target = max(self._runs.submitted(self._run_uid), statistics.submitted)
        done = _reported(statistics)
        self._show(done, target)
        if done >= target:
            self._end(drained=True)

    def _end(self, *, drained: bool) -> None:
        with self._ending:
            if self.done:
                return
            self._timer.cancel()
            self._unfollow()
            submitted = max(self._runs.submitted(self._run_uid), self._last.submitted)
            self._taken(RunReading(self._last, submitted, drained, time.time()))
            self.set_finished()

    def _show(self, done: int, target: int) -> None:
        elapsed = time.monotonic() - self._began
        progress = {
            "name": self.device.name,
            "current": done,
            "initial": 0,
            "target": target,
            "unit": "frames",
            "precision": 0,
            "fraction": 1 - done / target if target else 0,
            "time_elapsed": elapsed,
            "time_remaining": elapsed / done * (target - done) if done else None,
        }
        for watcher in self._watchers:
            try:
                watcher(**progress)
            except Exception:  # noqa: BLE001 - the boundary to other people's progress bars: they must not stop the waiting
                _log.exception("the watcher %r failed", watcher)


def _reported(statistics: RunStatistics) -> int:
    return statistics.converted + statistics.skipped + statistics.placeholders + statistics.failed
