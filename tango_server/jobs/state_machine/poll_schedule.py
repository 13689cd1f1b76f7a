"""When to poll which awaited file, without overloading the file server with tens of thousands of polls.

The longer a file has been awaited, the less often it is polled. In the long run there are at most `POLLS_PER_SECOND`,
slowed down in proportion for all files, and at most `POLLS_AT_A_TIME` are in progress: a slow file server is polled
less often, and a new file never waits behind old ones.
"""

import heapq

POLLS_PER_SECOND = 1000.0
POLLS_AT_A_TIME = 8
_SHORTEST = 0.01  # s


class PollSchedule:
    """The jobs whose files are to be polled again, and the polls in progress."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, str]] = []
        self._rates: dict[str, float] = {}
        self._in_progress: set[str] = set()
        self._load = 0.0  # requested polls per second
        self._count = 0

    def add(self, job_id: str, again: float, now: float) -> None:
        """Poll the file of a job at the instant `again` (monotonic s), later if there are many."""
        interval = max(again - now, _SHORTEST)
        self._rates[job_id] = 1 / interval
        self._load += 1 / interval
        self._count += 1
        due = now + interval * max(1.0, self._load / POLLS_PER_SECOND)
        heapq.heappush(self._due, (due, self._count, job_id))

    def take_due(self, now: float) -> list[str]:
        """Return the jobs to poll now; each counts as in progress until `returned`."""
        taken = []
        while self._due and self._due[0][0] <= now and len(self._in_progress) < POLLS_AT_A_TIME:
            job_id = heapq.heappop(self._due)[2]
            if job_id in self._rates:  # not forgotten meanwhile
                self._load -= self._rates.pop(job_id)
                self._in_progress.add(job_id)
                taken.append(job_id)
        return taken

    def returned(self, job_id: str) -> None:
        """The poll of a job's file is finished."""
        self._in_progress.discard(job_id)

    def forget(self, job_id: str) -> None:
        """Stop polling the file of a job."""
        self._load -= self._rates.pop(job_id, 0.0)
        self._in_progress.discard(job_id)

    @property
    def next(self) -> float | None:
        """The monotonic instant of the next poll; None if nothing waits, or enough polls are in progress."""
        return self._due[0][0] if self._due and len(self._in_progress) < POLLS_AT_A_TIME else None
