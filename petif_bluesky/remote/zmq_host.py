"""Run the callback in a separate process, fed by bluesky's 0MQ proxy."""

import asyncio
import contextlib
import logging
import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bluesky.callbacks.zmq import RemoteDispatcher

from petif_bluesky.documents.run_completeness import CompletenessCheck
from petif_bluesky.remote import safe_pickle

_log = logging.getLogger(__name__)

_PAUSE = 1.0
_Subscriber = Callable[[str, Mapping[str, Any]], None]


class _Dispatcher(RemoteDispatcher):
    """Ends its task before closing the loop, to avoid asyncio's warning."""

    def stop(self) -> None:
        if self._task is not None and not self.loop.is_closed():
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):  # raised by `start`
                self.loop.run_until_complete(self._task)
        super().stop()


class ZmqHost:
    """Passes documents from a 0MQ proxy to subscribers, and logs at the end of each run what was not received.

    Parameters
    ----------
    address: host:port of the proxy's output port
    subscribers: called in this order with every document; must not raise
    prefix: only documents from publishers with this prefix are used, empty for all
    any_pickle: accept pickles of any objects, not just plain data: anyone who can reach the proxy can run code here

    """

    def __init__(
        self, address: str, subscribers: Sequence[_Subscriber], *, prefix: str = "", any_pickle: bool = False
    ) -> None:
        self._address = address
        self._subscribers = tuple(subscribers)
        self._prefix = prefix.encode()
        self._loads = pickle.loads if any_pickle else safe_pickle.loads
        self._check = CompletenessCheck()
        self._pause = threading.Event()

    def run(self) -> None:
        """Process documents until the process is interrupted, whatever errors occur."""
        while True:
            dispatcher = _Dispatcher(self._address, prefix=self._prefix, deserializer=self._deserialized)
            dispatcher.subscribe(self._take)
            try:
                dispatcher.start()
            except Exception:  # noqa: BLE001 - boundary to data from the network: it must not end the process
                _log.exception(
                    "%s: cannot process a message. Reconnecting; documents sent meanwhile are lost.", self._address
                )
            self._pause.wait(_PAUSE)

    def _deserialized(self, data: bytes) -> Any:
        try:
            return self._loads(data)
        except Exception as error:
            _log.error("Document lost: cannot unpickle it: %s", error)
            raise

    def _take(self, name: str, document: Mapping[str, Any]) -> None:
        for subscriber in self._subscribers:
            subscriber(name, document)
        try:
            missing = self._check.feed(name, document)
        except Exception:  # noqa: BLE001 - data from the network: a malformed document costs only its own check
            _log.exception(
                "A %r document does not follow the event model; missing documents of its run may not be reported", name
            )
            return
        for words in missing:
            _log.error("%s", words)
        if name == "stop":
            _log.info(
                "Run %s has ended%s",
                document.get("run_start"),
                "" if missing else ", and all its documents were received",
            )
