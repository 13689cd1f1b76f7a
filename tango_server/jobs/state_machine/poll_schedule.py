"""When to look at which awaited file: tens of thousands of them must not keep a file server busy.

Each file is looked at the more often the shorter it has been awaited. All looks together are at most `LOOKS_PER_SECOND`
in the long run, slowed down in the same proportion for all, and at most `LOOKS_AT_A_TIME` are under way, so that a slow
file server is asked the less often the slower it answers, and a new file never stands behind the old ones.
"""

import heapq

LOOKS_PER_SECOND = 1000.0
LOOKS_AT_A_TIME = 8
_SHORTEST = 0.01  # s


class PollSchedule:
    """The jobs whose files are to be looked at again, and the looks that are under way."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, str]] = []
        self._rates: dict[str, float] = {}
        self._under_way: set[str] = set()
        self._load = 0.0  # looks per second that were asked for
        self._count = 0

    def add(self, job_id: str, again: float, now: float) -> None:
        """Look at the file of a job at the instant `again` (monotonic s), later if there are many."""
        interval = max(again - now, _SHORTEST)
        self._rates[job_id] = 1 / interval
        self._load += 1 / interval
        self._count += 1
        due = now + interval * max(1.0, self._load / LOOKS_PER_SECOND)
        heapq.heappush(self._due, (due, self._count, job_id))

    def take_due(self, now: float) -> list[str]:
        """Return the jobs to look at now; each counts as under way until `returned`."""
        taken = []
        while self._due and self._due[0][0] <= now and len(self._under_way) < LOOKS_AT_A_TIME:
            job_id = heapq.heappop(self._due)[2]
            if job_id in self._rates:  # it was not forgotten
                self._load -= self._rates.pop(job_id)
                self._under_way.add(job_id)
                taken.append(job_id)
        return taken

    def returned(self, job_id: str) -> None:
        """The look at the file of a job is over."""
        self._under_way.discard(job_id)

    def forget(self, job_id: str) -> None:
        """Look at the file of a job no more."""
        self._load -= self._rates.pop(job_id, 0.0)
        self._under_way.discard(job_id)

    @property
    def next(self) -> float | None:
        """The monotonic instant of the next look; None if nothing waits, or enough looks are under way."""
        return self._due[0][0] if self._due and len(self._under_way) < LOOKS_AT_A_TIME else None
