"""Temporary files of attempts that ended in no good order, removed with few looks at their folders.

An output folder may hold a hundred thousand files, and listing it takes a file server seconds. So what earlier servers
left is found by one list of each folder per server; what this one's attempts left, by one list for each that was lost.
Temporary names stay random: a name that two attempts could share might be renamed by the wrong one.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from tango_server.conversion.errors import OutsideRootsError
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.files.temporary_names import is_temporary_of, remove_leftovers, temporary_names
from tango_server.jobs.executors.base import AttemptLostError, ExecutorUnavailableError, Result
from tango_server.jobs.job import Job


class TemporaryFiles:
    """What one server knows of them. Any thread may call."""

    def __init__(self, names_in: Callable[[Path, Roots], list[str]] = temporary_names) -> None:
        """`names_in` lists the temporary files of a folder."""
        self._names_in = names_in
        self._folders: dict[tuple[Path, tuple[Path, ...]], _Folder] = {}
        self._lost: set[str] = set()

    def before_first_look(self, job: Job, roots: Roots) -> None:
        """Remove what an earlier server's attempts at the job left; nothing of them is at work any more."""
        if not job.resumed:
            return
        folder = self._folders.setdefault((job.output.parent, roots.write), _Folder())
        names = folder.take(job, roots, self._names_in)
        if names:
            remove_leftovers(job.output, job.job_id, roots, among=names)

    def after_attempt(self, job: Job, result: Result, roots: Roots) -> None:
        """Remove what an attempt left that crashed, or, once the next one has an answer, what a lost one did."""
        if isinstance(result, AttemptLostError):  # it may go on for a while
            self._lost.add(job.job_id)
        elif isinstance(result, BaseException) and not isinstance(result, ExecutorUnavailableError):
            remove_leftovers(job.output, job.job_id, roots)
        elif job.job_id in self._lost and not isinstance(result, BaseException):
            self._lost.discard(job.job_id)
            remove_leftovers(job.output, job.job_id, roots)


class _Folder:
    """The temporary files that were in a folder when it was looked at for the first time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: list[str] | None = None

    def take(self, job: Job, roots: Roots, names_in: Callable[[Path, Roots], list[str]]) -> list[str]:
        """Return those of the job, each once; none if the folder can't be listed: the next call tries again."""
        with self._lock:
            if self._names is None:
                try:
                    self._names = names_in(job.output.parent, roots)
                except FileNotFoundError:
                    self._names = []
                except (OSError, OutsideRootsError):
                    return []
            taken = [name for name in self._names if is_temporary_of(job.job_id, name)]
            if taken:
                self._names = [name for name in self._names if name not in taken]
            return taken
