"""Checks of files whose reader may crash or hang, such as HDF5, in one process of their own.

Nothing of HDF5 is opened in the server's process. A file that kills or hangs the probe process is tried once more,
alone in a new one; then its job fails by name, and the others go on.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tango_server.conversion.files.roots import Roots
from tango_server.jobs.executors.base import ExecutorUnavailableError
from tango_server.jobs.executors.processes import ProcessExecutor
from tango_server.jobs.file_checks import Messages, observe_source, write_companions_of
from tango_server.jobs.job import Job
from tango_server.jobs.state_machine.events import AttemptFailed, Observed
from tango_server.text import LONGEST_MESSAGE, printable

TIME_LIMIT = 30.0  # s for one message of a few checks
_CLOSE_TIMEOUT = 1.0  # s


@dataclass(frozen=True, slots=True)
class Probe:
    """A check of a job's source and of `darks` of its run; with `output` instead the companions of its scan."""

    job: Job
    roots: Roots
    darks: tuple[Path, ...] = ()
    output: Path | None = None


Finding = Observed | AttemptFailed | Messages
Found = Callable[[Finding], None]


def run(probe: Probe) -> Finding:
    """Carry out a check, in the probe process."""
    try:
        if probe.output is not None:
            return write_companions_of(probe.job, probe.output, probe.roots)
        return observe_source(probe.job, probe.roots, probe.darks)
    except Exception as error:  # noqa: BLE001 - only this file fails
        reason = f"{probe.job.location}: cannot check the file: unexpected {type(error).__name__}: {error}"
        return AttemptFailed(probe.job.job_id, "final", printable(reason, LONGEST_MESSAGE))


class Prober:
    """The probe process, started with the first check and again after `close`."""

    def __init__(self, check: Callable[[Probe], Finding] = run, time_limit: float = TIME_LIMIT) -> None:
        self._check = check
        self._time_limit = time_limit
        self._lock = threading.Lock()
        self._executor: ProcessExecutor[Probe, Finding] | None = None

    def start(self, probe: Probe, found: Found) -> None:
        """Carry out a check; call `found` from another thread, unless this is closed first."""
        with self._lock:
            if self._executor is None:
                self._executor = ProcessExecutor(1, self._time_limit, self._check, twice=True)
            self._executor.start(probe, partial(self._ended, probe, found))

    def close(self) -> None:
        """End the process; results that have not come yet are dropped."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.close(_CLOSE_TIMEOUT)

    def _ended(self, probe: Probe, found: Found, result: Finding | BaseException) -> None:
        if not isinstance(result, BaseException):
            found(result)
            return
        job_id, name = probe.job.job_id, probe.job.location
        if isinstance(result, ExecutorUnavailableError):
            found(AttemptFailed(job_id, "unavailable", str(result)))
            return
        problem = f"took longer than {self._time_limit:g} s" if isinstance(result, TimeoutError) else "crashed"
        reason = f"{name}: cannot read the file: its reader {problem}, twice. The file is damaged: check what wrote it."
        found(AttemptFailed(job_id, "final", reason))
