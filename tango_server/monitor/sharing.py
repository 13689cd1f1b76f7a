"""One watch per server and process, and one reader of pictures: shared by all pages and cells."""

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
    """What the pages of one server have in common."""

    watch: Watch
    pictures: Pictures

    def close(self) -> None:
        """End the threads."""
        self.pictures.close()
        self.watch.close()


_kept: dict[str, Shared] = {}
_followed: dict[str, Any] = {}
"""What refreshes the page of each server in a notebook."""
_one_at_a_time = threading.Lock()


def shared_by(address: str) -> Shared:
    """Return what this process has for a server, until it ends; made when it is asked for first."""
    with _one_at_a_time:
        if address not in _kept:
            _kept[address] = Shared(Watch(address), Pictures())
        return _kept[address]


def follow_alone(address: str, follow: Callable[[], Any]) -> None:
    """Begin to refresh a page; in a notebook this ends the refreshing of the one before, which has no other end."""
    following = follow()
    if pn.state.curdoc is not None:  # a browser's own session, which ends with it
        return
    with _one_at_a_time:
        before = _followed.pop(address, None)
        _followed[address] = following
    if before is not None:
        before.stop()


@atexit.register
def close_all() -> None:
    """End all threads that look at servers."""
    with _one_at_a_time:
        while _kept:
            _kept.popitem()[1].close()
