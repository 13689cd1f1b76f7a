"""A status that waits until every frame of a run has a report; it always finishes, successful or not.

It is `drained` only if nothing can be missing:

    emitted by the RunEngine  <=  read by the callback      (by stream; here, or announced through the server)
    submitted by the callback <=  reported by the server      (after a point, without those in open groups)

and no combined frame is still to be written.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from petif_bluesky.delivery.run_book import RunBook, StreamCounts
from petif_bluesky.server_poller import Poller
from petif_bluesky.signals.completion import Completion
from petif_bluesky.signals.run_reports import RunReports
from tango_server.client.client import LinkError, UnknownRunError
from tango_server.messages import RunStatistics

_log = logging.getLogger(__name__)

_GRACE = 1.0
"""Extra time (s) to fetch reports after the timeout."""
_PAUSE = 0.3
"""Pause (s) between attempts to fetch the reports."""


@dataclass(frozen=True, slots=True)
class RunSoFar:
    """What a plan knows of its run.

    `emitted`: number of events and stream datum indices by stream, None if unknown. `statistics`: the last known.
    `recipe`: that of the start document, as JSON. `problem`: why it cannot be used.
    """

    emitted: Mapping[str, int] | None = None
    statistics: RunStatistics | None = None
    recipe: str = ""
    problem: str = ""


NOTHING_KNOWN = RunSoFar()
OF_GROUPS = ("grouped", "groups", "groups_failed", "superseded")
"""Fields of the readings of runs with combined frames."""


@dataclass(frozen=True, slots=True)
class RunReading:
    """Statistics of a run at time `taken` (Unix s), and whether they are final; `problem` says why they are not."""

    statistics: RunStatistics
    submitted: int
    drained: bool
    taken: float
    problem: str = ""
    recipe: str = ""

    def values(self, *, of_groups: bool = False) -> dict[str, Any]:
        """Return what a converter reads after the run, by the names of its fields; also those `OF_GROUPS` if wanted."""
        numbers = self.statistics
        return {
            "submitted": self.submitted,
            "converted": numbers.converted,
            "skipped": numbers.skipped,
            "failed": numbers.failed,
            "placeholders": numbers.placeholders,
            "conversion_time_total": numbers.conversion_time_total,
            "conversion_time_mean": numbers.conversion_time_mean,
            "latency_median": numbers.latency_median,
            "latency_p95": numbers.latency_p95,
            "drained": self.drained,
            "problem": self.problem,
            "used_recipe": self.recipe,
            **({name: getattr(numbers, name) for name in OF_GROUPS} if of_groups else {}),
        }


class DrainStatus(Completion):
    """Done when every frame of a run has a report, after the timeout, or when the server cannot be reached.

    With `through_outages`, it keeps waiting while the server cannot be reached.

    Watchers, such as bluesky's progress bars, are called with the progress. A separate thread adds new reports to
    `reports`. No lock is held while callbacks are called.

    Parameters
    ----------
    name: of the device, for progress bars
    run_uid: of the frames on the server
    poller: of the server
    runs: the frames of this session
    reports: new reports are added to these
    timeout: seconds to wait
    taken: called with the reading before the status is done
    through_outages: whether to wait while the server cannot be reached
    so_far: what is known of the run

    """

    def __init__(
        self,
        name: str,
        run_uid: str,
        *,
        poller: Poller,
        runs: RunBook,
        reports: RunReports,
        timeout: float,
        taken: Callable[[RunReading], None],
        through_outages: bool = False,
        so_far: RunSoFar,
    ) -> None:
        super().__init__()
        self._name = name
        self._run_uid = run_uid
        self._client = poller.client
        self._runs = runs
        self._reports = reports
        self._taken = taken
        self._through_outages = through_outages
        self._so_far = so_far
        self._progress_watchers: list[Callable[..., None]] = []
        self._began = time.monotonic()
        self._state_lock = threading.Lock()
        self._fetching = False
        self._drained = False
        self._ended = threading.Event()
        self._last = so_far.statistics or RunStatistics(run_uid=run_uid)
        self._problem = "the server has not answered yet"
        self._unfollow: Callable[[], None] = lambda: None
        self._timers = [_timer(timeout, self._fetch_once), _timer(timeout + _GRACE, self.give_up)]
        for timer in self._timers:
            timer.start()
        unfollow = poller.follow(run_uid, self._on_statistics)
        with self._state_lock:
            over, self._unfollow = self._ended.is_set(), unfollow
        if over:  # already finished by a timer or the first call of the listener
            unfollow()
        elif poller.state.down:
            self._on_statistics(None)

    def watch(self, func: Callable[..., None]) -> None:
        """Call `func` with the progress, with bluesky's arguments."""
        with self._state_lock:
            self._progress_watchers.append(func)

    def give_up(self) -> None:
        """Stop waiting, and finish with the last known statistics."""
        self._end()

    def _on_statistics(self, statistics: RunStatistics | None) -> None:
        if statistics is None:
            self._problem = "the server cannot be reached"
            if not self._through_outages:
                self.give_up()
            return
        self._last = statistics
        in_open_groups = self._runs.in_open_groups(self._run_uid)
        target, done = self._submitted() - in_open_groups, reported(statistics)
        self._show(done, target)
        unread, unwritten = self._unread(), statistics.pending and not in_open_groups
        self._problem = unread or f"{max(target - done, statistics.pending)} frames have no report yet"
        if done < target or unwritten or (unread and self._may_be_read_later()):
            return
        self._drained = not unread
        self._fetch_once()

    def _may_be_read_later(self) -> bool:
        """Return whether there will be more: from another process, or frames that wait for their dark."""
        if self._runs.held_back(self._run_uid):
            return True
        return self._so_far.emitted is not None and not self._runs.knows(self._run_uid)

    def _counts(self) -> StreamCounts:
        """Return what the callback has read and submitted, by stream."""
        if self._runs.knows(self._run_uid):
            return self._runs.counts(self._run_uid)
        return self._last.run_counts

    def _submitted(self) -> int:
        announced = sum(submitted for _, submitted in self._counts().values())
        return max(announced, self._runs.submitted(self._run_uid), self._last.submitted)

    def _unread(self) -> str:
        """Return what the callback has not read, "" if it has read every document of the run."""
        counts = self._counts()
        if waiting := self._runs.held(self._run_uid):
            return f"{waiting} documents wait for others, or could not be processed (see the log)"
        if self._so_far.emitted is None:
            known = self._runs.knows(self._run_uid)
            return "" if known else "it is not known whether a callback has read the documents of the run"
        for stream, emitted in self._so_far.emitted.items():
            read, _ = counts.get(stream, (0, 0))
            if read < emitted:
                if not counts:
                    return (
                        "no callback has read the run: subscribe ConversionCallback(converter) or run petif subscribe"
                    )
                return f"the callback has read {read} of {emitted} documents of stream {stream!r}"
        return ""

    def _fetch_once(self) -> None:
        """Fetch the reports in a thread, if there are any and it has not been started yet, then finish."""
        with self._state_lock:
            if self._fetching or self._ended.is_set():
                return
            self._fetching = True
        if not reported(self._last):
            self._end()
            return
        threading.Thread(target=self._fetch, name="petif-drain", daemon=True).start()

    def _fetch(self) -> None:
        while not self._ended.is_set():
            try:
                groups = self._last.groups + self._last.groups_failed
                self._reports.gather(self._client.reports_of_run, reported(self._last) + groups)
            except UnknownRunError as error:
                _log.debug("%s", error)
            except LinkError as error:
                _log.warning("run %s: cannot fetch its reports: %s", self._run_uid, error)
                self._ended.wait(_PAUSE)
                continue
            except Exception:  # noqa: BLE001 - if the thread ended, the plan would keep waiting
                _log.exception("run %s: cannot read its reports", self._run_uid)
            self._end()

    def _end(self) -> None:
        with self._state_lock:
            if self._ended.is_set():
                return
            self._ended.set()
            unfollow = self._unfollow
        for timer in self._timers:
            timer.cancel()
        unfollow()
        problem = self._so_far.problem or ("" if self._drained else self._problem)
        reading = RunReading(self._last, self._submitted(), self._drained, time.time(), problem, self._so_far.recipe)
        try:
            self._taken(reading)
        finally:
            self.finish()

    def _show(self, done: int, target: int) -> None:
        elapsed = time.monotonic() - self._began
        progress = {
            "name": self._name,
            "current": done,
            "initial": 0,
            "target": target,
            "unit": "frames",
            "precision": 0,
            "fraction": 1 - done / target if target else 0,
            "time_elapsed": elapsed,
            "time_remaining": elapsed / done * (target - done) if done else None,
        }
        with self._state_lock:
            watchers = tuple(self._progress_watchers)
        for watcher in watchers:
            try:
                watcher(**progress)
            except Exception:  # noqa: BLE001 - boundary to user code: it must not stop the wait
                _log.exception("Watcher %r raised an error", watcher)


def _timer(seconds: float, function: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    return timer


def reported(statistics: RunStatistics) -> int:
    """Return how many frames of a run have a report."""
    alone = statistics.converted + statistics.skipped + statistics.placeholders + statistics.failed
    return alone + statistics.grouped + statistics.superseded
