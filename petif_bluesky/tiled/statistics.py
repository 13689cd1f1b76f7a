"""Write conversion statistics to the metadata of catalogued runs, in the background.

A run is updated from its stop document until its statistics are final, and again when a later report changes them:
after a retry, or for a late frame.
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from petif_bluesky.callback import Submitting
from petif_bluesky.documents.bookings import Booking, booking_in
from petif_bluesky.owned_thread import keep_calling
from petif_bluesky.signals.drain_status import reported
from petif_bluesky.tiled.patches import write_statistics
from tango_server.backoff import Backoff
from tango_server.client.client import Client, LinkError, RequestRejectedError, UnknownRunError
from tango_server.messages import RunStatistics

_log = logging.getLogger(__name__)

_PAUSES = Backoff(shortest=0.1, longest=30.0)
_PAUSE_AFTER_CHANGE = 0.3
_FOLLOW_INTERVAL = 2.0  # s between checks for later reports
_PATIENCE = 24 * 3600.0
_MOST_RUNS = 10_000
_MOST_OPEN_RUNS = 100
_writing = threading.Lock()  # two converters of a session have the same runs
_HINT = "Write them later: petif refresh RUN --tiled URI."


class _NotYetError(Exception):
    """The run is not complete in the catalogue yet."""


@dataclass(slots=True)
class _Run:
    """A run that has ended but is not finished in the catalogue; times are monotonic.

    `later`: a later report has changed its statistics; it may be a run of another session, and not in the catalogue.
    """

    booking: Booking
    submitted: int
    since: float
    next_update: float
    pause: float = _PAUSES.shortest
    written: RunStatistics | None = None
    last_error: str = ""
    later: bool = False

    @property
    def uid(self) -> str:
        """The run uid of the frames on the server."""
        return self.booking.run_uid


class CatalogueStatistics:
    """Writes the statistics of each run to its metadata (`conversion`) after the stop document, and updates them.

    Those of a further converter go to `conversion_NAME`. Retries and late frames are followed as long as this object
    lives, also those of earlier sessions.

    Use it as `RE.subscribe(CatalogueStatistics(client, converter))`, before or after the `TiledWriter`. A background
    thread makes all calls to servers. It starts once the catalogue has the stop document, and updates the statistics at
    increasing intervals until each frame of the run has a report. It retries while the catalogue or the conversion
    server is unavailable. It never raises into a plan.

    Parameters
    ----------
    client: the Tiled client of the catalogue with the runs, or a `CatalogueAt`
    converter: the device that represents the conversion server, or a `RemoteSession`
    patience: seconds after the stop document for which a run is updated

    """

    def __init__(self, client: Any, converter: Submitting, *, patience: float = _PATIENCE) -> None:
        self._client = client
        self._server = converter.client
        self._converter = converter.name
        self._book = converter.runs
        self._patience = patience
        self._runs: dict[str, _Run] = {}
        self._open: dict[str, Booking] = {}
        self._follows = True
        self._position = "now"
        """How far the reports of the server were followed."""
        self._next_follow = 0.0
        self._changed = threading.Condition()
        self._closing = False
        self._wake = threading.Event()
        self._thread = keep_calling(CatalogueStatistics._work, self, self._wake, name="petif-catalogue")

    def __call__(self, name: str, document: Mapping[str, Any]) -> None:
        """Process one document; only start and stop documents matter."""
        try:
            if name == "start":
                self._begin(document)
            elif name == "stop":
                uid = document["run_start"]
                self._take(self._open.pop(uid, Booking(uid)))
        except Exception:  # noqa: BLE001 - boundary to the RunEngine: an error here must not end a plan
            _log.exception("Cannot schedule the statistics of a run; they will not be written to the catalogue")

    @property
    def pending(self) -> list[str]:
        """The runs not finished in the catalogue yet."""
        with self._changed:
            return list(self._runs)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all runs so far are finished in the catalogue; return whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._runs, timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Write what can be written now, log what is left, and stop; waits at most `timeout` seconds."""
        with self._changed:
            self._closing = True
        self._wake.set()
        self._thread.join(timeout)
        left = [run.uid for run in list(self._runs.values()) if run.written is None or run.written.pending]
        if left:
            _log.warning("%d runs have no final statistics in the catalogue: %s. %s", len(left), ", ".join(left), _HINT)

    def _begin(self, start: Mapping[str, Any]) -> None:
        booking = booking_in(start, self._converter, self._server.address)
        self._open[booking.run] = booking
        if len(self._open) > _MOST_OPEN_RUNS:  # runs that never stopped
            del self._open[next(iter(self._open))]

    def _take(self, booking: Booking, *, later: bool = False) -> None:
        now, run_uid = time.monotonic(), booking.run_uid
        with self._changed:
            if self._closing:
                return
            self._runs.pop(run_uid, None)
            self._runs[run_uid] = _Run(booking, self._book.submitted(run_uid), since=now, next_update=now, later=later)
            dropped = self._runs.pop(next(iter(self._runs))) if len(self._runs) > _MOST_RUNS else None
            self._changed.notify_all()
        self._wake.set()
        if dropped:
            _log.warning(
                "run %s: statistics not written: too many runs are waiting for the catalogue. %s", dropped.uid, _HINT
            )

    def _work(self) -> float | None:
        """Update the next run if it is due; return the seconds until the next step."""
        with self._changed:
            runs = sorted(self._runs.values(), key=lambda run: run.next_update)
        if self._closing:
            for run in runs:  # one last update each
                self._update(run)
            return None
        now = time.monotonic()
        if runs and runs[0].next_update <= now:
            self._update(runs[0])
            return 0.0
        if self._next_follow <= now:
            self._follow()
            self._next_follow = now + _FOLLOW_INTERVAL
            return 0.0
        return min([self._next_follow, *(run.next_update for run in runs[:1])]) - now

    def _follow(self) -> None:
        """Update the runs that have new reports: failed frames that were retried, and late ones."""
        if not self._follows:
            return
        try:
            while True:
                answer = self._server.reports_after(self._position)
                self._position = answer.position
                if not answer.reports:
                    return
                for run_uid in dict.fromkeys(report.run_uid for report in answer.reports if report.run_uid):
                    booking = Booking.of(run_uid)
                    if run_uid not in self._runs and booking.run not in self._open:
                        self._take(booking, later=True)
        except UnknownRunError:  # the history was pruned
            self._position = "now"
        except RequestRejectedError as error:
            _log.warning("%s: retries will not be followed in the catalogue: %s", self._server.address, error)
            self._follows = False
        except Exception as error:  # noqa: BLE001 - otherwise the thread would silently end for all runs
            _log.debug("Cannot follow the reports: %s", error)

    def _update(self, run: _Run) -> None:
        try:
            finished = self._write(run)
        except Exception as error:  # noqa: BLE001 - otherwise the thread would silently end for all runs
            finished = run.later and isinstance(error, _NotYetError)  # a run of another session, or catalogue
            if not finished:
                self._log_once(run, error)
        over = time.monotonic() - run.since > self._patience
        if over and not finished:
            _log.warning("run %s: no final statistics in the catalogue after %g s. %s", run.uid, self._patience, _HINT)
        with self._changed:
            if finished or over:
                if self._runs.get(run.uid) is run:
                    del self._runs[run.uid]
                self._changed.notify_all()
            run.next_update = time.monotonic() + run.pause
            run.pause = _PAUSES.after(run.pause)

    def _write(self, run: _Run) -> bool:
        """Write the statistics of a run if they have changed; return whether they are final."""
        statistics = _completed(self._server.run_statistics(run.uid), run.submitted)
        if statistics != run.written:
            with _writing:
                write_statistics(self._catalogued(run.booking.run), statistics)
            run.written = statistics
            run.pause = _PAUSE_AFTER_CHANGE
        if run.last_error:
            _log.info("run %s: statistics written to the catalogue", run.uid)
            run.last_error = ""
        return not statistics.pending

    def _catalogued(self, run_uid: str) -> Any:
        """Return the client of a run after its writer has finished: simultaneous writes would undo each other."""
        try:
            run = self._client[run_uid]
        except KeyError as error:
            raise _NotYetError("the catalogue does not have the run yet") from error
        if "stop" not in run.metadata:
            raise _NotYetError("the catalogue does not have its stop document yet")
        return run

    def _log_once(self, run: _Run, error: Exception) -> None:
        """Log each type of error of a run once."""
        kind = type(error).__name__
        if kind == run.last_error:
            return
        run.last_error = kind
        level = logging.DEBUG if isinstance(error, _NotYetError) else logging.WARNING
        known = isinstance(error, _NotYetError | LinkError)
        _log.log(
            level,
            "run %s: cannot write its statistics to the catalogue: %s. Retrying.",
            run.uid,
            error,
            exc_info=None if known else error,
        )


def refresh_statistics(catalogue: Any, server: Client, booked_uid: str) -> RunStatistics:
    """Write the server's statistics of a run to the catalogue, and return them.

    For runs whose frames were converted after the session ended. `booked_uid` is the run uid; for the frames of a
    further converter `{run_uid}#{name}`, which are written to `conversion_{name}`.

    Raises
    ------
    LinkError
        if the server cannot be reached, or does not know the run.
    KeyError
        if the catalogue does not have the run.

    """
    statistics = server.run_statistics(booked_uid)
    run_uid = Booking.of(booked_uid).run
    write_statistics(catalogue[run_uid], statistics)
    return statistics


def _completed(statistics: RunStatistics, submitted: int) -> RunStatistics:
    """Return the server's statistics with the frames not submitted yet counted as pending."""
    known = max(statistics.submitted, submitted, sum(announced for _, announced in statistics.run_counts.values()))
    counted = {"submitted": known, "pending": max(known - reported(statistics), statistics.pending), "run_counts": {}}
    return statistics.model_copy(update=counted)
