"""Temporary files of attempts that did not end as they should: removed, and seldom looked for."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tango_server.conversion.files.roots import Roots
from tango_server.conversion.files.temporary_names import temporary_names, temporary_path
from tango_server.jobs.executors.base import AttemptLostError, ExecutorUnavailableError
from tango_server.jobs.executors.worker import Failure
from tango_server.jobs.job import Job
from tango_server.jobs.temporary_files import TemporaryFiles
from tango_server.messages import FrameReport
from tests.unit.ledger_entries import job as ledger_job

REPORT = FrameReport(source="/raw/a.tif", outcome="converted", finished=0.0)


class CountedLists:
    """Lists folders; fails as often as it is told to before that."""

    def __init__(self, *failures: Exception) -> None:
        self.folders: list[Path] = []
        self._failures = list(failures)

    def __call__(self, folder: Path, roots: Roots) -> list[str]:
        self.folders.append(folder)
        if self._failures:
            raise self._failures.pop()
        return temporary_names(folder, roots)


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    (tmp_path / "processed").mkdir()
    return Roots.of([tmp_path.resolve()])


def make_job(roots: Roots, number: int, *, resumed: bool = True) -> Job:
    name = f"frame-{number:05d}.tif"
    output = roots.write[0] / "processed" / name
    return replace(ledger_job(f"{number:016x}", source=name), output=output, resumed=resumed)


def leave(job: Job, output: Path | None = None) -> Path:
    left = temporary_path(output or job.output, job.job_id)
    left.write_bytes(b"half a frame")
    return left


def test_a_folder_is_listed_once_for_all_resumed_jobs(roots: Roots) -> None:
    jobs = [make_job(roots, number) for number in range(50)]
    for job in jobs:
        job.output.write_bytes(b"frame")
        leave(job)
        leave(job, job.output.with_stem(f"{job.output.stem}-00001"))
        leave(job, job.output.with_name(f"{job.output.name}.metadata"))
    stranger = leave(replace(jobs[0], job_id="another"))
    lists = CountedLists()
    leftovers = TemporaryFiles(lists)
    for job in jobs:
        for _ in range(3):  # a file that is awaited is looked at again and again
            leftovers.before_first_check(job, roots)
    folder = jobs[0].output.parent
    assert lists.folders == [folder]
    assert sorted(folder.iterdir()) == sorted([*(job.output for job in jobs), stranger])


def test_only_the_checked_job_loses_its_leftover_files(roots: Roots) -> None:
    first, second = make_job(roots, 1), make_job(roots, 2)
    lefts = leave(first), leave(second)
    leftovers = TemporaryFiles()
    leftovers.before_first_check(first, roots)
    assert [left.exists() for left in lefts] == [False, True]
    living = leave(first)  # of the attempt that this server has made since
    leftovers.before_first_check(first, roots)
    assert living.exists()


def test_a_folder_is_listed_again_after_a_failure_unless_missing(roots: Roots) -> None:
    job = make_job(roots, 1)
    left = leave(job)
    leftovers = TemporaryFiles(CountedLists(OSError(5, "Input/output error")))
    leftovers.before_first_check(job, roots)
    assert left.exists()
    leftovers.before_first_check(job, roots)
    assert not left.exists()
    lists = CountedLists(FileNotFoundError())
    leftovers = TemporaryFiles(lists)
    leftovers.before_first_check(job, roots)
    leftovers.before_first_check(job, roots)
    assert len(lists.folders) == 1


def test_threads_wait_for_one_list(roots: Roots) -> None:
    jobs = [make_job(roots, number) for number in range(4)]
    for job in jobs:
        leave(job)
    together = threading.Barrier(4)
    lists = CountedLists()
    leftovers = TemporaryFiles(lists)

    def look(job: Job) -> None:
        together.wait(10)
        leftovers.before_first_check(job, roots)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(look, jobs))
    assert len(lists.folders) == 1
    assert not list(jobs[0].output.parent.iterdir())


@pytest.mark.parametrize(
    ("result", "removed"),
    [
        (RuntimeError("the worker process died"), True),
        (TimeoutError("too long"), True),
        (REPORT, False),
        (Failure("blocked", "the disk is full"), False),
        (ExecutorUnavailableError("nobody is there"), False),
    ],
    ids=lambda value: str(value) if isinstance(value, bool) else type(value).__name__,
)
def test_only_what_a_crashed_attempt_left_is_removed(
    roots: Roots, result: FrameReport | Failure | Exception, *, removed: bool
) -> None:
    """A new job costs no list; an attempt that ended in order, or never began, none either."""
    lists = CountedLists()
    job = make_job(roots, 1, resumed=False)
    left, other = leave(job), leave(make_job(roots, 2))
    leftovers = TemporaryFiles(lists)
    leftovers.before_first_check(job, roots)
    leftovers.after_attempt(job, result, roots)
    assert (left.exists(), other.exists()) == (not removed, True)
    assert not lists.folders


def test_a_lost_attempt_keeps_its_file_until_the_next_answer(roots: Roots) -> None:
    job = make_job(roots, 1, resumed=False)
    leftovers = TemporaryFiles()
    leftovers.after_attempt(job, AttemptLostError("the scheduler is gone"), roots)
    left = leave(job)  # by a worker that goes on for a moment, and ends then
    leftovers.after_attempt(job, ExecutorUnavailableError("nobody is there"), roots)
    assert left.exists()
    leftovers.after_attempt(job, REPORT, roots)
    assert not left.exists()
