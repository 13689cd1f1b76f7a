"""The pending jobs that are only on the ledger, and when to read more of them."""

from tango_server.jobs.state_machine.events import Cancelled, Fetch, Fetched

WINDOW = 256
"""Maximum number of jobs in memory that are unchecked, ready, or blocked at their output."""


class Backlog:
    """The part of the queue that stays on disk. Exact: each job is counted once when accepted and once when read.

    A job may be read before its acceptance event arrives: then `length` is negative until it does.
    """

    def __init__(self) -> None:
        self.length = 0
        self._unreadable: set[str] = set()
        self._read_to = 0
        self._reading = False
        self._came = 0  # since the last fetch

    def accepted(self, count: int) -> None:
        """Count jobs added to the ledger."""
        self.length += count
        self._came += count

    def fetched(self, event: Fetched) -> None:
        """Count the jobs read from the ledger."""
        self._reading = False
        self._read_to = event.last
        self._unreadable |= event.unreadable
        found = len(event.jobs) + len(event.unreadable)
        self.length = self.length - found if found else min(self.length, self._came)

    def cancelled(self, event: Cancelled, in_memory: int) -> None:
        """Count cancelled jobs, `in_memory` of which were in memory; unreadable ones were pending until now."""
        passed = event.job_ids & self._unreadable
        self._unreadable -= passed
        self.length -= event.reports - in_memory - len(passed)

    def fetch(self, in_window: int) -> list[Fetch]:
        """Return the instruction to read more if there is room for a portion worth a disk access."""
        if self._reading or self.length <= 0:
            return []
        room = WINDOW - in_window
        if room < min(WINDOW // 2, self.length):
            return []
        self._reading = True
        self._came = 0
        return [Fetch(self._read_to, room)]
