"""The thread that writes reports to the ledger, so that neither workers nor the engine wait for the disk."""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from functools import partial

from tango_server.jobs import clock
from tango_server.jobs.dispatch import INTERNAL_ERROR
from tango_server.jobs.job_log import RunSummaries, log_finished
from tango_server.jobs.ledger.database import LedgerBusyError, LedgerError
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.state_machine.events import Finish, Requeued, Written

_log = logging.getLogger(__name__)

_MOST_UNWRITTEN = 256
"""Reports that may wait for the disk; beyond that, conversions wait, too."""
_RETRY_INTERVAL = 0.5


class ReportWriter:
    """Writes all reports that arrive during one commit in the next transaction.

    Parameters
    ----------
    ledger: receives the reports
    written: called from the thread with the jobs whose reports are durable, and with those of groups that have changed
    changed: called from the thread when `fault` has changed

    """

    def __init__(
        self, ledger: Ledger, *, written: Callable[[Written | Requeued], None], changed: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._written = written
        self._changed = changed
        self._reports: queue.Queue[Finish | None] = queue.Queue(_MOST_UNWRITTEN)
        self._summaries = RunSummaries()
        self._closing = threading.Event()
        self.fault = ""
        """Why reports can't be written, so that nothing is converted; empty if they can."""
        self._thread = threading.Thread(target=self._run, name="petif-reports", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, step: Finish) -> None:
        """Queue a report; block if many are already waiting for the disk."""
        while True:
            try:
                self._reports.put(step, timeout=_RETRY_INTERVAL)
            except queue.Full:
                if self._closing.is_set():  # its job is still pending on the ledger, and runs again at the next start
                    return
            else:
                return

    def closing(self) -> None:
        """Stop waiting for a full disk."""
        self._closing.set()

    def close(self, timeout: float) -> None:
        """Write the queued reports and stop; reports that can't be written are lost, and their jobs run again."""
        self.closing()
        with contextlib.suppress(queue.Full):  # the thread has stopped with a fault
            self._reports.put(None, timeout=timeout)
        self._thread.join(timeout)

    def _run(self) -> None:
        running = True
        while running:
            batch = self._next()
            finished = [step for step in batch if step is not None]
            running = len(finished) == len(batch)
            try:
                if finished and (requeued := self._finish(finished)) is not None:
                    job_ids = {str(one.report.job_id) for step in finished for one in (step, *step.members)}
                    self._written(Written(frozenset(job_ids) - requeued))
                    if requeued:
                        self._written(Requeued(requeued))
            except Exception as error:  # noqa: BLE001 - thread boundary: everything else depends on this thread
                _log.exception("Cannot write reports")
                self._set_fault(f"Cannot write reports: {error}. Check the log, fix the cause, then call Init.")
                return
        self._summaries.log_all()

    def _next(self) -> list[Finish | None]:
        """Return the reports that have come; none if it is time for the summary of a run."""
        due = self._summaries.due
        try:
            batch = [self._reports.get(timeout=None if due is None else max(due - clock.now().monotonic, 0.0))]
        except queue.Empty:
            self._summaries.log_due(clock.now().monotonic)
            return []
        while not self._reports.empty():
            batch.append(self._reports.get())
        return batch

    def _finish(self, finished: list[Finish]) -> frozenset[str] | None:
        """Write reports in one transaction; an invalid one doesn't block the others.

        Return the jobs of groups that have changed; None if nothing was written.
        """
        try:
            requeued = self._write(partial(self._ledger.finish, finished))
            if requeued is None:
                return None
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001 - an invalid report must not block the others
            if len(finished) > 1:
                found = [self._finish([one]) for one in finished]
                return None if None in found else frozenset[str]().union(*filter(None, found))
            report = finished[0].report
            _log.exception("Cannot write a report; its job is marked as failed", extra={"job_id": report.job_id})
            reason = f"cannot write the report: {INTERNAL_ERROR} ({type(error).__name__})"
            set_aside = partial(self._ledger.set_aside, str(report.job_id), reason, clock.now().wall)
            return self._write(set_aside)
        for step in finished:
            if str(step.report.job_id) in requeued:
                continue
            log_finished(step.report)
            for one in step.members or (step,):
                self._summaries.add(one.report, clock.now().monotonic)
        return requeued

    def _write(self, write: Callable[[], frozenset[str]]) -> frozenset[str] | None:
        """Write to the ledger; retry while its disk is full. Return what `write` does, None if it was not done."""
        while True:
            try:
                done = write()
            except LedgerBusyError as error:
                if self._closing.is_set():
                    _log.error("Reports are lost at shutdown: %s", error)
                    return None
                if not self.fault:
                    _log.error("%s Retrying.", error)
                self._set_fault(str(error))
                self._closing.wait(_RETRY_INTERVAL)
            else:
                if self.fault:
                    _log.warning("The ledger can be written again")
                    self._set_fault("")
                return done

    def _set_fault(self, fault: str) -> None:
        self.fault = fault
        self._changed()
