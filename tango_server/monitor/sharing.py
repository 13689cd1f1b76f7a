"""One watch per server and process, and one reader of pictures: shared by all pages and cells."""

import atexit
import threading
from dataclasses import dataclass

from tango_server.monitor.pictures import Pictures
from tango_server.monitor.watch import Watch


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
_one_at_a_time = threading.Lock()


def shared_by(address: str) -> Shared:
    """Return what this process has for a server, until it ends; made when it is asked for first."""
    with _one_at_a_time:
        if address not in _kept:
            _kept[address] = Shared(Watch(address), Pictures())
        return _kept[address]


@atexit.register
def close_all() -> None:
    """End all threads that look at servers."""
    with _one_at_a_time:
        while _kept:
            _kept.popitem()[1].close()
