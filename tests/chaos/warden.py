"""Whoever looks at the server's State: one that gives up though it lives is put to work again, and told of."""

import threading
import time

import tango
from tango.utils import PyTangoThread

_LOOK = 1.0
_TIMEOUT_MS = 1000


class Warden:
    """Calls Init when the device was in FAULT for `patience` s without a break, as a person would; `found` says so."""

    def __init__(self, address: str, patience: float) -> None:
        self._address = address
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
            status = self._fault()
            if status is None:
                continue
            since = (since or time.monotonic()) if status else None
            if since is not None and time.monotonic() - since > self._patience:
                self.found.append(f"the server gave up, and Init was called: {status}")
                self._call_init()
                since = None

    def _fault(self) -> str | None:
        """Return the status of a device in FAULT, an empty text for any other, None if there is no answer."""
        try:
            proxy = self._proxy()
            return str(proxy.status()) if proxy.state() == tango.DevState.FAULT else ""
        except tango.DevFailed:
            return None

    def _call_init(self) -> None:
        try:
            self._proxy().command_inout("Init")
        except tango.DevFailed as error:
            self.found.append(f"Init failed: {error.args[0].desc.strip()}")

    def _proxy(self) -> tango.DeviceProxy:
        proxy = tango.DeviceProxy(self._address)
        proxy.set_timeout_millis(_TIMEOUT_MS)
        return proxy
