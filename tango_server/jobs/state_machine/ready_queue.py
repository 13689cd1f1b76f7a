"""Ready and running jobs, and the outputs in use."""

from collections import deque
from collections.abc import Container, Iterable, KeysView
from pathlib import Path

from tango_server.jobs.job import Job


class ReadyQueue:
    """Ready and running jobs: at most `workers` at a time, and never two with the same output.

    A worker has one job, or `small_at_once` small ones, since sending a job takes longer than converting a small frame.
    First come, first served; a job whose output is in use keeps its place. An output is in use from the start of a job
    until its report is written: otherwise two jobs could be pending after a crash, and the earlier one would find the
    output of the later one.
    """

    def __init__(self, workers: int, small_at_once: int = 1) -> None:
        self._workers = workers
        self._small_at_once = small_at_once
        self._ready: deque[tuple[Job, bool]] = deque()
        self._small_running: set[str] = set()
        self._running: dict[str, Job] = {}
        self._taken: dict[Path, str] = {}
        self._outputs: dict[str, Path] = {}

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def running(self) -> KeysView[str]:
        """The ids of the running jobs."""
        return self._running.keys()

    def running_jobs(self) -> list[Job]:
        """Return the running jobs."""
        return list(self._running.values())

    def add(self, job: Job, *, small: bool = False) -> None:
        """Add a ready job; `small`: its conversion takes almost no time."""
        self._ready.append((job, small))

    def take(self) -> list[Job]:
        """Return the jobs to start now; each counts as running until `ended`."""
        taken: list[Job] = []
        postponed: list[tuple[Job, bool]] = []
        while self._ready and self._has_room(small=self._ready[0][1]):
            job, small = self._ready.popleft()
            if job.output in self._taken:
                postponed.append((job, small))
                continue
            self._taken[job.output] = job.job_id
            self._outputs[job.job_id] = job.output
            self._running[job.job_id] = job
            if small:
                self._small_running.add(job.job_id)
            taken.append(job)
        self._ready.extendleft(reversed(postponed))
        return taken

    def _has_room(self, *, small: bool) -> bool:
        at_once, of_small = self._small_at_once, len(self._small_running)
        taken = (len(self._running) - of_small) * at_once + of_small
        return taken + (1 if small else at_once) <= self._workers * at_once

    def ended(self, job_id: str) -> None:
        """The worker has finished this job; its output stays in use until `free`."""
        self._running.pop(job_id, None)
        self._small_running.discard(job_id)

    def free(self, job_ids: Iterable[str]) -> None:
        """Release the outputs of these jobs."""
        for job_id in job_ids:
            output = self._outputs.pop(job_id, None)
            if output is not None:
                del self._taken[output]

    def drop(self, job_ids: Container[str]) -> None:
        """Remove these jobs from the ready ones."""
        self._ready = deque(each for each in self._ready if each[0].job_id not in job_ids)
