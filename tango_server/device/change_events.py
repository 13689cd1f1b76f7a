"""Change events, pushed from one thread at a limited rate."""

import logging
import threading
from collections.abc import Callable
from typing import Any

from tango import DevFailed
from tango.server import Device
from tango.utils import PyTangoThread

_log = logging.getLogger(__name__)

_INTERVAL = 0.05  # s; a push holds the device's monitor: more than about twenty a second would delay commands


class Notifier:
    """Pushes the attributes whose values have changed since the last push.

    The thread is never joined: `delete_device` holds the monitor that a push waits for.
    """

    def __init__(self, device: Device, values: Callable[[], dict[str, Any]]) -> None:
        self._device = device
        self._values = values
        self._wanted = threading.Event()
        self._stopped = False
        self._pushed: dict[str, Any] = {}
        PyTangoThread(target=self._run, name="petif-notify", daemon=True).start()

    def wake(self) -> None:
        """Request a push."""
        self._wanted.set()

    def stop(self) -> None:
        """Stop pushing."""
        self._stopped = True
        self._wanted.set()

    def _run(self) -> None:
        pause = threading.Event()
        while self._wanted.wait() and not self._stopped:
            self._wanted.clear()
            for name, value in self._values().items():
                if name not in self._pushed or not _same(self._pushed[name], value):
                    self._push(name, value)
            pause.wait(_INTERVAL)

    def _push(self, name: str, value: Any) -> None:
        try:
            self._device.push_change_event(name, *(value if isinstance(value, tuple) else (value,)))
        except DevFailed:  # the monitor was held too long, or the device is shutting down: try again
            self._wanted.set()
            return
        except Exception:  # noqa: BLE001 - thread boundary: one value must not stop all events
            _log.exception("Cannot push a change event of %s", name)
        self._pushed[name] = value


def _same(pushed: Any, value: Any) -> bool:
    """Whether a value needs no push; of (value, time, quality) the time is ignored."""
    if isinstance(value, tuple) and isinstance(pushed, tuple):
        return bool(pushed[0] == value[0] and pushed[2] == value[2])
    return bool(pushed == value)
