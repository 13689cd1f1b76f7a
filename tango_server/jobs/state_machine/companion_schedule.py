"""When to write the companions of a scan of ESPERANTO frames: once no more frames have arrived for a while.

The server does not know when a run is closed, and a frame may come late. So companions are written when no frame of the
scan was converted for `PAUSES.shortest` seconds, and again after further frames. This reads all headers of the scan, so
for a slow scan the pause doubles after each write, up to `PAUSES.longest`.
"""

from pathlib import Path

from tango_server.backoff import Backoff
from tango_server.jobs.job import Job
from tango_server.jobs.state_machine.events import WriteCompanions

PAUSES = Backoff(shortest=2.0, longest=64.0)
_KEPT = 1000  # folders


class CompanionSchedule:
    """The scans with new frames since their companions were written, by folder."""

    def __init__(self) -> None:
        self._due: dict[Path, tuple[float, WriteCompanions]] = {}
        self._pauses: dict[Path, float] = {}
        """The last pause of each folder."""

    def converted(self, job: Job, output: str, now: float) -> None:
        """Record that a frame was converted at `now` (monotonic s)."""
        if job.recipe.esperanto is not None:
            folder = Path(output).parent
            self._due.pop(folder, None)
            self._due[folder] = (now + self._pauses.get(folder, PAUSES.shortest), WriteCompanions(job, Path(output)))

    def take_due(self, now: float) -> list[WriteCompanions]:
        """Return the companions to write now."""
        return self._take([folder for folder, (due, _) in self._due.items() if due <= now])

    def take_all(self) -> list[WriteCompanions]:
        """Return the companions to write at shutdown."""
        return self._take(list(self._due))

    def _take(self, folders: list[Path]) -> list[WriteCompanions]:
        for folder in folders:
            self._pauses[folder] = PAUSES.after(self._pauses.pop(folder, PAUSES.shortest))
        while len(self._pauses) > _KEPT:
            del self._pauses[next(iter(self._pauses))]
        return [self._due.pop(folder)[1] for folder in folders]

    @property
    def next(self) -> float | None:
        """The monotonic instant of the next write, None if there is none."""
        return min((due for due, _ in self._due.values()), default=None)
