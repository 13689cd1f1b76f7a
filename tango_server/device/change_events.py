"""Change events, pushed from one thread, a few times a second at the most."""

import logging
import threading
from collections.abc import Callable
from typing import Any

from tango import DevFailed
from tango.server import Device
from tango.utils import PyTangoThread

_log = logging.getLogger(__name__)

_INTERVAL = 0.05  # a push takes the device's monitor: more than some twenty a second would get in the way of commands


class Notifier:
    """Pushes the attributes whose values have changed since they were pushed last.

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
        """Something has changed."""
        self._wanted.set()

    def stop(self) -> None:
        """Push nothing more."""
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
        except DevFailed:  # the monitor was held too long, or the device is going: events are a hint, polls go on
            self._wanted.set()
            return
        except Exception:  # noqa: BLE001 - the boundary of the thread: one value must not end all events
            _log.exception("%s can't be pushed", name)
        self._pushed[name] = value


def _same(pushed: Any, value: Any) -> bool:
    """Whether a value needs no push: of (value, time, quality) the time does not count."""
    if isinstance(value, tuple) and isinstance(pushed, tuple):
        return bool(pushed[0] == value[0] and pushed[2] == value[2])
    return bool(pushed == value)
