"""What a session knows of its server without waiting for it: a thread polls the server, everybody else reads.

A call may take seconds when the server hangs, so none is made in the RunEngine's thread. The poller caches the state of
the server (`ServerPoller.state`) and passes the statistics of runs on to those who follow them.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from tango.utils import PyTangoThread

from petif_bluesky.owned_thread import keep_calling
from tango_server.client.attributes import AttributeReading
from tango_server.client.client import Client, LinkDownError, LinkError, UnknownRunError
from tango_server.messages import RunStatistics

_log = logging.getLogger(__name__)

_INTERVAL = 1.0  # s
_INTERVAL_OF_A_RUN = 0.1


@dataclass(frozen=True, slots=True)
class ServerState:
    """The state of the server when it was polled last, at `polled`; `seen` is its last answer (both Unix seconds)."""

    asked: bool = False
    connected: bool = False
    seen: float = 0.0
    version: str = ""
    recipe: Mapping[str, Any] | None = None
    trouble: str = "it was not asked yet"
    attributes: Mapping[str, AttributeReading] = field(default_factory=dict)
    polled: float = 0.0

    @property
    def down(self) -> bool:
        """Whether the server was asked and did not answer."""
        return self.asked and not self.connected

    def lost(self, trouble: str) -> "ServerState":
        """Return the state after a call that got no answer."""
        return replace(self, asked=True, connected=False, trouble=trouble, polled=time.time())


Listener = Callable[[RunStatistics | None], None]
"""Called with the statistics of a run, or None when the server can't be asked."""
Watcher = Callable[[ServerState], None]
"""Called with the state of the server after each poll."""


class Poller(Protocol):
    """What a converter needs of a `ServerPoller`; tests may put `petif_bluesky.testing.FakeServer` in its place."""

    @property
    def client(self) -> Client:
        """Makes calls to the server; each waits for its answer."""

    @property
    def state(self) -> ServerState:
        """The state of the server; never waits."""

    def wait_for_first_poll(self, timeout: float) -> ServerState:
        """Wait until the server was polled for the first time, at most `timeout` seconds; return its state."""

    def follow(self, run_uid: str, listener: Listener) -> Callable[[], None]:
        """Have `listener` called with the statistics of a run after each poll; return the function that ends this."""

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Have `watcher` called after each poll; return the function that ends this."""


class ServerPoller:
    """Polls the server of `client` once a second, and ten times a second while a run is followed.

    The thread ends with `close`, or when nobody holds the poller.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.state = ServerState()
        self._listeners: dict[object, tuple[str, Listener]] = {}
        self._watchers: dict[object, Watcher] = {}
        self._wake = threading.Event()
        self._closed = False
        self._first_poll = threading.Event()
        self._next_poll = 0.0
        keep_calling(ServerPoller._poll, self, self._wake, name="petif-poller", thread=PyTangoThread)

    def close(self) -> None:
        """End the polling, after the call that it may be in."""
        self._closed = True
        self._wake.set()

    def wait_for_first_poll(self, timeout: float) -> ServerState:
        """Wait until the server was polled for the first time, at most `timeout` seconds; return its state."""
        self._first_poll.wait(timeout)
        return self.state

    def follow(self, run_uid: str, listener: Listener) -> Callable[[], None]:
        """Have `listener` called from the poller's thread with the statistics of a run; return what ends this."""
        key = object()
        self._listeners[key] = (run_uid, listener)
        self._wake.set()

        def unfollow() -> None:
            self._listeners.pop(key, None)

        return unfollow

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Have `watcher` called from the poller's thread after each poll; return the function that ends this."""
        key = object()
        self._watchers[key] = watcher

        def unwatch() -> None:
            self._watchers.pop(key, None)

        return unwatch

    def _poll(self) -> float | None:
        """Poll the server if it is due, and the runs that are followed; return when to poll again (s)."""
        if self._closed:
            return None
        try:
            if time.monotonic() >= self._next_poll or not self.state.connected:
                self.state = self._polled_state()
                self._first_poll.set()
                self._notify_watchers()
                self._next_poll = time.monotonic() + _INTERVAL
            for run_uid in {run_uid for run_uid, _ in list(self._listeners.values())}:
                self._notify_listeners(run_uid, self._statistics(run_uid))
        except Exception as error:  # noqa: BLE001 - the boundary of the thread: without it every drain would time out
            _log.exception("%s can't be polled", self.client.address)
            self.state = self.state.lost(str(error))
        return _INTERVAL_OF_A_RUN if self._listeners and self.state.connected else _INTERVAL

    def _notify_listeners(self, run_uid: str, statistics: RunStatistics | None) -> None:
        for followed, listener in list(self._listeners.values()):
            if followed != run_uid:
                continue
            try:
                listener(statistics)
            except Exception:  # noqa: BLE001 - the boundary to other people's progress bars: they must not end the polling
                _log.exception("a listener to run %s failed", run_uid)

    def _notify_watchers(self) -> None:
        for watcher in list(self._watchers.values()):
            try:
                watcher(self.state)
            except Exception:  # noqa: BLE001 - the boundary to other people's subscriptions: they must not end the polling
                _log.exception("a watcher of %s failed", self.client.address)

    def _polled_state(self) -> ServerState:
        known = self.state
        try:
            snapshot = self.client.snapshot()
        except LinkDownError as error:
            return self._lost(known, str(error))
        attributes = {**known.attributes, **snapshot.attributes}
        if snapshot.problem:
            known = replace(known, attributes=attributes)
            return self._lost(known, f"{self.client.address} can't convert: {snapshot.problem}")
        now = time.time()
        return ServerState(
            asked=True, connected=True, seen=now, version=snapshot.version, attributes=attributes,
            recipe=json.loads(attributes["Recipe"].value), trouble="", polled=now,
        )  # fmt: skip

    def _lost(self, known: ServerState, trouble: str) -> ServerState:
        if not self.state.down:
            _log.warning("%s", trouble)
        return known.lost(trouble)

    def _statistics(self, run_uid: str) -> RunStatistics | None:
        if not self.state.connected:
            return None
        try:
            return self.client.run_statistics(run_uid)
        except UnknownRunError:  # its announcement is still on the way
            return RunStatistics(run_uid=run_uid)
        except LinkError as error:
            self.state = self.state.lost(str(error))
            return None
