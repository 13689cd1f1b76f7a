"""Poll the server in a background thread, so that reading its state never blocks.

A call may take seconds when the server hangs, so none is made in the RunEngine's thread. The poller caches the state of
the server (`ServerPoller.state`) and passes the statistics of runs to their listeners.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

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
    """The state of the server when last polled, at `polled`; `seen` is the time of its last answer (both Unix s)."""

    was_polled: bool = False
    connected: bool = False
    seen: float = 0.0
    version: str = ""
    recipe: Mapping[str, Any] | None = None
    error: str = "The server has not been polled yet. Allow it more time."
    attributes: Mapping[str, AttributeReading] = field(default_factory=dict)
    polled: float = 0.0

    @property
    def down(self) -> bool:
        """Whether the server was polled and did not answer."""
        return self.was_polled and not self.connected

    def lost(self, error: str) -> "ServerState":
        """Return the state after a call without an answer."""
        return replace(self, was_polled=True, connected=False, error=error, polled=time.time())


Listener = Callable[[RunStatistics | None], None]
"""Called with the statistics of a run, or None when the server cannot be reached."""
Watcher = Callable[[ServerState], None]
"""Called with the state of the server after each poll."""


class _Following(NamedTuple):
    run_uid: str
    listener: Listener
    closely: bool


class Poller(Protocol):
    """What a converter needs from a `ServerPoller`; tests may use `petif_bluesky.testing.FakeServer` instead."""

    @property
    def client(self) -> Client:
        """The client for calls to the server; each call blocks until it is answered."""

    @property
    def state(self) -> ServerState:
        """The state of the server; never blocks."""

    def wait_for_first_poll(self, timeout: float) -> ServerState:
        """Wait for the first poll of the server, at most `timeout` seconds; return its state."""

    def follow(self, run_uid: str, listener: Listener, *, closely: bool = True) -> Callable[[], None]:
        """Call `listener` with the statistics of a run after each poll; return a function that stops this.

        With `closely=False`, the run is polled only as often as the server.
        """

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call `watcher` after each poll; return a function that stops this."""


class ServerPoller:
    """Polls the server of `client` once a second, and ten times a second while a run is followed closely.

    The thread ends with `close`, or when the poller is garbage-collected.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.state = ServerState()
        self._listeners: dict[object, _Following] = {}
        self._watchers: dict[object, Watcher] = {}
        self._wake = threading.Event()
        self._closed = False
        self._first_poll = threading.Event()
        self._next_poll = 0.0
        keep_calling(ServerPoller._poll, self, self._wake, name="petif-poller", thread=PyTangoThread)

    def close(self) -> None:
        """Stop polling, after any call in progress."""
        self._closed = True
        self._wake.set()

    def wait_for_first_poll(self, timeout: float) -> ServerState:
        """Wait for the first poll of the server, at most `timeout` seconds; return its state."""
        self._first_poll.wait(timeout)
        return self.state

    def follow(self, run_uid: str, listener: Listener, *, closely: bool = True) -> Callable[[], None]:
        """Call `listener` from the poller's thread with the statistics of a run; return a function that stops this."""
        key = object()
        self._listeners[key] = _Following(run_uid, listener, closely)
        if closely:
            self._wake.set()

        def unfollow() -> None:
            self._listeners.pop(key, None)

        return unfollow

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call `watcher` from the poller's thread after each poll; return a function that stops this."""
        key = object()
        self._watchers[key] = watcher

        def unwatch() -> None:
            self._watchers.pop(key, None)

        return unwatch

    def _poll(self) -> float | None:
        """Poll the server if due, and the followed runs; return the seconds until the next poll."""
        if self._closed:
            return None
        try:
            due = time.monotonic() >= self._next_poll or not self.state.connected
            if due:
                self.state = self._polled_state()
                self._first_poll.set()
                self._notify_watchers()
                self._next_poll = time.monotonic() + _INTERVAL
            for run_uid in {each.run_uid for each in list(self._listeners.values()) if due or each.closely}:
                self._notify_listeners(run_uid, self._statistics(run_uid))
        except Exception as error:  # noqa: BLE001 - boundary of the thread: if it ended, every drain would time out
            _log.exception("%s: polling failed", self.client.address)
            self.state = self.state.lost(str(error))
        closely = any(each.closely for each in list(self._listeners.values()))
        return _INTERVAL_OF_A_RUN if closely and self.state.connected else _INTERVAL

    def _notify_listeners(self, run_uid: str, statistics: RunStatistics | None) -> None:
        for each in list(self._listeners.values()):
            if each.run_uid != run_uid:
                continue
            try:
                each.listener(statistics)
            except Exception:  # noqa: BLE001 - boundary to user code such as progress bars: it must not end the polling
                _log.exception("A listener of run %s raised an error", run_uid)

    def _notify_watchers(self) -> None:
        for watcher in list(self._watchers.values()):
            try:
                watcher(self.state)
            except Exception:  # noqa: BLE001 - boundary to user subscriptions: they must not end the polling
                _log.exception("A watcher of %s raised an error", self.client.address)

    def _polled_state(self) -> ServerState:
        known = self.state
        try:
            snapshot = self.client.snapshot()
        except LinkDownError as error:
            return self._lost(known, str(error))
        attributes = {**known.attributes, **snapshot.attributes}
        if snapshot.problem:
            known = replace(known, attributes=attributes)
            return self._lost(known, f"{self.client.address} cannot convert: {snapshot.problem}")
        now = time.time()
        return ServerState(
            was_polled=True, connected=True, seen=now, version=snapshot.version, attributes=attributes,
            recipe=json.loads(attributes["Recipe"].value), error="", polled=now,
        )  # fmt: skip

    def _lost(self, known: ServerState, error: str) -> ServerState:
        if not self.state.down:
            _log.warning("%s", error)
        return known.lost(error)

    def _statistics(self, run_uid: str) -> RunStatistics | None:
        if not self.state.connected:
            return None
        try:
            return self.client.run_statistics(run_uid)
        except UnknownRunError:  # the run's announcement has not arrived yet
            return RunStatistics(run_uid=run_uid)
        except LinkError as error:
            self.state = self.state.lost(str(error))
            return None
