"""The conversion's final statistics in the metadata of catalogued runs, written in the background."""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from petif_bluesky.callback import Submitting
from petif_bluesky.owned_thread import FOR_EVER, keep_calling
from petif_bluesky.tiled.patches import write_statistics
from tango_server.backoff import Backoff
from tango_server.client.client import Client, LinkError
from tango_server.messages import RunStatistics

_log = logging.getLogger(__name__)

_PAUSES = Backoff(shortest=0.1, longest=30.0)
_PAUSE_AFTER_NEWS = 1.0
_PATIENCE = 24 * 3600.0
_MOST_RUNS = 10_000
_HINT = "Write its statistics with petif_bluesky.tiled.statistics.refresh_statistics later."


class _NotYetError(Exception):
    """The catalogue does not have the whole run yet."""


@dataclass(slots=True)
class _Run:
    """A run that has ended, on its way into the catalogue. Instants by the monotonic clock."""

    uid: str
    submitted: int
    since: float
    next_look: float
    pause: float = _PAUSES.shortest
    written: RunStatistics | None = None
    trouble: str = ""


class CatalogueStatistics:
    """Writes each run's statistics into its metadata (`conversion`) after its stop document, and again for late frames.

    `RE.subscribe(CatalogueStatistics(client, converter))`, in any order with the `TiledWriter`. A thread of its own
    does all that waits for a server. It begins when the catalogue has the stop document, and comes back, ever more
    seldom, until each frame of the run has its report. While the catalogue or the conversion server is away it tries
    again. It never raises into a plan.

    Parameters
    ----------
    client: the Tiled client of the catalogue that has the runs, or a `CatalogueAt`
    converter: the device that stands for the conversion server, or a `RemoteSession`
    patience: seconds after its stop document in which a run is looked at

    """

    def __init__(self, client: Any, converter: Submitting, *, patience: float = _PATIENCE) -> None:
        self._client = client
        self._server = converter.client
        self._book = converter.runs
        self._patience = patience
        self._runs: dict[str, _Run] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._wake = threading.Event()
        self._thread = keep_calling(CatalogueStatistics._work, self, self._wake, name="petif-catalogue")

    def __call__(self, name: str, document: Mapping[str, Any]) -> None:
        """Take one document in; only stop documents count."""
        if name != "stop":
            return
        try:
            self._take(document["run_start"])
        except Exception:  # noqa: BLE001 - the boundary to the RunEngine: whatever is wrong with us must not end a plan
            _log.exception("the statistics of a run will not be written into the catalogue")

    @property
    def pending(self) -> list[str]:
        """The runs that are not finished in the catalogue."""
        with self._changed:
            return list(self._runs)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every run so far is finished in the catalogue; return whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._runs, timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Write what can be written now, and end; what is left is told. Waits for at most `timeout` seconds."""
        with self._changed:
            self._closing = True
        self._wake.set()
        self._thread.join(timeout)
        left = [run.uid for run in list(self._runs.values()) if run.written is None or run.written.pending]
        if left:
            _log.warning("%d runs are not finished in the catalogue: %s. %s", len(left), ", ".join(left), _HINT)

    def _take(self, run_uid: str) -> None:
        now = time.monotonic()
        with self._changed:
            if self._closing:
                return
            self._runs.pop(run_uid, None)
            self._runs[run_uid] = _Run(run_uid, self._book.submitted(run_uid), since=now, next_look=now)
            dropped = self._runs.pop(next(iter(self._runs))) if len(self._runs) > _MOST_RUNS else None
            self._changed.notify_all()
        self._wake.set()
        if dropped:
            _log.warning("run %s was given up: too many wait for the catalogue. %s", dropped.uid, _HINT)

    def _work(self) -> float | None:
        """Look at the next run, if it is time to; return after how many seconds to go on."""
        with self._changed:
            runs = sorted(self._runs.values(), key=lambda run: run.next_look)
        if self._closing:
            for run in runs:  # a last time, for each
                self._look_at(run)
            return None
        if not runs:
            return FOR_EVER
        left = runs[0].next_look - time.monotonic()
        if left > 0:
            return left
        self._look_at(runs[0])
        return 0.0

    def _look_at(self, run: _Run) -> None:
        try:
            finished = self._write(run)
        except Exception as error:  # noqa: BLE001 - the end of the thread would end it for all runs, and nobody would know
            finished = False
            self._tell(run, error)
        over = time.monotonic() - run.since > self._patience
        if over and not finished:
            _log.warning("run %s is not finished in the catalogue after %g s. %s", run.uid, self._patience, _HINT)
        with self._changed:
            if finished or over:
                if self._runs.get(run.uid) is run:
                    del self._runs[run.uid]
                self._changed.notify_all()
            run.next_look = time.monotonic() + run.pause
            run.pause = _PAUSES.after(run.pause)

    def _write(self, run: _Run) -> bool:
        """Write the run's statistics if they are news; return whether nothing more is to come."""
        statistics = _completed(self._server.run_statistics(run.uid), run.submitted)
        if statistics != run.written:
            write_statistics(self._catalogued(run.uid), statistics)
            run.written = statistics
            run.pause = _PAUSE_AFTER_NEWS
        if run.trouble:
            _log.info("run %s: its statistics are in the catalogue now", run.uid)
            run.trouble = ""
        return not statistics.pending

    def _catalogued(self, run_uid: str) -> Any:
        """Return the client of a run whose writer is done with it: two that write at a time would undo each other."""
        try:
            run = self._client[run_uid]
        except KeyError as error:
            raise _NotYetError("the catalogue does not have it yet") from error
        if "stop" not in run.metadata:
            raise _NotYetError("the catalogue does not have its stop document yet")
        return run

    def _tell(self, run: _Run, error: Exception) -> None:
        """Log each kind of trouble of a run once."""
        kind = type(error).__name__
        if kind == run.trouble:
            return
        run.trouble = kind
        level = logging.DEBUG if isinstance(error, _NotYetError) else logging.WARNING
        known = isinstance(error, _NotYetError | LinkError)
        _log.log(
            level,
            "run %s: its statistics are not in the catalogue yet and will be tried again: %s",
            run.uid,
            error,
            exc_info=None if known else error,
        )


def refresh_statistics(catalogue: Any, server: Client, run_uid: str) -> RunStatistics:
    """Ask the server for the statistics of a run, put them into the catalogue, and return them.

    For runs whose frames were converted after the session had ended.

    Raises
    ------
    LinkError
        if the server can't be asked, or does not know the run.
    KeyError
        if the catalogue does not have the run.

    """
    statistics = server.run_statistics(run_uid)
    write_statistics(catalogue[run_uid], statistics)
    return statistics


def _completed(statistics: RunStatistics, submitted: int) -> RunStatistics:
    """Return the server's statistics with the frames that are still on their way to it."""
    reported = statistics.converted + statistics.skipped + statistics.placeholders + statistics.failed
    known = max(statistics.submitted, submitted)
    return statistics.model_copy(update={"submitted": known, "pending": max(known - reported, 0)})
