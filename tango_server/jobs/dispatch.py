"""What the state machine asks for, done by others: observers look at files, an executor runs conversions.

What comes of it is posted as an event, from whatever thread. Nothing here makes the caller wait for a file system.
"""

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from tango_server.conversion.files.roots import Roots
from tango_server.conversion.files.temporary_names import remove_leftovers
from tango_server.jobs.executors.base import Executor, ExecutorUnavailableError, Result
from tango_server.jobs.executors.worker import Failure, Task
from tango_server.jobs.file_checks import carry_sidecar_of, observe_source, write_companions_of
from tango_server.jobs.job import Job
from tango_server.jobs.job_log import about
from tango_server.jobs.mounts import Mounts
from tango_server.jobs.state_machine.events import (
    AttemptDone,
    AttemptFailed,
    CarrySidecar,
    Convert,
    Event,
    Observe,
    Observed,
    SidecarObserved,
    WriteCompanions,
)
from tango_server.jobs.temporary_files import TemporaryFiles
from tango_server.messages import FrameReport

_log = logging.getLogger(__name__)

OWN_FAULT = "petif-bluesky failed here, or one of its libraries; the log has the details"
_OBSERVERS = 4

_Look = Observed | SidecarObserved | AttemptFailed
"""What comes of a look at a job's files."""


class Dispatcher:
    """The observers and the executor of one service.

    Parameters
    ----------
    executor: runs conversions; closed with this
    roots: gives the roots as they are now
    mounts: tell whether the roots are there
    post: takes what has happened, from any thread

    """

    def __init__(
        self, executor: Executor, *, roots: Callable[[], Roots], mounts: Mounts, post: Callable[[Event], None]
    ) -> None:
        self._executor = executor
        self._roots = roots
        self._mounts = mounts
        self._post = post
        self._temporary_files = TemporaryFiles()
        self._observers = ThreadPoolExecutor(_OBSERVERS, thread_name_prefix="petif-observe")
        self._unavailable = ""  # what was told last of why nobody converts; every waiting job would tell it again

    def dispatch(self, step: Observe | CarrySidecar | WriteCompanions | Convert) -> None:
        """Have one step done."""
        job = step.job
        if isinstance(step, Convert) and (trouble := self._mounts.last_trouble):
            self._post(AttemptFailed(job.job_id, "away", trouble))
            return
        roots = self._roots_of(job)
        match step:
            case Observe():
                self._observe(job, self._observers.submit(self._look_at_source, job, roots))
            case CarrySidecar(_, output):
                self._observe(job, self._observers.submit(carry_sidecar_of, job, output, roots))
            case WriteCompanions():
                self._observers.submit(self.write_companions, step)
            case Convert(_, attempt):
                _log.debug("attempt %d begins", attempt, extra=about(job))
                task = Task(job, roots, step.placeholder, step.reason)
                self._executor.start(task, partial(self._attempted, job))

    def write_companions(self, step: WriteCompanions) -> None:
        """Write the companions of a scan, in this thread."""
        write_companions_of(step.job, step.output, self._roots_of(step.job))

    def close(self, patience: float) -> None:
        """Let running conversions finish; looks that have not begun are left."""
        self._executor.close(patience)
        self._observers.shutdown(wait=False, cancel_futures=True)

    def clean_up(self, jobs: Iterable[Job]) -> None:
        """Remove what attempts that were given up have left."""
        for job in jobs:
            remove_leftovers(job.output, job.job_id, self._roots_of(job))

    def _observe(self, job: Job, look: "Future[_Look]") -> None:
        look.add_done_callback(partial(self._looked, job.job_id))

    def _roots_of(self, job: Job) -> Roots:
        """Return the roots of when a job was accepted, those of now if that was not kept."""
        if job.source_root is None or job.output_root is None:
            return self._roots()
        roots = Roots(read=(job.source_root,), write=(job.output_root,))
        if job.recipe.esperanto is None or job.recipe.esperanto.mask is None:
            return roots
        now = self._roots()
        return replace(roots, every=now.read, private=now.private)

    def _look_at_source(self, job: Job, roots: Roots) -> _Look:
        if trouble := self._mounts.trouble_of(*roots.read, *roots.write):
            return AttemptFailed(job.job_id, "away", trouble)
        self._temporary_files.before_first_look(job, roots)
        look = observe_source(job, roots)
        if trouble := self._mounts.trouble_of(*roots.read):  # it went meanwhile: what was not there may be
            return AttemptFailed(job.job_id, "away", trouble)
        return look

    def _looked(self, job_id: str, look: Future[_Look]) -> None:
        if look.cancelled():
            return
        fault = look.exception()
        if fault is None:
            self._post(look.result())
            return
        _log.error("looking at its file failed in a way that it should not", exc_info=fault, extra={"job_id": job_id})
        self._post(AttemptFailed(job_id, "final", f"its file can't be examined: {OWN_FAULT} ({fault!r})"))

    def _attempted(self, job: Job, result: Result) -> None:
        job_id, roots = job.job_id, self._roots_of(job)
        if trouble := self._mounts.trouble_of(*roots.read, *roots.write):
            self._post(AttemptFailed(job_id, "away", trouble))  # whatever it has written may lie below the mount
            return
        try:
            self._temporary_files.after_attempt(job, result, roots)
        except Exception:  # noqa: BLE001 - the attempt counts all the same
            _log.exception("what an attempt has left can't be removed", extra=about(job))
        match result:
            case FrameReport():
                self._unavailable = ""
                self._post(AttemptDone(job_id, result))
            case Failure(kind, reason, trace):
                if trace:
                    _log.error("a conversion failed in a way that it should not:\n%s", trace, extra=about(job))
                if kind == "blocked":
                    _log.warning("tried again for a while: %s", reason, extra=about(job))
                self._post(AttemptFailed(job_id, kind, reason))
            case ExecutorUnavailableError():
                told, self._unavailable = str(result) == self._unavailable, str(result)
                _log.log(logging.DEBUG if told else logging.WARNING, "it waits: %s", result, extra=about(job))
                self._post(AttemptFailed(job_id, "unavailable", str(result)))
            case _:
                _log.warning("%s", result, extra=about(job))
                self._post(AttemptFailed(job_id, "crashed", str(result) or type(result).__name__))
