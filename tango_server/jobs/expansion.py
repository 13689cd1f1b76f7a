"""Replaces files of several frames in the queue by one job for each frame, in a separate thread.

The file's own job ends only when all of them are on the ledger, so that its run never seems to be finished in between.
Their ids and keys follow from the file's: an expansion that a crash has interrupted makes no frame twice.
"""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from tango_server.conversion.errors import PathError
from tango_server.conversion.files.folder import Folder
from tango_server.conversion.files.sandbox import open_folder
from tango_server.conversion.files.series_names import makes_jobs, module_of
from tango_server.jobs.capacity import NoRoomError
from tango_server.jobs.intake import Intake
from tango_server.jobs.job import Job
from tango_server.jobs.job_log import about
from tango_server.jobs.ledger.database import LedgerBusyError
from tango_server.jobs.state_machine.events import AttemptFailed, Event, Expand, Expanded
from tango_server.text import counted

_log = logging.getLogger(__name__)

_PORTION = 100  # jobs per transaction, which other callers may have to wait for
_RETRY_INTERVAL = 0.5  # s
_MOST_FRAMES = 1_000_000
"""Frames in one file; more would fill the queue for days, if the file speaks the truth at all."""


class Expander:
    """Carries out `Expand` in a thread, which the first file of several frames starts; `post` receives the events."""

    def __init__(self, intake: Intake, post: Callable[[Event], None]) -> None:
        self._intake = intake
        self._post = post
        self._steps: dict[str, Expand] = {}
        """The files in the queue that are to be replaced, by job id, oldest first."""
        self._changed = threading.Condition()
        self._making = threading.Lock()
        """Held while jobs are made, and while jobs are cancelled, so that none is made for a cancelled file."""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="petif-expansion", daemon=True)

    def start(self, step: Expand) -> None:
        """Replace the job of a file; answer with `Expanded` or `AttemptFailed`."""
        with self._changed:
            if not self._steps and not self._thread.is_alive():
                self._thread.start()
            self._steps[step.job.job_id] = step
            self._changed.notify()

    def cancel(self, cancel: Callable[[], frozenset[str]]) -> frozenset[str]:
        """Call `cancel`, which returns the ids of cancelled jobs; no more jobs are made for these files."""
        with self._making:
            cancelled = cancel()
            with self._changed:
                for job_id in cancelled & self._steps.keys():
                    del self._steps[job_id]
            return cancelled

    def close(self, timeout: float) -> None:
        """Stop the thread; the rest is made at the next start."""
        self._ending.set()
        with self._changed:
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while (step := self._next()) is not None:
            job_id = step.job.job_id
            try:
                event = self._expand(step)
            except PathError as error:
                event = AttemptFailed(job_id, "final", str(error))
            except Exception as error:  # noqa: BLE001 - thread boundary: only this file fails
                if self._ending.is_set():
                    return
                _log.exception("Cannot make the jobs of a file's frames", extra=about(step.job))
                event = AttemptFailed(job_id, "final", f"cannot make a job for each frame: unexpected {error!r}")
            if event is not None:
                self._post(event)
            with self._changed:
                self._steps.pop(job_id, None)

    def _next(self) -> Expand | None:
        with self._changed:
            self._changed.wait_for(lambda: self._steps or self._ending.is_set())
            return None if self._ending.is_set() else next(iter(self._steps.values()))

    def _expand(self, step: Expand) -> Event | None:
        """Make the jobs of a file's frames and return the event that ends its own; None if that is not to end here."""
        job, frames = step.job, step.frames
        if frames > _MOST_FRAMES:
            reason = f"{job.location.path}: cannot make a job for each of {frames} frames (at most {_MOST_FRAMES})"
            return AttemptFailed(job.job_id, "final", f"{reason}. Check what wrote this file, or name single frames.")
        if reason := self._made_elsewhere(job):
            _log.info("%s: skipped: %s", job.location.path, reason, extra=about(job))
            return Expanded(job.job_id, 0, reason)
        if not frames:
            reason = step.problem or "no image in this file"
            _log.warning("%s: skipped: %s", job.location.path, reason, extra=about(job))
            return Expanded(job.job_id, 0, reason)
        portion = min(_PORTION, self._intake.backlog_limit)
        for start in range(0, frames, portion):
            if not self._make(step, range(start, min(start + portion, frames))):
                return None
        problem = f"; the file is not complete: {step.problem}" if step.problem else ""
        return Expanded(job.job_id, frames, f"{counted(frames, 'frame')}, one job each{problem}")

    def _make(self, step: Expand, indices: range) -> bool:
        """Make jobs once there is room; return False if the file was cancelled or the server stops first."""
        job = step.job
        while not self._ending.is_set():
            with self._making:
                if job.job_id not in self._steps:
                    return False
                try:
                    self._intake.accept_frames(job, indices, step.frames, expanding=len(self._steps))
                except (NoRoomError, LedgerBusyError):
                    pass
                else:
                    return True
            self._ending.wait(_RETRY_INTERVAL)
        return False

    def _made_elsewhere(self, job: Job) -> str:
        """Return why the frames of a file are converted from another one beside it; empty if they are not."""
        name = job.source.name
        try:
            with open_folder(job.source.parent, self._intake.roots_of(job).read) as folder:
                if makes_jobs(name, _Names(folder)):
                    return ""
        except OSError:  # it has just vanished: the conversions report it
            return ""
        if module_of(name) is not None:
            return "the frames of this module are converted with those of the first one beside it"
        return f"its frames are converted from {'the modules' if _is_master(job.source) else 'the master'} beside it"


class _Names:
    """The names in a folder, of which only a few are looked up."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._folder.has(name)


def _is_master(path: Path) -> bool:
    return path.stem.lower().endswith("_master")
