"""The thread that carries requests from the spool to the server, as long as it takes; it warns once of an outage."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

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

_BATCH = 50  # the server answers one call after the other, and others wait meanwhile
_PAUSES = Backoff(shortest=0.2, longest=5.0)


class Sender:
    """Delivers in order, each request at least once; the server knows a request by its key.

    A request is removed from the spool only after the server has it on its own ledger. One that the server will never
    take is set aside there, and `set_aside` is told.
    """

    def __init__(
        self, spool: Spool, client: Client, *, set_aside: Callable[[SpooledRequest], None] = lambda _entry: None
    ) -> None:
        self._spool = spool
        self._client = client
        self._set_aside = set_aside
        self._reporter = PileUpReporter(spool.path)
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._pause = 0.0
        self._not_before = 0.0
        self._batch = _BATCH
        self._fault: ServerFaultError | None = None
        self._thread = keep_calling(Sender._run, self, self._wake, name="petif-sender")

    def wake(self) -> None:
        """There is something new in the spool."""
        self._wake.set()

    def close(self, timeout: float) -> None:
        """End the thread, after the call that it may be in, and wait for it for at most `timeout` seconds."""
        self._ended.set()
        self._wake.set()
        self._thread.join(timeout)

    def _run(self) -> float | None:
        """Deliver the next requests; return after how many seconds to go on."""
        if self._ended.is_set():
            return None
        left = self._not_before - time.monotonic()
        if left > 0:  # a pause is not to be cut short by every frame that comes meanwhile
            return left
        delivered = self._deliver_next()
        if self._pause:
            self._not_before = time.monotonic() + self._pause
            return self._pause
        return 0.0 if delivered else FOR_EVER

    def _deliver_next(self) -> bool:
        """Deliver the next requests; return whether there were any."""
        entries: list[SpooledRequest] = []
        try:
            self._spool.tidy()
            entries = self._spool.first(self._batch)
            if entries:
                self._deliver(entries)
        except Exception as error:  # noqa: BLE001 - the end of the thread would end all sending, and nobody would know
            if (
                not self._ended.is_set()
            ):  # else the spool was closed under a late answer; the requests go again some day
                self._hold(error)
        else:
            fault = self._take_fault()
            if fault is not None:
                self._hold(fault)
            elif entries:
                self._go_on()
        return bool(entries)

    def _take_fault(self) -> ServerFaultError | None:
        fault, self._fault = self._fault, None
        return fault

    def _hold(self, error: Exception) -> None:
        self._reporter.stuck(lambda: self._spool.frames, error)
        self._batch = max(1, self._batch // 2)  # paths on slow storage may take longer than the time-out of one call
        self._pause = _PAUSES.after(self._pause)

    def _go_on(self) -> None:
        self._reporter.flows(lambda: self._spool.frames)
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
        if isinstance(error, ServerFaultError):  # it may pass; meanwhile the others go first
            self._fault = error
            self._spool.postpone(entries[0])
            return
        _log.error("%s: a request that the server will never take was set aside: %s", self._spool.path, error)
        self._spool.set_aside(entries[0], str(error))
        self._set_aside(entries[0])

    def _submit(self, entries: list[SpooledRequest]) -> None:
        requests = [entry.request for entry in entries if entry.request is not None]
        runs = sorted({entry.run_uid for entry in entries if entry.request is None})
        answer = self._client.submit(requests, runs)
        for refused in answer.refused:
            _log.warning("a frame will not be converted: %s", refused.reason)
        self._spool.remove(entries)


class PileUpReporter:
    """One warning for each kind of trouble until frames flow again; then one more. Called by one thread."""

    def __init__(self, place: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._place = place
        self._clock = clock
        self._since: float | None = None
        self._told: set[type[Exception]] = set()

    def stuck(self, count: Callable[[], int], error: Exception) -> None:
        """So many frames as `count` tells, which may take its time, could not be delivered."""
        if self._since is None:
            self._since = self._clock()
        if type(error) in self._told:
            return
        self._told.add(type(error))
        waiting = count()
        _log.warning(
            "the conversion server has taken nothing since %s; %s wait in %s until it does. "
            "Runs go on, and nothing is lost. %s%s",
            local_time(self._since),
            f"{waiting} frames and all that follow" if waiting else "all frames",
            self._place,
            str(error),
            _advice(error),
            exc_info=None if isinstance(error, LinkDownError) else error,
        )

    def flows(self, count: Callable[[], int]) -> None:
        """The first of what was stuck are delivered; `count` tells how many frames still wait."""
        if self._since is not None:
            _log.warning(
                "the conversion server takes frames again; %d more have waited since %s (%.0f s)",
                count(),
                local_time(self._since),
                self._clock() - self._since,
            )
        self._since = None
        self._told.clear()


def _advice(error: Exception) -> str:
    if isinstance(error, ServerFullError):
        return " It frees itself as it converts; if it does not, look at its Status for what is full."
    if isinstance(error, LinkDownError):
        return ""  # the error says it
    return " If this lasts, look at the log of the server."
