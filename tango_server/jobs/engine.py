"""The edge of the job service: one thread that does what the service says, and a few that look at files for it."""

import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from tango_server.conversion.files.atomic_write import remove_leftovers
from tango_server.conversion.files.roots import Roots
from tango_server.jobs import clock
from tango_server.jobs.executors.base import Executor, ExecutorUnavailableError, Result
from tango_server.jobs.executors.worker import Failure, Task
from tango_server.jobs.file_checks import carry_sidecar_of, observe_source, write_companions_of
from tango_server.jobs.job_log import about, log_finished
from tango_server.jobs.ledger.database import LedgerBusyError, LedgerError
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.mounts import Mounts
from tango_server.jobs.state_machine.events import (
    Accepted,
    AttemptDone,
    AttemptFailed,
    Cancel,
    Cancelled,
    CancelWanted,
    CarrySidecar,
    Convert,
    Ending,
    Event,
    FailuresRetried,
    Fetch,
    Finish,
    Instruction,
    Job,
    Observe,
    Observed,
    Selection,
    SidecarObserved,
    Snapshot,
    TimePassed,
    WriteCompanions,
    Written,
)
from tango_server.jobs.state_machine.machine import JobStateMachine
from tango_server.jobs.temporary_files import TemporaryFiles
from tango_server.messages import FrameReport

_log = logging.getLogger(__name__)

_OBSERVERS = 4
_IDLE_LOOK = 1.0  # rates fall with time, so the numbers are renewed even if nothing happens
_LEDGER_PAUSE = 0.5
_OWN_FAULT = "petif-bluesky failed here, or one of its libraries; the log has the details"

_Look = Observed | SidecarObserved | AttemptFailed
"""What comes of a look at a job's files."""


