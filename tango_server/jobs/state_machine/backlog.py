"""How many pending jobs are on the ledger only, and when to read more of them."""

from tango_server.jobs.state_machine.events import Cancelled, Fetch, Fetched

WINDOW = 256
"""Jobs in memory that were never looked at, are ready, or whose output is blocked."""


class Backlog:
    """The part of the queue that stays on disk; exact: every job is told of once as it comes and once as it is read.

    A job may be read before its acceptance is told: then `length` is below zero until that has arrived.
    """

    def __init__(self) -> None:
        self.length = 0
        self._unreadable: set[str] = set()
        self._read_to = 0
        self._reading = False
        self._came = 0  # since the ledger was asked

    def accepted(self, count: int) -> None:
        """So many jobs were added on the ledger."""
        self.length += count
        self._came += count

    def fetched(self, event: Fetched) -> None:
        """The next jobs were read."""
        self._reading = False
        self._read_to = event.last
        self._unreadable |= event.unreadable
        found = len(event.jobs) + len(event.unreadable)
        self.length = self.length - found if found else min(self.length, self._came)

    def cancelled(self, event: Cancelled, in_memory: int) -> None:
        """Jobs were cancelled, of which so many were in memory; those that could not be read are pending until then."""
        passed = event.job_ids & self._unreadable
        self._unreadable -= passed
        self.length -= event.reports - in_memory - len(passed)

    def fetch(self, in_window: int) -> list[Fetch]:
        """Return the instruction to read more if there is room, in portions that are worth a look at the disk."""
        if self._reading or self.length <= 0:
            return []
        room = WINDOW - in_window
        if room < min(WINDOW // 2, self.length):
            return []
        self._reading = True
        self._came = 0
        return [Fetch(self._read_to, room)]
