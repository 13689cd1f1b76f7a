"""Which job starts next, and which ones workers have: the owner of both, and of the outputs that are being written."""

from collections import deque
from collections.abc import Container, Iterable, KeysView
from pathlib import Path

from tango_server.jobs.job import Job


class ReadyQueue:
    """Jobs that could start, and those that have: at most so many at a time, and never two with one output.

    A worker has one job, or `small_at_once` small ones: what it costs to hand one over is more than their conversion.
    First come, first served; a job whose output is taken keeps its turn. An output is taken from the start of a job
    until its report is written: otherwise both were pending after a crash, and the earlier one ran on what the later
    one had made.
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
        """The jobs that workers have, by their ids."""
        return self._running.keys()

    def running_jobs(self) -> list[Job]:
        """Return the jobs that workers have."""
        return list(self._running.values())

    def add(self, job: Job, *, small: bool = False) -> None:
        """A job could start now; `small`: it takes a worker no time to speak of."""
        self._ready.append((job, small))

    def take(self) -> list[Job]:
        """Return the jobs that start now; each counts as running until `ended`."""
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
        """A worker has no more to do with this job; its output stays taken until it is `free`."""
        self._running.pop(job_id, None)
        self._small_running.discard(job_id)

    def free(self, job_ids: Iterable[str]) -> None:
        """These jobs have no more to do with their outputs, or none for now."""
        for job_id in job_ids:
            output = self._outputs.pop(job_id, None)
            if output is not None:
                del self._taken[output]

    def drop(self, job_ids: Container[str]) -> None:
        """These jobs are not to start any more."""
        self._ready = deque(each for each in self._ready if each[0].job_id not in job_ids)