class Engine:
    """The threads of a running service. `changed` is called, from one of them, when the numbers have changed."""

    def __init__(
        self,
        service: JobStateMachine,
        ledger: Ledger,
        executor: Executor,
        *,
        roots: Callable[[], Roots],
        mounts: Mounts,
        changed: Callable[[], None],
    ) -> None:
        self._service = service
        self._mounts = mounts
        self._ledger = ledger
        self._executor = executor
        self._roots = roots
        self._leftovers = TemporaryFiles()
        self._changed = changed
        self._inbox: queue.Queue[Event | None] = queue.Queue()  # a SimpleQueue may wait for ever at a tiny time-out
        self._observers = ThreadPoolExecutor(_OBSERVERS, thread_name_prefix="petif-observe")
        self._questions: dict[str, Future[int]] = {}
        self._numbers = threading.Lock()
        self._snapshot = service.snapshot(clock.now())
        self._on_the_way = 0  # jobs that are accepted and did not reach the service yet
        self._closing = False
        self._unavailable = ""  # what was told last of why nobody converts; every waiting job would tell it again
        self.fault = ""
        self._thread = threading.Thread(target=self._loop, name="petif-jobs", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def snapshot(self) -> Snapshot:
        """The numbers now; a job counts from the moment that its acceptance was answered."""
        with self._numbers:
            return replace(self._snapshot, queue_length=self._snapshot.queue_length + self._on_the_way)

    def post(self, event: Event) -> None:
        """Hand an event to the service."""
        with self._numbers:
            self._on_the_way += _arriving(event)
        self._inbox.put(event)

    def cancel(self, selection: Selection, patience: float) -> int:
        """Cancel the selected jobs that no worker has; return how many they were.

        Raises
        ------
        TimeoutError
            if it takes longer than `patience` seconds; it is done nevertheless.
        LedgerBusyError
            if the ledger can't be written at present; nothing is cancelled then.
        """
        ticket = secrets.token_hex(8)
        question: Future[int] = Future()
        self._questions[ticket] = question
        self.post(CancelWanted(ticket, selection))
        return question.result(patience)

    def close(self, patience: float) -> None:
        """Let running conversions finish and be reported, end the threads and the workers."""
        self._closing = True
        self._executor.close(patience)
        self._observers.shutdown(wait=False, cancel_futures=True)
        self._inbox.put(Ending())
        self._inbox.put(None)
        self._thread.join(patience)
        for job in self._service.running_jobs():
            remove_leftovers(job.output, job.job_id, self._roots_of(job))

    def _loop(self) -> None:
        try:
            while self._step():
                pass
        except Exception as error:  # noqa: BLE001 - the boundary of the thread that everything else depends on
            _log.exception("the job service stopped")
            self.fault = f"the job service stopped: {error}. Look into the log, mend it, then call Init."
            self._changed()

    def _step(self) -> bool:
        """Take in what has happened and act on it; return whether to go on."""
        instructions: list[Instruction] = []
        events = self._next_events()
        for event in events:
            if event is not None:
                instructions += self._handle(event)
        # Workers first, since the ledger's disk takes its time. None of these writes the output of an unwritten report.
        if not self._closing:
            self._perform_all(step for step in instructions if isinstance(step, Convert))
        finished = [(step.report, step.identity) for step in instructions if isinstance(step, Finish)]
        self._finish(finished)
        if not self._closing:
            self._perform_all(step for step in instructions if not isinstance(step, Convert | Finish))
        else:
            for step in instructions:
                if isinstance(step, WriteCompanions):  # the other threads have ended
                    write_companions_of(step.job, step.output, self._roots_of(step.job))
        if finished:
            written = frozenset(str(report.job_id) for report, _ in finished)
            freed = self._service.handle(Written(written), clock.now())
            self._perform_all(freed if not self._closing else [])
        self._publish(sum(_arriving(event) for event in events if event is not None))
        return None not in events

    def _handle(self, event: Event) -> list[Instruction]:
        """Let the service take an event in; if it can't, that ends the job which the event is about, and no other."""
        try:
            return self._service.handle(event, clock.now())
        except Exception as error:
            job_id = getattr(event, "job_id", None)
            if job_id is None:
                raise
            _log.exception("the bookkeeping of a job failed", extra={"job_id": job_id})
            return self._service.abandon(job_id, f"{_OWN_FAULT} ({error!r})", clock.now())

    def _next_events(self) -> list[Event | None]:
        look = self._service.next_look
        patience = _IDLE_LOOK if look is None else min(max(look - time.monotonic(), 0.0), _IDLE_LOOK)
        try:
            first = self._inbox.get(timeout=patience)
        except queue.Empty:
            return [TimePassed()]
        events = [first]
        while not self._inbox.empty():
            events.append(self._inbox.get())
        return [*events, TimePassed()]

    def _finish(self, finished: list[tuple[FrameReport, tuple[int, int] | None]]) -> None:
        """Write reports to the ledger, in one transaction; one that can't be written keeps no other from it."""
        try:
            written = self._write(partial(self._ledger.finish, finished))
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a report holds, the others are written
            if len(finished) > 1:
                for one in finished:
                    self._finish([one])
                return
            report = finished[0][0]
            _log.exception("a report can't be written; its job is set aside", extra={"job_id": report.job_id})
            reason = f"its report can't be written: {_OWN_FAULT} ({type(error).__name__})"
            self._write(partial(self._ledger.set_aside, str(report.job_id), reason, clock.now().wall))
            return
        for report, _ in finished if written else ():
            log_finished(report)

    def _write(self, write: Callable[[], None]) -> bool:
        """Write to the ledger; wait for as long as its disk is full. Return whether it was done."""
        while True:
            try:
                write()
            except LedgerBusyError as error:
                if self._closing:  # those jobs are pending on the ledger, and taken up at the next start
                    _log.error("reports are lost at the end: %s", error)
                    return False
                if not self.fault:
                    _log.error("%s It is tried again.", error)
                self.fault = str(error)
                self._changed()
                time.sleep(_LEDGER_PAUSE)
            else:
                if self.fault:
                    _log.warning("the ledger can be written again")
                    self.fault = ""
                    self._changed()
                return True

    def _publish(self, arrived: int) -> None:
        snapshot = self._service.snapshot(clock.now())
        with self._numbers:
            changed = snapshot != self._snapshot
            self._snapshot = snapshot
            self._on_the_way -= arrived
        if changed:
            self._changed()

    def _perform_all(self, steps: Iterable[Instruction]) -> None:
        for step in steps:
            try:
                self._perform(step)
            except Exception as error:
                job = getattr(step, "job", None)
                if job is None:
                    raise
                if self._closing:  # threads and workers take nothing any more; the job is taken up at the next start
                    continue
                _log.exception("a step of a job failed", extra=about(job))
                self._inbox.put(AttemptFailed(job.job_id, "final", f"{_OWN_FAULT} ({error!r})"))

    def _perform(self, step: Instruction) -> None:
        match step:
            case Fetch(after, limit):
                self._inbox.put(self._ledger.fetch(after, limit))
            case Observe(job):
                look: Future[_Look] = self._observers.submit(self._look_at_source, job, self._roots_of(job))
                look.add_done_callback(partial(self._looked, job.job_id))
            case CarrySidecar(job, output):
                look = self._observers.submit(carry_sidecar_of, job, output, self._roots_of(job))
                look.add_done_callback(partial(self._looked, job.job_id))
            case WriteCompanions(job, output):
                self._observers.submit(write_companions_of, job, output, self._roots_of(job))
            case Convert(job) if trouble := self._mounts.last_trouble:
                self._inbox.put(AttemptFailed(job.job_id, "away", trouble))
            case Convert(job, attempt):
                _log.debug("attempt %d begins", attempt, extra=about(job))
                self._executor.start(_task(step, self._roots_of(job)), partial(self._attempted, job))
            case Cancel():
                self._cancel(step)
            case Finish():
                pass  # `_finish` writes them all together

    def _cancel(self, step: Cancel) -> None:
        question = self._questions.pop(step.ticket)
        try:
            cancelled = self._ledger.cancel(step.selection, step.spared, clock.now().wall)
        except LedgerError as error:
            self._inbox.put(Cancelled(0, frozenset()))
            question.set_exception(error)
            return
        _log.info("%d jobs were cancelled", len(cancelled))
        self._inbox.put(Cancelled(len(cancelled), cancelled))
        question.set_result(len(cancelled))

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
        self._leftovers.before_first_look(job, roots)
        look = observe_source(job, roots)
        if trouble := self._mounts.trouble_of(*roots.read):  # it went meanwhile: what was not there may be
            return AttemptFailed(job.job_id, "away", trouble)
        return look

    def _looked(self, job_id: str, look: Future[_Look]) -> None:
        if look.cancelled():
            return
        fault = look.exception()
        if fault is None:
            self._inbox.put(look.result())
            return
        _log.error("looking at its file failed in a way that it should not", exc_info=fault, extra={"job_id": job_id})
        self._inbox.put(AttemptFailed(job_id, "final", f"its file can't be examined: {_OWN_FAULT} ({fault!r})"))

    def _attempted(self, job: Job, result: Result) -> None:
        job_id, roots = job.job_id, self._roots_of(job)
        if trouble := self._mounts.trouble_of(*roots.read, *roots.write):
            self._inbox.put(AttemptFailed(job_id, "away", trouble))  # whatever it has written may lie below the mount
            return
        try:
            self._leftovers.after_attempt(job, result, roots)
        except Exception:  # noqa: BLE001 - the attempt counts all the same
            _log.exception("what an attempt has left can't be removed", extra=about(job))
        match result:
            case FrameReport():
                self._unavailable = ""
                self._inbox.put(AttemptDone(job_id, result))
            case Failure(kind, reason, trace):
                if trace:
                    _log.error("a conversion failed in a way that it should not:\n%s", trace, extra=about(job))
                if kind == "blocked":
                    _log.warning("tried again for a while: %s", reason, extra=about(job))
                self._inbox.put(AttemptFailed(job_id, kind, reason))
            case ExecutorUnavailableError():
                told, self._unavailable = str(result) == self._unavailable, str(result)
                _log.log(logging.DEBUG if told else logging.WARNING, "it waits: %s", result, extra=about(job))
                self._inbox.put(AttemptFailed(job_id, "unavailable", str(result)))
            case _:
                _log.warning("%s", result, extra=about(job))
                self._inbox.put(AttemptFailed(job_id, "crashed", str(result) or type(result).__name__))


def _arriving(event: Event) -> int:
    return event.count if isinstance(event, Accepted | FailuresRetried) else 0


def _task(step: Convert, roots: Roots) -> Task:
    """Return what a worker is to do, within the roots."""
    job = step.job
    return Task(
        job.source,
        job.output,
        job.recipe,
        roots,
        job.job_id,
        step.placeholder,
        step.reason,
        job=job.job_id,
        fields=job.fields,
    )
