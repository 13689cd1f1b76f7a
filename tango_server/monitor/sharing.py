"""One poller and one image loader per server and process, shared by all pages and cells."""

import atexit
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import panel as pn

from tango_server.monitor.image_loader import Pictures
from tango_server.monitor.poller import Watch


@dataclass(frozen=True, slots=True)
class Shared:
    """What the pages of one server share."""

    watch: Watch
    pictures: Pictures

    def close(self) -> None:
        """Stop the threads."""
        self.pictures.close()
        self.watch.close()


_kept: dict[str, Shared] = {}
_followed: dict[str, Any] = {}
"""The callback that refreshes the notebook page of each server."""
_one_at_a_time = threading.Lock()


def shared_by(address: str) -> Shared:
    """Return the poller and image loader of a server, created at the first call and kept until the process ends."""
    with _one_at_a_time:
        if address not in _kept:
            _kept[address] = Shared(Watch(address), Pictures())
        return _kept[address]


def follow_alone(address: str, follow: Callable[[], Any]) -> None:
    """Start refreshing a page; in a notebook stop the previous one, which nothing else would stop."""
    following = follow()
    if pn.state.curdoc is not None:  # a browser session, which stops by itself
        return
    with _one_at_a_time:
        before = _followed.pop(address, None)
        _followed[address] = following
    if before is not None:
        before.stop()


@atexit.register
def close_all() -> None:
    """Stop all threads that poll servers."""
    with _one_at_a_time:
        while _kept:
            _kept.popitem()[1].close()
