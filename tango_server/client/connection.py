"""One proxy of a Tango device, kept for as long as it works: creating one may take several time-outs."""

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
"""Prefixes of the reasons that the device itself gives: the connection works."""

Result = TypeVar("Result")


class Connection:
    """Calls to one device, from any thread.

    While the device answers, calls run in parallel. While it does not, one call at a time tries, and the calls that
    waited for it share its failure: Tango itself would make each of them wait for a time-out in turn. So a call takes
    at most one time-out. Only the first unanswered call takes two, because Tango then pings the device for as long
    again.
    """

    def __init__(self, address: str, timeout: float = TIMEOUT) -> None:
        self._address = address
        self._timeout = timeout
        self._answering: tango.DeviceProxy | None = None
        """The proxy that received the last answer; None if the last call failed."""
        self._spare: tango.DeviceProxy | None = None
        """A proxy whose call timed out; it may work again later."""
        self._trying = threading.Lock()
        self._failures = 0
        self._failure = tango.DevFailed()
        give_omniorb_a_socket_folder()

    @property
    def failures(self) -> int:
        """Number of unanswered calls so far: after each, another version of the server may answer."""
        return self._failures

    def call(self, use: Callable[[tango.DeviceProxy], Result]) -> Result:
        """Call `use` with the proxy and return its result; raise `tango.DevFailed`."""
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
                proxy = self._create_proxy()
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
        """Keep a proxy that timed out; one that was refused at once would only refuse the next calls."""
        if self._answering is proxy:
            self._answering = None
        self._spare = proxy if seconds > _REFUSES_FOR else None
        self._failure = error
        self._failures += 1

    def _create_proxy(self) -> tango.DeviceProxy:
        proxy = tango.DeviceProxy(self._address)  # connects; no error if that fails
        proxy.set_timeout_millis(round(1000 * self._timeout))
        proxy.set_transparency_reconnection(False)  # else an unanswered call is repeated twice
        return proxy
