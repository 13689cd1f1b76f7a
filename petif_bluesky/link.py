"""The one module of the bluesky side that talks to Tango, by a `Client`.

Every call here may take seconds when a server hangs, so none is made in the RunEngine's thread: a thread of the link
polls, and the others read what it found (`TangoLink.server`) or are told (`TangoLink.follow`).
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from tango.utils import PyTangoThread

from petif_bluesky.owned_thread import keep_calling
from tango_server.client.attributes import AttributeReading
from tango_server.client.client import (
    Client,
    LinkDownError,
    LinkError,
    RequestRejectedError,
    ServerFaultError,
    ServerFullError,
    UnknownRunError,
)
from tango_server.client.connection import TIMEOUT
from tango_server.limits import MANY_REPORTS, MOST_REPORTS
from tango_server.messages import FolderAnswer, FrameReport, RefusedRequest, ReportsQuery, RunStatistics, SubmitAnswer

__all__ = [
    "Link",
    "LinkDownError",
    "LinkError",
    "Listener",
    "RequestRejectedError",
    "ServerFaultError",
    "ServerFullError",
    "ServerState",
    "TangoLink",
    "UnknownRunError",
    "Watcher",
]

_log = logging.getLogger(__name__)

_POLL = 1.0
_POLL_FOLLOWED = 0.1


@dataclass(frozen=True, slots=True)
class ServerState:
    """What is known of the server. `seen` is in Unix seconds; the rest is as of then. `looked`: when it was asked."""

    asked: bool = False
    connected: bool = False
    seen: float = 0.0
    version: str = ""
    recipe: Mapping[str, Any] | None = None
    trouble: str = "it was not asked yet"
    attributes: Mapping[str, AttributeReading] = field(default_factory=dict)
    looked: float = 0.0

    @property
    def down(self) -> bool:
        """Whether the server was asked and did not answer."""
        return self.asked and not self.connected

    def lost(self, trouble: str) -> "ServerState":
        """Return what is known after a call that got no answer."""
        return replace(self, asked=True, connected=False, trouble=trouble, looked=time.time())


Listener = Callable[[RunStatistics | None], None]
"""Called with a run's statistics, or None when the server can't be asked."""
Watcher = Callable[[ServerState], None]
"""Called with what is known of the server, after each look."""


class Link(Protocol):
    """What the rest of this package needs of a connection to a server."""

    address: str

    @property
    def server(self) -> ServerState:
        """What is known of the server; never waits."""

    def submit(self, requests: Sequence[Mapping[str, Any]], runs: Sequence[str] = ()) -> SubmitAnswer:
        """Hand requests to the server and announce runs; waits for the answer. Raises `LinkError`."""

    def run_statistics(self, run_uid: str) -> RunStatistics:
        """Ask for the statistics of a run; waits for the answer. Raises `LinkError`."""

    def reports(self, run_uid: str, after: str | None = None) -> Sequence[FrameReport]:
        """Ask for the reports of a run's frames, oldest first; waits for the answer. Raises `LinkError`.

        With `after` only the first `MANY_REPORTS` that were finished after that of a job ("": of all), in that order.
        """

    def frames_in(self, folder: str, after: str = "") -> FolderAnswer:
        """Ask for the frames in a folder of the server whose names come after one. Raises `LinkError`."""

    def missing(self, paths: Sequence[str]) -> Sequence[RefusedRequest]:
        """Ask which files the server does not see, and why. Raises `LinkError`."""

    def follow(self, run_uid: str, listener: Listener) -> Callable[[], None]:
        """Have `listener` called with every new look at a run; return the function that ends this."""

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Have `watcher` called after every look at the server; return the function that ends this."""


