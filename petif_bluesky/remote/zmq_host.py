"""The callback in a process of its own, fed by bluesky's 0MQ proxy."""

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
    """Ends its task before it closes the loop; asyncio complains otherwise."""

    def stop(self) -> None:
        if self._task is not None and not self.loop.is_closed():
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):  # which `start` raises
                self.loop.run_until_complete(self._task)
        super().stop()


class ZmqHost:
    """Feeds subscribers with the documents of a 0MQ proxy, and tells at each run's end what of it did not come.

    Parameters
    ----------
    address: host:port of the proxy's out port
    subscribers: each is called with every document, in this order, and never raises
    prefix: only documents of publishers with this prefix are taken, empty for all
    any_pickle: take pickles of anything, not of plain data alone: whoever reaches the proxy may run programs here

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
        """Take documents until the process is interrupted. Whatever else happens, it goes on."""
        while True:
            dispatcher = _Dispatcher(self._address, prefix=self._prefix, deserializer=self._deserialized)
            dispatcher.subscribe(self._take)
            try:
                dispatcher.start()
            except Exception:  # noqa: BLE001 - the boundary to what others send: it must not end the host
                _log.exception("a message of %s could not be taken; documents that come now may be lost", self._address)
            self._pause.wait(_PAUSE)

    def _deserialized(self, data: bytes) -> Any:
        try:
            return self._loads(data)
        except Exception as error:
            _log.error("a document is lost, because it can't be unpickled: %s", error)
            raise

    def _take(self, name: str, document: Mapping[str, Any]) -> None:
        for subscriber in self._subscribers:
            subscriber(name, document)
        try:
            missing = self._check.feed(name, document)
        except Exception:  # noqa: BLE001 - as above
            _log.exception(
                "a %r document does not follow the event model; what is missing of its run is not told", name
            )
            return
        for words in missing:
            _log.error("%s", words)
        if name == "stop":
            _log.info("run %s has ended%s", document.get("run_start"), "" if missing else ", and all of it was seen")
