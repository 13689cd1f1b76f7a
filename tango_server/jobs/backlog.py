"""How many pending jobs are on the ledger only, and when to read more of them."""

from tango_server.jobs.vocabulary import Cancelled, Fetch, Fetched

WINDOW = 256
"""Jobs in memory that were never looked at, are ready, or whose output is blocked."""


class Backlog:
    """The part of the queue that stays on disk; exact: every job is told of once as it comes and once as it is read."""

    def __init__(self) -> None:
        self.length = 0
        self._read_to = 0
        self._reading = False

    def accepted(self, count: int) -> None:
        """So many jobs were added on the ledger."""
        self.length += count

    def fetched(self, event: Fetched) -> None:
        """The next jobs were read."""
        self._reading = False
        self._read_to = event.last
        found = len(event.jobs) + event.unreadable
        self.length = self.length - found if found else min(self.length, 0)

    def cancelled(self, event: Cancelled, in_memory: int) -> None:
        """Jobs were cancelled, of which so many had been read."""
        self.length -= event.reports - in_memory

    def fetch(self, in_window: int) -> list[Fetch]:
        """Return the instruction to read more if there is room, in portions that are worth a look at the disk."""
        room = WINDOW - in_window
        if self._reading or self.length <= 0 or room < min(WINDOW // 2, self.length):
            return []
        self._reading = True
        return [Fetch(self._read_to, room)]