class TangoLink:
    """A connection to a `PETifConverter` device. Construction succeeds with the server down.

    Parameters
    ----------
    address: the Tango resource locator, as `tango://127.0.0.1:45450/petif/converter/1#dbase=no`
    timeout: how long a call waits for its answer, s; see `Client`

    """

    def __init__(self, address: str, timeout: float = TIMEOUT) -> None:
        self.address = address
        self.server = ServerState()
        self._client = Client(address, timeout)
        self._followed: dict[object, tuple[str, Listener]] = {}
        self._watchers: dict[object, Watcher] = {}
        self._wake = threading.Event()
        self._closed = False
        self._first_look = threading.Event()
        self._next_look = 0.0
        keep_calling(TangoLink._poll, self, self._wake, name="petif-link", thread=PyTangoThread)

    def close(self) -> None:
        """End the polling, after the call that it may be in. Without this it ends when nobody holds the link."""
        self._closed = True
        self._wake.set()

    def wait_for_first_look(self, timeout: float) -> ServerState:
        """Wait until the server was asked for the first time, at most `timeout` seconds."""
        self._first_look.wait(timeout)
        return self.server

    def submit(self, requests: Sequence[Mapping[str, Any]], runs: Sequence[str] = ()) -> SubmitAnswer:
        """Hand requests to the server and announce runs; return when they are durable there."""
        return self._client.submit(requests, runs)

    def run_statistics(self, run_uid: str) -> RunStatistics:
        """Ask for the statistics of a run."""
        return self._client.run_statistics(run_uid)

    def reports(self, run_uid: str, after: str | None = None) -> Sequence[FrameReport]:
        """Ask for the reports of a run's frames, all of them or the next ones."""
        whole = ReportsQuery(run_uid=run_uid, limit=MOST_REPORTS)
        if after is None:
            return self._client.reports(whole).reports
        try:
            return self._client.reports(ReportsQuery(run_uid=run_uid, after=after, limit=MANY_REPORTS)).reports
        except RequestRejectedError:  # a server of before, which gives them all at once only
            return self._client.reports(whole).reports

    def frames_in(self, folder: str, after: str = "") -> FolderAnswer:
        """Ask for the frames in a folder of the server."""
        return self._client.frames_in(folder, after)

    def missing(self, paths: Sequence[str]) -> Sequence[RefusedRequest]:
        """Ask which files the server does not see."""
        return self._client.missing(paths)

    def follow(self, run_uid: str, listener: Listener) -> Callable[[], None]:
        """Have `listener` called, from the link's thread, with every new look at a run."""
        key = object()
        self._followed[key] = (run_uid, listener)
        self._wake.set()

        def unfollow() -> None:
            self._followed.pop(key, None)

        return unfollow

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Have `watcher` called, from the link's thread, after every look at the server."""
        key = object()
        self._watchers[key] = watcher

        def unwatch() -> None:
            self._watchers.pop(key, None)

        return unwatch

    def _poll(self) -> float | None:
        """Look at the server, if it is time to, and at the runs that are followed; return when to look again (s)."""
        if self._closed:
            return None
        try:
            if time.monotonic() >= self._next_look or not self.server.connected:
                self.server = self._look()
                self._first_look.set()
                self._show()
                self._next_look = time.monotonic() + _POLL
            for run_uid in {run_uid for run_uid, _ in list(self._followed.values())}:
                self._tell(run_uid, self._statistics(run_uid))
        except Exception as error:  # noqa: BLE001 - the boundary of the thread: without it every drain would time out
            _log.exception("%s can't be asked", self.address)
            self.server = self.server.lost(str(error))
        return _POLL_FOLLOWED if self._followed and self.server.connected else _POLL

    def _tell(self, run_uid: str, statistics: RunStatistics | None) -> None:
        for followed, listener in list(self._followed.values()):
            if followed != run_uid:
                continue
            try:
                listener(statistics)
            except Exception:  # noqa: BLE001 - the boundary to other people's progress bars: they must not end the polling
                _log.exception("a listener to run %s failed", run_uid)

    def _show(self) -> None:
        for watcher in list(self._watchers.values()):
            try:
                watcher(self.server)
            except Exception:  # noqa: BLE001 - the boundary to other people's subscriptions: they must not end the polling
                _log.exception("a watcher of %s failed", self.address)

    def _look(self) -> ServerState:
        known = self.server
        try:
            snapshot = self._client.snapshot()
        except LinkDownError as error:
            return self._lost(known, str(error))
        attributes = {**known.attributes, **snapshot.attributes}
        if snapshot.trouble:
            known = replace(known, attributes=attributes)
            return self._lost(known, f"{self.address} can't convert: {snapshot.trouble}")
        now = time.time()
        return ServerState(
            asked=True, connected=True, seen=now, version=snapshot.version, attributes=attributes,
            recipe=json.loads(attributes["Recipe"].value), trouble="", looked=now,
        )  # fmt: skip

    def _lost(self, known: ServerState, trouble: str) -> ServerState:
        if not self.server.down:
            _log.warning("%s", trouble)
        return known.lost(trouble)

    def _statistics(self, run_uid: str) -> RunStatistics | None:
        if not self.server.connected:
            return None
        try:
            return self.run_statistics(run_uid)
        except UnknownRunError:  # its announcement is still on the way
            return RunStatistics(run_uid=run_uid)
        except LinkError as error:
            self.server = self.server.lost(str(error))
            return None
