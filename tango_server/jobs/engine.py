"""The one thread of the job service: it feeds the state machine with events, and has done what that asks for."""

import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace

from tango_server.conversion.files.roots import Roots
from tango_server.jobs import clock
from tango_server.jobs.dispatch import OWN_FAULT, Dispatcher
from tango_server.jobs.executors.base import Executor
from tango_server.jobs.job_log import about
from tango_server.jobs.ledger.database import LedgerError
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.mounts import Mounts
from tango_server.jobs.report_writer import ReportWriter
from tango_server.jobs.state_machine.events import (
    Accepted,
    AttemptFailed,
    Cancel,
    Cancelled,
    CancelWanted,
    Ending,
    Event,
    FailuresRetried,
    Fetch,
    Finish,
    Instruction,
    Selection,
    Snapshot,
    TimePassed,
    WriteCompanions,
)
from tango_server.jobs.state_machine.machine import JobStateMachine
from tango_server.messages import AwaitedFrame

_log = logging.getLogger(__name__)

_IDLE_LOOK = 1.0  # rates fall with time, so the numbers are renewed even if nothing happens


class Engine:
    """The thread of a running service. `changed` is called, from it, when the numbers have changed."""

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
        self._ledger = ledger
        self._changed = changed
        self._inbox: queue.Queue[Event | None] = queue.Queue()  # a SimpleQueue may wait for ever at a tiny time-out
        self._dispatcher = Dispatcher(executor, roots=roots, mounts=mounts, post=self._inbox.put)
        self._reports = ReportWriter(ledger, written=self._inbox.put, changed=changed)
        self._questions: dict[str, Future[int]] = {}
        self._handling = threading.Lock()
        """Held while the service takes events in, and while its numbers are read."""
        self._on_the_way = 0  # jobs that are accepted and did not reach the service yet
        self._closing = False
        self._stopped = ""
        self._thread = threading.Thread(target=self._loop, name="petif-jobs", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._reports.start()
        self._thread.start()

    @property
    def fault(self) -> str:
        """Why nothing can be converted at present; empty: nothing is wrong."""
        return self._stopped or self._reports.fault

    @property
    def snapshot(self) -> Snapshot:
        """The numbers now; a job counts from the moment that its acceptance was answered."""
        with self._handling:
            now = self._service.snapshot(clock.now())
            return replace(now, queue_length=now.queue_length + self._on_the_way)

    def awaited(self, job_ids: Iterable[str]) -> list[AwaitedFrame]:
        """Return those of these jobs whose files are not complete yet."""
        with self._handling:
            return self._service.awaited(job_ids, clock.now().monotonic)

    def post(self, event: Event) -> None:
        """Hand an event to the service."""
        with self._handling:
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
        self._reports.closing()
        self._dispatcher.close(patience)
        self._inbox.put(Ending())
        self._inbox.put(None)
        self._thread.join(patience)
        self._reports.close(patience)
        self._dispatcher.clean_up(self._service.running_jobs())

    def _loop(self) -> None:
        try:
            while self._step():
                pass
        except Exception as error:  # noqa: BLE001 - the boundary of the thread that everything else depends on
            _log.exception("the job service stopped")
            self._stopped = f"the job service stopped: {error}. Look into the log, mend it, then call Init."
            self._changed()

    def _step(self) -> bool:
        """Take in what has happened and act on it; return whether to go on."""
        events = self._next_events()
        with self._handling:
            steps = [step for event in events if event is not None for step in self._handle(event)]
            self._on_the_way -= sum(_arriving(event) for event in events if event is not None)
        for step in steps:
            self._attempt(step)
        self._changed()
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
            return self._service.abandon(job_id, f"{OWN_FAULT} ({error!r})", clock.now())

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

    def _attempt(self, step: Instruction) -> None:
        """Do one step; if that fails, it ends the job which the step is about, and no other."""
        try:
            self._perform(step)
        except Exception as error:
            job = getattr(step, "job", None)
            if job is None:
                raise
            if not self._closing:
                _log.exception("a step of a job failed", extra=about(job))
                self._inbox.put(AttemptFailed(job.job_id, "final", f"{OWN_FAULT} ({error!r})"))

    def _perform(self, step: Instruction) -> None:
        match step:
            case Finish():
                self._reports.put(step)
            case WriteCompanions() if self._closing:  # the other threads have ended
                self._dispatcher.write_companions(step)
            case _ if self._closing:
                pass  # the next server does it
            case Fetch(after, limit):
                self._inbox.put(self._ledger.fetch(after, limit))
            case Cancel():
                self._cancel(step)
            case _:
                self._dispatcher.dispatch(step)

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


def _arriving(event: Event) -> int:
    return event.count if isinstance(event, Accepted | FailuresRetried) else 0
