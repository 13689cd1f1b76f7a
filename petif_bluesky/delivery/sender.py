"""The thread that sends spooled requests to the server, retrying until they are accepted; it logs each outage once."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from petif_bluesky.delivery.run_book import RunBook
from petif_bluesky.owned_thread import FOR_EVER, keep_calling
from petif_bluesky.spool import Spool, SpooledRequest
from tango_server.backoff import Backoff
from tango_server.client.client import (
    Client,
    LinkDownError,
    LinkError,
    RequestRejectedError,
    ServerFaultError,
    ServerFullError,
)
from tango_server.text import local_time

_log = logging.getLogger(__name__)

_BATCH = 50  # the server handles one call at a time, and other clients wait meanwhile
_PAUSES = Backoff(shortest=0.2, longest=5.0)
_PAUSE_OF_COUNTS = 0.1  # s between calls that have nothing but counts
_STILL_OPEN = 30.0  # s between announcements of runs with open groups; servers close these after 60 s without one


class Sender:
    """Delivers requests in order and at least once; the server recognises repeated requests by their keys.

    A request is removed from the spool only once it is in the server's ledger. A rejected request is set aside in the
    spool, and passed to `set_aside`. What `book` has for the server goes with the requests, or by itself, at most ten
    times a second. Runs with open groups are announced again twice a minute.
    """

    def __init__(
        self,
        spool: Spool,
        client: Client,
        *,
        set_aside: Callable[[SpooledRequest], None] = lambda _entry: None,
        book: RunBook | None = None,
    ) -> None:
        self._spool = spool
        self._book = book or RunBook()
        self._client = client
        self._set_aside = set_aside
        self._outage = OutageReporter(spool.path)
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._pause = 0.0
        self._not_before = 0.0
        self._next_counts = 0.0
        self._next_open = 0.0
        self._batch = _BATCH
        self._fault: ServerFaultError | None = None
        self._thread = keep_calling(Sender._run, self, self._wake, name="petif-sender")

    def wake(self) -> None:
        """Wake the thread: there are new requests in the spool."""
        self._wake.set()

    def wake_for_counts(self) -> None:
        """Wake the thread if the book has news for the server."""
        if self._book.has_news:
            self._wake.set()

    def close(self, timeout: float) -> None:
        """End the thread after any call in progress; wait for it at most `timeout` seconds."""
        self._ended.set()
        self._wake.set()
        self._thread.join(timeout)

    def _run(self) -> float | None:
        """Deliver the next requests; return the seconds until the next step, None to end."""
        if self._ended.is_set():
            return None
        left = self._not_before - time.monotonic()
        if left > 0:  # new frames must not cut a pause short
            return left
        delivered = self._deliver_next()
        if self._pause:
            self._not_before = time.monotonic() + self._pause
            return self._pause
        if delivered:
            return 0.0
        if self._book.has_news:
            return _PAUSE_OF_COUNTS
        return max(self._next_open - time.monotonic(), 0.0) if self._book.with_open_groups() else FOR_EVER

    def _deliver_next(self) -> bool:
        """Deliver the next requests; return whether there were any."""
        entries: list[SpooledRequest] = []
        try:
            self._spool.tidy()
            entries = self._spool.first(self._batch)
            if entries:
                self._deliver(entries)
            elif self._has_news():
                self._submit([])
        except Exception as error:  # noqa: BLE001 - otherwise the thread would end and sending stop silently
            if not self._ended.is_set():  # else the spool was closed during a call; a later session sends them again
                self._hold(error)
        else:
            fault = self._take_fault()
            if fault is not None:
                self._hold(fault)
            elif entries:
                self._go_on()
        return bool(entries)

    def _has_news(self) -> bool:
        now = time.monotonic()
        counts_are_due = self._book.has_news and now >= self._next_counts
        return counts_are_due or (now >= self._next_open and bool(self._book.with_open_groups()))

    def _take_fault(self) -> ServerFaultError | None:
        fault, self._fault = self._fault, None
        return fault

    def _hold(self, error: Exception) -> None:
        self._outage.failed(lambda: self._spool.frames, error)
        self._batch = max(1, self._batch // 2)  # checking paths on slow storage may exceed the timeout of a call
        self._pause = _PAUSES.after(self._pause)

    def _go_on(self) -> None:
        self._outage.recovered(lambda: self._spool.frames)
        self._batch = min(2 * self._batch, _BATCH)
        self._pause = 0.0

    def _deliver(self, entries: list[SpooledRequest]) -> None:
        try:
            self._submit(entries)
        except (RequestRejectedError, ServerFaultError) as error:
            self._deliver_singly(entries, error)

    def _deliver_singly(self, entries: list[SpooledRequest], error: LinkError) -> None:
        if len(entries) > 1:
            for entry in entries:
                if self._ended.is_set():
                    return
                self._deliver([entry])
            return
        if isinstance(error, ServerFaultError):  # may be temporary; send the others first
            self._fault = error
            self._spool.postpone(entries[0])
            return
        _log.error("%s: the server rejected a request, which will not be sent again: %s", self._spool.path, error)
        self._spool.set_aside(entries[0], str(error))
        self._set_aside(entries[0])

    def _submit(self, entries: list[SpooledRequest]) -> None:
        requests = [entry.request for entry in entries if entry.request is not None]
        announced = {entry.run_uid for entry in entries if entry.request is None and entry.closing is None}
        runs = sorted({*announced, *self._book.with_open_groups()})
        closings: dict[str, int] = {}
        for group, members in filter(None, (entry.closing for entry in entries)):
            closings[group] = max(members, closings.get(group, 0))
        news = self._book.news()
        self._next_counts = time.monotonic() + _PAUSE_OF_COUNTS
        self._next_open = time.monotonic() + _STILL_OPEN
        try:
            try:
                answer = self._client.submit(requests, runs, news, closings)
            except RequestRejectedError as error:
                if not news:
                    raise
                _log.warning("Counts of runs are not announced: %s", error)  # they never cost a frame
                answer = self._client.submit(requests, runs, close_groups=closings)
        except LinkError:
            self._book.keep_news(news)
            raise
        for refused in answer.refused:
            _log.warning("Frame not converted: %s", refused.reason)
        self._spool.remove(entries)


class OutageReporter:
    """Logs one warning per type of error during an outage, and one when it is over. Used by a single thread."""

    def __init__(self, spool_path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._spool_path = spool_path
        self._clock = clock
        self._since: float | None = None
        self._logged: set[type[Exception]] = set()

    def failed(self, count: Callable[[], int], error: Exception) -> None:
        """Delivery failed; `count`, which may be slow, returns how many frames are waiting."""
        if self._since is None:
            self._since = self._clock()
        if type(error) in self._logged:
            return
        self._logged.add(type(error))
        waiting = count()
        _log.warning(
            "Cannot send frames to the conversion server since %s: %s%s New frames are kept in %s (%d now) until the "
            "server accepts them. Runs continue and no frame is lost.",
            local_time(self._since),
            str(error),
            _advice(error),
            self._spool_path,
            waiting,
            exc_info=None if isinstance(error, LinkDownError) else error,
        )

    def recovered(self, count: Callable[[], int]) -> None:
        """Delivery works again; `count` returns how many frames are still waiting."""
        if self._since is not None:
            _log.warning(
                "The conversion server accepts frames again; %d are still waiting. The outage started at %s (%.0f s).",
                count(),
                local_time(self._since),
                self._clock() - self._since,
            )
        self._since = None
        self._logged.clear()


def _advice(error: Exception) -> str:
    if isinstance(error, ServerFullError):
        return " Space is freed as frames are converted. If this persists, check the server's Status."
    if isinstance(error, LinkDownError):
        return ""  # the error already says what to do
    return " If this persists, check the server's log."
