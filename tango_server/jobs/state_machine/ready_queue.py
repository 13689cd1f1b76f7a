"""Which job starts next, and which ones workers have: the owner of both, and of the outputs that are being written."""

from collections import deque
from collections.abc import Container, Iterable, KeysView
from pathlib import Path

from tango_server.jobs.job import Job


class ReadyQueue:
    """Jobs that could start, and those that have: at most so many at a time, and never two with one output.

    First come, first served; a job whose output is taken keeps its turn. An output is taken from the start of a job
    until its report is written: otherwise both were pending after a crash, and the earlier one ran on what the later
    one had made.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._ready: deque[Job] = deque()
        self._running: dict[str, Job] = {}
        self._taken: dict[Path, str] = {}
        self._outputs: dict[str, Path] = {}

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def running(self) -> KeysView[str]:
        """The jobs that workers have, by their ids."""
        return self._running.keys()

    def running_jobs(self) -> list[Job]:
        """Return the jobs that workers have."""
        return list(self._running.values())

    def add(self, job: Job) -> None:
        """A job could start now."""
        self._ready.append(job)

    def take(self) -> list[Job]:
        """Return the jobs that start now; each counts as running until `ended`."""
        if not self._ready or len(self._running) >= self._workers:
            return []
        taken: list[Job] = []
        postponed: list[Job] = []
        while self._ready and len(self._running) < self._workers:
            job = self._ready.popleft()
            if job.output in self._taken:
                postponed.append(job)
                continue
            self._taken[job.output] = job.job_id
            self._outputs[job.job_id] = job.output
            self._running[job.job_id] = job
            taken.append(job)
        self._ready.extendleft(reversed(postponed))
        return taken

    def ended(self, job_id: str) -> None:
        """A worker has no more to do with this job; its output stays taken until it is `free`."""
        self._running.pop(job_id, None)

    def free(self, job_ids: Iterable[str]) -> None:
        """These jobs have no more to do with their outputs, or none for now."""
        for job_id in job_ids:
            output = self._outputs.pop(job_id, None)
            if output is not None:
                del self._taken[output]

    def drop(self, job_ids: Container[str]) -> None:
        """These jobs are not to start any more."""
        self._ready = deque(job for job in self._ready if job.job_id not in job_ids)
