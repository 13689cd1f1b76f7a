"""Removes temporary files of crashed attempts, with few listings of their folders.

An output folder may contain a hundred thousand files, and listing it may take seconds on a file server. So files of
earlier servers are found with one listing per folder and server, files of this server's attempts with one listing per
lost attempt. Temporary names are random: an attempt must never rename the file of another one.
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
    """The temporary files that one server knows of. Any thread may call."""

    def __init__(self, names_in: Callable[[Path, Roots], list[str]] = temporary_names) -> None:
        """`names_in` lists the temporary files of a folder."""
        self._names_in = names_in
        self._folders: dict[tuple[Path, tuple[Path, ...]], _Folder] = {}
        self._lost: set[str] = set()

    def before_first_check(self, job: Job, roots: Roots) -> None:
        """Remove the files of an earlier server's attempts at the job, none of which is still running."""
        if not job.resumed:
            return
        folder = self._folders.setdefault((job.output.parent, roots.write), _Folder())
        names = folder.take(job, roots, self._names_in)
        if names:
            remove_leftovers(job.output, job.job_id, roots, among=names)

    def after_attempt(self, job: Job, result: Result, roots: Roots) -> None:
        """Remove the files of a crashed attempt; those of a lost one, or of an earlier server's, after the next one."""
        if isinstance(result, AttemptLostError):  # it may still be running
            self._lost.add(job.job_id)
        elif isinstance(result, BaseException) and not isinstance(result, ExecutorUnavailableError):
            remove_leftovers(job.output, job.job_id, roots)
        elif (job.job_id in self._lost or self._is_resumed_group(job)) and not isinstance(result, BaseException):
            self._lost.discard(job.job_id)
            remove_leftovers(job.output, job.job_id, roots)

    @staticmethod
    def _is_resumed_group(job: Job) -> bool:
        """Whether an earlier server may have left files of a group, which has no check of its own before an attempt."""
        return job.is_group and job.resumed


class _Folder:
    """The temporary files in a folder at its first listing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: list[str] | None = None

    def take(self, job: Job, roots: Roots, names_in: Callable[[Path, Roots], list[str]]) -> list[str]:
        """Return those of the job, each once; none if the folder can't be listed, which the next call retries."""
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
