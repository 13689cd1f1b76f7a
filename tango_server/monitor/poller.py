"""One thread that polls a server once a second, for all pages."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import tango
from tango.utils import PyTangoThread

from tango_server.client.client import Client, LinkDownError, LinkError
from tango_server.limits import MANY_REPORTS
from tango_server.messages import FrameReport, ReportsQuery, RunStatistics
from tango_server.monitor.live_map import LiveMap, run_with_map
from tango_server.monitor.state import (
    NO_QUERIES,
    MonitorState,
    Queries,
    queries_after,
    runs_to_query,
    with_reports,
    with_runs,
    with_snapshot,
    without_answer,
)

_log = logging.getLogger(__name__)

INTERVAL = 1.0
_SHOWN_FAILURES = 20
_LATEST = 100
_PAGES_AT_ONCE = 5  # of reports for the map: a poll must not take long
_CLOSE_TIMEOUT = 15.0
_PART_OF_A_CORE = 100
"""The statistics of runs may cost the server 1/100 of a core: those of 60,000 frames take 50 ms."""

Action = Callable[[Client], str]
"""Performs an action on the server, and returns the message to show."""


class Watch:
    """The state of the server at `address`, updated by a thread until `close`.

    `interval` is the time between two polls in s.
    """

    def __init__(self, address: str, interval: float = INTERVAL) -> None:
        self.address = address
        self._interval = interval
        self._client = Client(address)
        self._observed = MonitorState(address, time.time())
        self._pending = NO_QUERIES
        """Queries without an answer yet."""
        self._reported: list[FrameReport] = []
        self._runs_due = 0.0
        self._wake = threading.Event()
        self._closed = False
        self._thread = PyTangoThread(target=self._run, name="petif-monitor", daemon=True)
        self._thread.start()

    @property
    def observed(self) -> MonitorState:
        """The current state."""
        return self._observed

    def act(self, action: Action) -> str:
        """Perform an action on the server, from any thread, and poll right afterwards.

        Raises
        ------
        LinkError
            if the server can't be reached, or rejects it.

        """
        with tango.EnsureOmniThread():
            try:
                return action(self._client)
            finally:
                self._wake.set()

    def report(self, job_id: str) -> FrameReport | None:
        """Return the report of a job, from any thread; None if there is none.

        Raises
        ------
        LinkError
            if the server can't be reached.

        """
        with tango.EnsureOmniThread():
            reports = self._client.reports(ReportsQuery(job_ids=[job_id])).reports
        return reports[0] if reports else None

    def close(self) -> None:
        """Stop the thread; a server that hangs may delay that for some seconds."""
        self._closed = True
        self._wake.set()
        self._thread.join(_CLOSE_TIMEOUT)

    def _run(self) -> None:
        while not self._closed:
            try:
                self._observed = self._next()
            except Exception:  # noqa: BLE001 - thread boundary: the page must stay alive
                _log.exception("Cannot poll the server")
            self._wake.wait(self._interval)
            self._wake.clear()

    def _next(self) -> MonitorState:
        before = self._observed
        try:
            snapshot = self._client.snapshot()
            observed = with_snapshot(before, snapshot, time.time())
            return self._with_answers(observed, queries_after(before, snapshot) | self._pending)
        except LinkDownError as error:
            return without_answer(before, str(error), time.time())

    def _with_answers(self, observed: MonitorState, queries: Queries) -> MonitorState:
        """Return the state after more queries; those that fail are repeated later."""
        self._pending = queries
        try:
            if queries.latest:
                observed = self._with_latest(observed)
            if queries.failures:
                failed = self._reports(_SHOWN_FAILURES, "failed")
                observed = replace(observed, failures=tuple(reversed(failed)))
        except LinkError as error:
            if type(error) is LinkDownError:
                raise
            _log.warning("%s", error)
            return observed
        self._pending = NO_QUERIES
        if queries.latest:
            observed = self._with_map(self._with_runs(observed))
        return observed

    def _with_map(self, observed: MonitorState) -> MonitorState:
        """Return the state with new points of the map, those of a few thousand reports at a time."""
        known, run_uid = observed.map, run_with_map(self._reported)
        if run_uid is not None and (known is None or known.run_uid != run_uid):
            known = LiveMap(run_uid)
        if known is None:
            return observed
        for _ in range(_PAGES_AT_ONCE):
            reports = self._reports_of(known)
            if reports is None and known.after:
                known = replace(known, after="")
                break
            reports = reports or ()
            known = known.with_reports(reports)
            if len(reports) < MANY_REPORTS:
                return replace(observed, map=known)
        self._pending = Queries(latest=True, failures=False)
        return replace(observed, map=known)

    def _reports_of(self, known: LiveMap) -> Sequence[FrameReport] | None:
        """Return further reports of a map's run; None if the last one is not there any more: it was retried."""
        try:
            return self._client.reports_of_run(known.run_uid, known.after)
        except LinkDownError:
            raise
        except LinkError:
            return None

    def _with_latest(self, observed: MonitorState) -> MonitorState:
        self._reported = self._reports(_LATEST)
        observed = with_reports(observed, self._reported)
        return observed if observed.last is not None else with_reports(observed, self._reports(1, "converted"))

    def _with_runs(self, observed: MonitorState) -> MonitorState:
        """Return the state with the statistics of runs; the longer they take, the less often they are queried."""
        begun = time.monotonic()
        if begun < self._runs_due:
            self._pending = Queries(latest=True, failures=False)
            return observed
        runs = [self._statistics(run_uid) for run_uid in runs_to_query(observed, self._reported)]
        self._runs_due = begun + _PART_OF_A_CORE * (time.monotonic() - begun)
        return with_runs(observed, [run for run in runs if run is not None])

    def _reports(self, limit: int, outcome: str | None = None) -> list[FrameReport]:
        query = ReportsQuery.model_validate({"latest": True, "limit": limit, "outcome": outcome})
        return self._client.reports(query).reports

    def _statistics(self, run_uid: str) -> RunStatistics | None:
        try:
            return self._client.run_statistics(run_uid)
        except LinkDownError:
            raise
        except LinkError:  # its history was pruned meanwhile
            return None
