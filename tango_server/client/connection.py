"""One proxy of a Tango device, kept for as long as it is of use: making one may take several time-outs."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import tango

from tango_server.home import give_omniorb_a_socket_folder

TIMEOUT = 3.0
"""How long a call waits for its answer, s."""
_REFUSES_FOR = 1.0
"""How long a Tango proxy refuses calls after it has failed to connect, s."""
_ANSWERS = ("PETIF_", "PyDs_")
"""How the reasons begin that the device itself gives: the connection is as good as any."""

Result = TypeVar("Result")


class Connection:
    """Calls to one device, from any thread.

    While the device answers, calls run side by side. While it does not, one call at a time tries, and those that have
    waited for it share its failure: Tango itself would let one after the other wait for a time-out. So a call takes
    one time-out at the most. Only the first one that the device leaves without an answer takes two: Tango asks then
    whether the device is alive, for as long again.
    """

    def __init__(self, address: str, timeout: float = TIMEOUT) -> None:
        self._address = address
        self._timeout = timeout
        self._answering: tango.DeviceProxy | None = None
        """The proxy that had the last answer; None if the last call had none."""
        self._spare: tango.DeviceProxy | None = None
        """A proxy that waited in vain; it may get an answer yet."""
        self._trying = threading.Lock()
        self._failures = 0
        self._failure = tango.DevFailed()
        give_omniorb_a_socket_folder()

    def call(self, use: Callable[[tango.DeviceProxy], Result]) -> Result:
        """Return what `use` gets from the device; raise `tango.DevFailed`."""
        proxy = self._answering
        if proxy is None:
            failures = self._failures
            with self._trying:
                proxy = self._answering
                if proxy is None:
                    if self._failures != failures:
                        raise tango.DevFailed(*self._failure.args)
                    return self._try(use, self._spare)
        return self._try(use, proxy)

    def _try(self, use: Callable[[tango.DeviceProxy], Result], proxy: tango.DeviceProxy | None) -> Result:
        begun = time.monotonic()
        try:
            if proxy is None:
                proxy = self._made()
                if time.monotonic() - begun > self._timeout:
                    tango.Except.throw_exception(
                        "API_DeviceTimedOut", f"no answer within {self._timeout:g} s", "Connection"
                    )
            result = use(proxy)
        except tango.DevFailed as error:
            if error.args[0].reason.startswith(_ANSWERS):
                self._answering = proxy
            else:
                self._failed(proxy, error, time.monotonic() - begun)
            raise
        self._answering = proxy
        return result

    def _failed(self, proxy: tango.DeviceProxy | None, error: tango.DevFailed, seconds: float) -> None:
        """Keep a proxy that waited; one that was refused at once would only refuse the next calls itself."""
        if self._answering is proxy:
            self._answering = None
        self._spare = proxy if seconds > _REFUSES_FOR else None
        self._failure = error
        self._failures += 1

    def _made(self) -> tango.DeviceProxy:
        proxy = tango.DeviceProxy(self._address)  # it connects, and keeps it to itself if nobody answers
        proxy.set_timeout_millis(round(1000 * self._timeout))
        proxy.set_transparency_reconnection(False)  # else a call that got no answer is made again, and once more
        return proxy
