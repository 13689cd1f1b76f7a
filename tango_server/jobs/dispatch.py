"""Carries out the instructions of the state machine: observers check files, an executor runs conversions.

Results are posted as events, from any thread. The caller never waits for a file system.
"""

import logging
import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from tango_server.conversion.files.roots import Roots
from tango_server.conversion.files.temporary_names import remove_leftovers
from tango_server.conversion.formats import OwnProcessNeededError
from tango_server.jobs import clock
from tango_server.jobs.executors.base import Executor, ExecutorUnavailableError, Result
from tango_server.jobs.executors.worker import Failure, Task
from tango_server.jobs.file_checks import carry_sidecar_of, log_companions, observe_source
from tango_server.jobs.job import Job, Part
from tango_server.jobs.job_log import about
from tango_server.jobs.mounts import Mounts
from tango_server.jobs.probes import TIME_LIMIT, Finding, Probe, Prober
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

INTERNAL_ERROR = "internal error of petif-bluesky; the log has the details"
_OBSERVERS = 4
_ROOTS_INTERVAL = 1.0  # s

_Observation = Observed | SidecarObserved | AttemptFailed
"""The result of a check of a job's files."""


class Dispatcher:
    """The observers and the executor of one service.

    Parameters
    ----------
    executor: runs conversions; closed with this
    roots: returns the current roots
    mounts: checks whether the roots are mounted
    lambda_modules: how many modules a Lambda detector has; None if unknown
    post: receives events, from any thread

    """

    def __init__(
        self,
        executor: Executor,
        *,
        roots: Callable[[], Roots],
        mounts: Mounts,
        lambda_modules: int | None,
        post: Callable[[Event], None],
    ) -> None:
        self._executor = executor
        self._roots = roots
        self._mounts = mounts
        self._modules = lambda_modules
        self._post = post
        self._latest_roots = clock.now().monotonic, roots()
        """When the current roots were last resolved (monotonic s), and the roots."""
        self._temporary_files = TemporaryFiles()
        self._observers = ThreadPoolExecutor(_OBSERVERS, thread_name_prefix="petif-observe")
        self._prober = Prober()
        self._closing = False
        self._unavailable = ""  # the last logged reason; every waiting job would log it again

    def dispatch(self, step: Observe | CarrySidecar | WriteCompanions | Convert) -> None:
        """Start one step."""
        job = replace(step.job, modules=self._modules)
        if isinstance(step, Convert) and (problem := self._mounts.last_problem):
            self._post(AttemptFailed(job.job_id, "away", problem))
            return
        roots = self._roots_of(job)
        match step:
            case Observe(_, darks):
                self._observe(job, self._observers.submit(self._observe_source, job, darks))
            case CarrySidecar(_, output):
                self._observe(job, self._observers.submit(carry_sidecar_of, job, output, roots))
            case WriteCompanions():
                self._observers.submit(self._write_companions, step, lambda: None)
            case Convert(_, attempt):
                _log.debug("starting attempt %d", attempt, extra=about(job))
                members = tuple(self._with_modules(part) for part in step.members)
                all_roots = self._roots_of_all(roots, members)
                task = Task(job, all_roots, step.placeholder, step.reason, step.proven, members)
                self._executor.start(task, partial(self._attempted, job))

    def write_companions(self, step: WriteCompanions) -> None:
        """Write the companions of a scan; return when that is done."""
        done = threading.Event()
        self._write_companions(step, done.set)
        done.wait(2 * TIME_LIMIT)

    def close(self, timeout: float) -> None:
        """Let running conversions finish; checks that have not started are dropped."""
        self._closing = True
        self._executor.close(timeout)
        self._prober.close()
        self._observers.shutdown(wait=False, cancel_futures=True)

    def clean_up(self, jobs: Iterable[Job]) -> None:
        """Remove the temporary files of abandoned attempts, and end the last process."""
        self._prober.close()
        for job in jobs:
            remove_leftovers(job.output, job.job_id, self._roots_of(job))

    def _observe(self, job: Job, observation: "Future[_Observation | None]") -> None:
        observation.add_done_callback(partial(self._observed, job.job_id))

    def _roots_of(self, job: Job) -> Roots:
        """Return the roots from when the job was accepted, or the current ones if those were not stored."""
        roots = job.roots
        if roots is None:
            return self._roots()
        masked = job.recipe.esperanto is not None and job.recipe.esperanto.mask is not None
        if not masked and not job.master_files:
            return roots
        _, now = self._latest_roots
        return replace(roots, every=now.read, private=now.private)

    def _with_modules(self, part: Part) -> Part:
        return part if part.job is None else replace(part, job=replace(part.job, modules=self._modules))

    def _roots_of_all(self, roots: Roots, members: Iterable[Part]) -> Roots:
        """Return the roots of a group, whose members may be below other read roots than the first one."""
        found = [self._roots_of(part.job) for part in members if part.job is not None]
        read = dict.fromkeys(root for each in (roots, *found) for root in each.read)
        every = next((each for each in (roots, *found) if each.every), roots)
        return replace(roots, read=tuple(read), every=every.every, private=every.private)

    def _refresh_roots(self) -> None:
        """Resolve the current roots if that was a while ago; for observers, since a file server may block it."""
        now = clock.now().monotonic
        if now > self._latest_roots[0] + _ROOTS_INTERVAL:
            self._latest_roots = now, self._roots()

    def _roots_of_masters(self, job: Job) -> set[Path]:
        _, roots = self._latest_roots
        return {roots.root_of(file) for file in job.master_files}

    def _observe_source(self, job: Job, darks: tuple[Path, ...]) -> _Observation | None:
        """Check the files of a job; return None if the probe process does it."""
        self._refresh_roots()
        roots = self._roots_of(job)
        needed = (*roots.read, *self._roots_of_masters(job))
        if problem := self._mounts.problem_of(*needed, *roots.write):
            return AttemptFailed(job.job_id, "away", problem)
        self._temporary_files.before_first_check(job, roots)
        try:
            return self._unless_unmounted(job, needed, observe_source(job, roots, darks, may_crash=False))
        except OwnProcessNeededError:
            if not self._closing:
                self._prober.start(Probe(job, roots, darks), partial(self._probed, job, needed))
            return None

    def _probed(self, job: Job, needed: Collection[Path], finding: Finding) -> None:
        with suppress(RuntimeError):  # it is closing; else in an observer again, since a mount may not answer
            self._observe(job, self._observers.submit(self._unless_unmounted, job, needed, finding))

    def _unless_unmounted(self, job: Job, needed: Collection[Path], finding: Finding) -> _Observation:
        """Return a finding, unless the file system was unmounted meanwhile: a missing file may exist."""
        if problem := self._mounts.problem_of(*needed):
            return AttemptFailed(job.job_id, "away", problem)
        if not isinstance(finding, Observed | AttemptFailed):
            raise TypeError(f"not an observation: {finding!r}")
        return finding

    def _write_companions(self, step: WriteCompanions, done: Callable[[], object]) -> None:
        """Write them in the probe process: the source, or a mask, may be a file that kills its reader."""
        job, roots = replace(step.job, modules=self._modules), self._roots_of(step.job)

        def written(messages: Finding) -> None:
            log_companions(job, messages)
            done()

        self._prober.start(Probe(job, roots, output=step.output), written)

    def _observed(self, job_id: str, observation: Future[_Observation | None]) -> None:
        if observation.cancelled():
            return
        error = observation.exception()
        if error is None:
            result = observation.result()
            if result is not None:
                self._post(result)
            return
        _log.error("Unexpected error while checking a source file", exc_info=error, extra={"job_id": job_id})
        self._post(AttemptFailed(job_id, "final", f"cannot check the file: {INTERNAL_ERROR} ({error!r})"))

    def _attempted(self, job: Job, result: Result) -> None:
        job_id, roots = job.job_id, self._roots_of(job)
        if problem := self._mounts.problem_of(*roots.read, *self._roots_of_masters(job), *roots.write):
            self._post(AttemptFailed(job_id, "away", problem))  # its output may be hidden below the mount point
            return
        try:
            self._temporary_files.after_attempt(job, result, roots)
        except Exception:  # noqa: BLE001 - the attempt still counts
            _log.exception("Cannot remove the temporary files of an attempt", extra=about(job))
        match result:
            case FrameReport():
                self._unavailable = ""
                self._post(AttemptDone(job_id, result))
            case Failure(kind, reason, trace, members):
                if trace:
                    _log.error("Unexpected error during a conversion:\n%s", trace, extra=about(job))
                if kind == "blocked":
                    _log.warning("Output blocked, retrying: %s", reason, extra=about(job))
                self._post(AttemptFailed(job_id, kind, reason, members))
            case ExecutorUnavailableError():
                logged, self._unavailable = str(result) == self._unavailable, str(result)
                _log.log(logging.DEBUG if logged else logging.WARNING, "Frames wait: %s", result, extra=about(job))
                self._post(AttemptFailed(job_id, "unavailable", str(result)))
            case _:
                _log.warning("%s", result, extra=about(job))
                self._post(AttemptFailed(job_id, "crashed", str(result) or type(result).__name__))
