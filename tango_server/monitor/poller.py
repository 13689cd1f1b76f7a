"""One thread looks at a server, once a second, for however many pages that show it."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import tango
from tango.utils import PyTangoThread

from tango_server.client.client import Client, LinkDownError, LinkError
from tango_server.messages import FrameReport, ReportsQuery, RunStatistics
from tango_server.monitor.state import (
    NOTHING,
    MonitorState,
    Questions,
    questions,
    runs_to_ask,
    with_reports,
    with_runs,
    with_silence,
    with_snapshot,
)

_log = logging.getLogger(__name__)

INTERVAL = 1.0
_SHOWN_FAILURES = 20
_LATEST = 100
_CLOSE_PATIENCE = 15.0
_PART_OF_A_CORE = 100
"""The numbers of runs may cost the server one part in so many: a run of 60,000 frames takes it 50 ms."""

Action = Callable[[Client], str]
"""Does something at the server, and returns what to tell people."""


class Watch:
    """What is known of the server at `address`, kept fresh by a thread until `close`.

    `interval` is the time between two looks in s.
    """

    def __init__(self, address: str, interval: float = INTERVAL) -> None:
        self.address = address
        self._interval = interval
        self._client = Client(address)
        self._observed = MonitorState(address, time.time())
        self._owed = NOTHING
        """What was asked, and had no answer yet."""
        self._reported: list[FrameReport] = []
        self._runs_due = 0.0
        self._wake = threading.Event()
        self._closed = False
        self._thread = PyTangoThread(target=self._run, name="petif-monitor", daemon=True)
        self._thread.start()

    @property
    def observed(self) -> MonitorState:
        """What is known now."""
        return self._observed

    def act(self, action: Action) -> str:
        """Do something at the server, from any thread, and have what came of it looked at right after.

        Raises
        ------
        LinkError
            if the server can't be asked, or rejects it.

        """
        with tango.EnsureOmniThread():
            try:
                return action(self._client)
            finally:
                self._wake.set()

    def close(self) -> None:
        """End the thread; a server that hangs may hold it for some seconds."""
        self._closed = True
        self._wake.set()
        self._thread.join(_CLOSE_PATIENCE)

    def _run(self) -> None:
        while not self._closed:
            try:
                self._observed = self._next()
            except Exception:  # noqa: BLE001 - whatever it is, the page must go on
                _log.exception("the server could not be looked at")
            self._wake.wait(self._interval)
            self._wake.clear()

    def _next(self) -> MonitorState:
        before = self._observed
        try:
            snapshot = self._client.snapshot()
            observed = with_snapshot(before, snapshot, time.time())
            return self._with_answers(observed, questions(before, snapshot) | self._owed)
        except LinkDownError as error:
            return with_silence(before, str(error), time.time())

    def _with_answers(self, observed: MonitorState, ask: Questions) -> MonitorState:
        """Return what is known after more questions; what the server can't answer at present is asked again."""
        self._owed = ask
        try:
            if ask.latest:
                observed = self._with_latest(observed)
            if ask.failures:
                failed = self._reports(_SHOWN_FAILURES, "failed")
                observed = replace(observed, failures=tuple(reversed(failed)))
        except LinkError as error:
            if type(error) is LinkDownError:
                raise
            _log.warning("%s", error)
            return observed
        self._owed = NOTHING
        if ask.latest:
            observed = self._with_runs(observed)
        return observed

    def _with_latest(self, observed: MonitorState) -> MonitorState:
        self._reported = self._reports(_LATEST)
        observed = with_reports(observed, self._reported)
        return observed if observed.last is not None else with_reports(observed, self._reports(1, "converted"))

    def _with_runs(self, observed: MonitorState) -> MonitorState:
        """Return what is known with the numbers of runs, which are dear: they are asked for as seldom as they take."""
        begun = time.monotonic()
        if begun < self._runs_due:
            self._owed = Questions(latest=True, failures=False)
            return observed
        runs = [self._statistics(run_uid) for run_uid in runs_to_ask(observed, self._reported)]
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
