"""Waiting until every frame of a run has its report; the waiting never fails, it ends with or without success."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ophyd.status import DeviceStatus

from petif_bluesky.delivery.run_book import RunBook
from petif_bluesky.server_poller import Poller
from petif_bluesky.signals.run_reports import RunReports
from tango_server.client.client import LinkError, UnknownRunError
from tango_server.messages import RunStatistics

_log = logging.getLogger(__name__)

_GRACE = 1.0
"""Seconds for the reports after the time for the frames is over."""
_PAUSE = 0.3
"""Seconds between two attempts to get the reports."""


@dataclass(frozen=True, slots=True)
class RunReading:
    """The statistics of a run at one instant (Unix seconds), and whether every frame submitted had its report."""

    statistics: RunStatistics
    submitted: int
    drained: bool
    taken: float


class DrainStatus(DeviceStatus):
    """Done when every frame of a run has its report, the time is over, or the server is out of reach.

    With `through_outages` a server that is out of reach is waited for, too.

    It shows progress to whoever watches it, as bluesky's progress bars do. What is new of the reports goes into
    `reports`, by a thread of its own. No lock is held while other people's code is called.
    """

    def __init__(
        self,
        device: Any,
        run_uid: str,
        *,
        poller: Poller,
        runs: RunBook,
        reports: RunReports,
        timeout: float,
        taken: Callable[[RunReading], None],
        through_outages: bool = False,
    ) -> None:
        super().__init__(device)
        self._run_uid = run_uid
        self._client = poller.client
        self._runs = runs
        self._reports = reports
        self._taken = taken
        self._through_outages = through_outages
        self._progress_watchers: list[Callable[..., None]] = []
        self._began = time.monotonic()
        self._deciding = threading.Lock()
        self._asking = False
        self._drained = False
        self._ended = threading.Event()
        self._last = RunStatistics(run_uid=run_uid)
        self._unfollow: Callable[[], None] = lambda: None
        self._timers = [_timer(timeout, self._ask), _timer(timeout + _GRACE, self.give_up)]
        for timer in self._timers:
            timer.start()
        unfollow = poller.follow(run_uid, self._look)
        with self._deciding:
            over, self._unfollow = self._ended.is_set(), unfollow
        if over:  # already: by a timer, or by the first look
            unfollow()
        elif poller.state.down:
            self._look(None)

    def watch(self, func: Callable[..., None]) -> None:
        """Have `func` called with the progress, in bluesky's terms."""
        with self._deciding:
            self._progress_watchers.append(func)

    def give_up(self) -> None:
        """End the waiting with what is known."""
        self._end()

    def _look(self, statistics: RunStatistics | None) -> None:
        if statistics is None:
            if not self._through_outages:
                self.give_up()
            return
        self._last = statistics
        target = max(self._runs.submitted(self._run_uid), statistics.submitted)
        done = reported(statistics)
        self._show(done, target)
        if done >= target:
            self._drained = True
            self._ask()

    def _ask(self) -> None:
        """Ask for the reports, if there are any and nobody asks yet, and end."""
        with self._deciding:
            if self._asking or self._ended.is_set():
                return
            self._asking = True
        if not reported(self._last):
            self._end()
            return
        threading.Thread(target=self._fetch, name="petif-drain", daemon=True).start()

    def _fetch(self) -> None:
        while not self._ended.is_set():
            try:
                self._reports.gather(self._client.reports_of_run, reported(self._last))
            except UnknownRunError as error:
                _log.debug("%s", error)
            except LinkError as error:
                _log.warning("the reports of run %s are not to be had: %s", self._run_uid, error)
                self._ended.wait(_PAUSE)
                continue
            except Exception:  # noqa: BLE001 - the end of the thread would leave the plan waiting
                _log.exception("the reports of run %s can't be read", self._run_uid)
            self._end()

    def _end(self) -> None:
        with self._deciding:
            if self._ended.is_set():
                return
            self._ended.set()
            unfollow = self._unfollow
        for timer in self._timers:
            timer.cancel()
        unfollow()
        submitted = max(self._runs.submitted(self._run_uid), self._last.submitted)
        try:
            self._taken(RunReading(self._last, submitted, self._drained, time.time()))
        finally:
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
        with self._deciding:
            watchers = tuple(self._progress_watchers)
        for watcher in watchers:
            try:
                watcher(**progress)
            except Exception:  # noqa: BLE001 - the boundary to other people's progress bars: they must not stop the waiting
                _log.exception("the watcher %r failed", watcher)


def _timer(seconds: float, function: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    return timer


def reported(statistics: RunStatistics) -> int:
    """Return how many frames of a run have their report."""
    return statistics.converted + statistics.skipped + statistics.placeholders + statistics.failed
