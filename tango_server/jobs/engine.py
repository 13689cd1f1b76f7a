"""The thread of the job service: feeds events to the state machine and carries out its instructions."""

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
from tango_server.jobs.dispatch import INTERNAL_ERROR, Dispatcher
from tango_server.jobs.executors.base import Executor
from tango_server.jobs.expansion import Expander
from tango_server.jobs.job_log import about
from tango_server.jobs.ledger.database import LedgerError
from tango_server.jobs.ledger.groups import is_group_id
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.mounts import Mounts
from tango_server.jobs.report_writer import ReportWriter
from tango_server.jobs.state_machine.events import (
    Accepted,
    Assemble,
    AttemptFailed,
    Cancel,
    Cancelled,
    CancelWanted,
    Ending,
    Event,
    Expand,
    FailuresRetried,
    Fetch,
    Finish,
    Instruction,
    Selection,
    TimePassed,
    WriteCompanions,
)
from tango_server.jobs.state_machine.machine import JobStateMachine
from tango_server.jobs.state_machine.snapshot import Snapshot
from tango_server.messages import AwaitedFrame

_log = logging.getLogger(__name__)

_IDLE_INTERVAL = 1.0  # s; rates fall with time, so the numbers are updated even without events


class Engine:
    """The thread of a running service. `changed` is called from it when the numbers have changed."""

    def __init__(
        self,
        service: JobStateMachine,
        ledger: Ledger,
        executor: Executor,
        *,
        roots: Callable[[], Roots],
        mounts: Mounts,
        lambda_modules: int | None = None,
        expander: Expander,
        changed: Callable[[], None],
    ) -> None:
        self._service = service
        self._ledger = ledger
        self._expander = expander
        self._changed = changed
        self._inbox: queue.Queue[Event | None] = queue.Queue()  # a SimpleQueue may block for ever with a tiny time-out
        self._dispatcher = Dispatcher(
            executor, roots=roots, mounts=mounts, lambda_modules=lambda_modules, post=self._inbox.put
        )
        self._reports = ReportWriter(ledger, written=self._inbox.put, changed=changed)
        self._pending_cancels: dict[str, Future[int]] = {}
        self._handling = threading.Lock()
        """Held while the service handles events, and while its numbers are read."""
        self._in_transit = 0  # jobs accepted, but not yet seen by the service
        self._closing = False
        self._stopped = ""
        self._thread = threading.Thread(target=self._loop, name="petif-jobs", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        self._reports.start()
        self._thread.start()

    @property
    def fault(self) -> str:
        """Why nothing can be converted; empty if all is well."""
        return self._stopped or self._reports.fault

    @property
    def snapshot(self) -> Snapshot:
        """The current numbers; a job counts from the moment that it was accepted."""
        with self._handling:
            now = self._service.snapshot(clock.now())
            return replace(now, queue_length=now.queue_length + self._in_transit)

    def awaited(self, job_ids: Iterable[str]) -> list[AwaitedFrame]:
        """Return those of these jobs whose files are not complete yet."""
        with self._handling:
            return self._service.awaited(job_ids, clock.now().monotonic)

    def post(self, event: Event) -> None:
        """Post an event to the service."""
        with self._handling:
            self._in_transit += _arriving(event)
        self._inbox.put(event)

    def cancel(self, selection: Selection, timeout: float) -> int:
        """Cancel the selected jobs that are not being converted; return their number.

        Raises
        ------
        TimeoutError
            if it takes longer than `timeout` seconds; the jobs are cancelled nevertheless.
        LedgerBusyError
            if the ledger can't be written; then no job is cancelled.
        """
        ticket = secrets.token_hex(8)
        answer: Future[int] = Future()
        self._pending_cancels[ticket] = answer
        self.post(CancelWanted(ticket, selection))
        return answer.result(timeout)

    def close(self, timeout: float) -> None:
        """Let running conversions finish and be reported, then stop the threads and the workers."""
        self._closing = True
        self._expander.close(timeout)
        self._reports.closing()
        self._dispatcher.close(timeout)
        self._inbox.put(Ending())
        self._inbox.put(None)
        self._thread.join(timeout)
        self._reports.close(timeout)
        self._dispatcher.clean_up(self._service.running_jobs())

    def _loop(self) -> None:
        try:
            while self._step():
                pass
        except Exception as error:  # noqa: BLE001 - thread boundary: everything else depends on this thread
            _log.exception("The job service stopped")
            self._stopped = f"The job service stopped: {error}. Check the log, fix the cause, then call Init."
            self._changed()

    def _step(self) -> bool:
        """Handle the events that have arrived; return whether to continue."""
        events = self._next_events()
        with self._handling:
            steps = [step for event in events if event is not None for step in self._handle(event)]
            self._in_transit -= sum(_arriving(event) for event in events if event is not None)
        for step in steps:
            self._attempt(step)
        self._changed()
        return None not in events

    def _handle(self, event: Event) -> list[Instruction]:
        """Pass an event to the service; an error ends only the job of that event."""
        try:
            return self._service.handle(event, clock.now())
        except Exception as error:
            job_id = getattr(event, "job_id", None)
            if job_id is None:
                raise
            _log.exception("Unexpected error in the state of a job", extra={"job_id": job_id})
            return self._service.abandon(job_id, f"{INTERNAL_ERROR} ({error!r})", clock.now())

    def _next_events(self) -> list[Event | None]:
        due = self._service.next_poll
        timeout = _IDLE_INTERVAL if due is None else min(max(due - time.monotonic(), 0.0), _IDLE_INTERVAL)
        try:
            first = self._inbox.get(timeout=timeout)
        except queue.Empty:
            return [TimePassed()]
        events = [first]
        while not self._inbox.empty():
            events.append(self._inbox.get())
        return [*events, TimePassed()]

    def _attempt(self, step: Instruction) -> None:
        """Carry out one step; an error ends only the job of that step."""
        try:
            self._perform(step)
        except Exception as error:
            job = getattr(step, "job", None)
            if job is None:
                raise
            if not self._closing:
                _log.exception("Unexpected error in a step of a job", extra=about(job))
                self._inbox.put(AttemptFailed(job.job_id, "final", f"{INTERNAL_ERROR} ({error!r})"))

    def _perform(self, step: Instruction) -> None:
        match step:
            case Finish():
                self._reports.put(step)
            case WriteCompanions() if self._closing:  # the other threads have stopped
                self._dispatcher.write_companions(step)
            case _ if self._closing:
                pass  # left to the next server
            case Fetch(after, limit):
                self._inbox.put(self._ledger.fetch(after, limit))
            case Assemble(job):
                self._inbox.put(self._ledger.members_of(job))
            case Expand():
                self._expander.start(step)
            case Cancel():
                self._cancel(step)
            case _:
                self._dispatcher.dispatch(step)

    def _cancel(self, step: Cancel) -> None:
        answer = self._pending_cancels.pop(step.ticket)
        try:
            cancelled = self._expander.cancel(
                lambda: self._ledger.cancel(step.selection, step.spared, clock.now().wall)
            )
        except LedgerError as error:
            self._inbox.put(Cancelled(0, frozenset()))
            answer.set_exception(error)
            return
        groups = sum(map(is_group_id, cancelled))
        _log.info("cancelled %d jobs", len(cancelled) - groups)
        self._inbox.put(Cancelled(len(cancelled), cancelled, groups))
        answer.set_result(len(cancelled) - groups)


def _arriving(event: Event) -> int:
    match event:
        case Accepted(count) | FailuresRetried(count):
            return count
    return 0
