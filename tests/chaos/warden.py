"""Whoever looks at the server's State: one that gives up though it lives is put to work again, and told of."""

import threading
import time

from tango.utils import PyTangoThread

from tests.chaos.line import Line, NoAnswerError

_LOOK = 1.0


class Warden:
    """Calls Init when the device was in FAULT for `patience` s without a break, as a person would; `found` says so."""

    def __init__(self, address: str, patience: float) -> None:
        self._line = Line(address)
        self._patience = patience
        self._stopped = threading.Event()
        self._thread = PyTangoThread(target=self._watch, name="warden")
        self.found: list[str] = []

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        since = None
        while not self._stopped.wait(_LOOK):
            try:
                status = self._line.fault()
                since = (since or time.monotonic()) if status else None
                if since is not None and time.monotonic() - since > self._patience:
                    self.found.append(f"the server gave up, and Init was called: {status}")
                    self._line.initialise()
                    since = None
            except NoAnswerError:  # it is gone or frozen: no fault of its own
                continue
