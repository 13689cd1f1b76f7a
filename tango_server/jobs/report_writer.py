"""The thread that writes reports to the ledger, so that neither workers nor the engine wait for its disk."""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from functools import partial

from tango_server.jobs import clock
from tango_server.jobs.dispatch import OWN_FAULT
from tango_server.jobs.job_log import RunSummaries, log_finished
from tango_server.jobs.ledger.database import LedgerBusyError, LedgerError
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.state_machine.events import Finish, Written

_log = logging.getLogger(__name__)

_MOST_UNWRITTEN = 256
"""Reports that may wait for the disk; the conversions whose reports come then wait with them."""
_PAUSE = 0.5


class ReportWriter:
    """All reports that came while one transaction was committed are in the next.

    Parameters
    ----------
    ledger: takes the reports
    written: called, from the thread, with the jobs whose reports are durable
    changed: called, from the thread, when `fault` has changed

    """

    def __init__(self, ledger: Ledger, *, written: Callable[[Written], None], changed: Callable[[], None]) -> None:
        self._ledger = ledger
        self._written = written
        self._changed = changed
        self._reports: queue.Queue[Finish | None] = queue.Queue(_MOST_UNWRITTEN)
        self._summaries = RunSummaries()
        self._closing = threading.Event()
        self.fault = ""
        """Why reports can't be written at present, so that nothing is converted; empty: they can."""
        self._thread = threading.Thread(target=self._run, name="petif-reports", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, step: Finish) -> None:
        """Have a report written; wait if many are waiting for a disk that takes none."""
        while True:
            try:
                self._reports.put(step, timeout=_PAUSE)
            except queue.Full:
                if self._closing.is_set():  # its job is pending on the ledger, and taken up at the next start
                    return
            else:
                return

    def closing(self) -> None:
        """Wait for no disk that is full any more."""
        self._closing.set()

    def close(self, patience: float) -> None:
        """Write what there is and end; reports that the disk refuses are lost, and their jobs taken up again."""
        self.closing()
        with contextlib.suppress(queue.Full):  # the thread has ended with a fault
            self._reports.put(None, timeout=patience)
        self._thread.join(patience)

    def _run(self) -> None:
        going_on = True
        while going_on:
            batch = self._next()
            finished = [step for step in batch if step is not None]
            going_on = len(finished) == len(batch)
            try:
                if finished and self._finish(finished):
                    self._written(Written(frozenset(str(step.report.job_id) for step in finished)))
            except Exception as error:  # noqa: BLE001 - the boundary of the thread that everything else depends on
                _log.exception("reports can't be written")
                self._say(f"reports can't be written: {error}. Check the log, fix the cause, then call Init.")
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

    def _finish(self, finished: list[Finish]) -> bool:
        """Write reports in one transaction, and return whether that was done; a bad one keeps no other from it."""
        try:
            if not self._write(partial(self._ledger.finish, finished)):
                return False
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a report holds, the others are written
            if len(finished) > 1:
                one_by_one = [self._finish([one]) for one in finished]
                return all(one_by_one)
            report = finished[0].report
            _log.exception("a report can't be written; its job is set aside", extra={"job_id": report.job_id})
            reason = f"its report can't be written: {OWN_FAULT} ({type(error).__name__})"
            return self._write(partial(self._ledger.set_aside, str(report.job_id), reason, clock.now().wall))
        for step in finished:
            log_finished(step.report)
            self._summaries.add(step.report, clock.now().monotonic)
        return True

    def _write(self, write: Callable[[], None]) -> bool:
        """Write to the ledger; wait for as long as its disk is full. Return whether it was done."""
        while True:
            try:
                write()
            except LedgerBusyError as error:
                if self._closing.is_set():
                    _log.error("reports are lost at the end: %s", error)
                    return False
                if not self.fault:
                    _log.error("%s It is tried again.", error)
                self._say(str(error))
                self._closing.wait(_PAUSE)
            else:
                if self.fault:
                    _log.warning("the ledger can be written again")
                    self._say("")
                return True

    def _say(self, fault: str) -> None:
        self.fault = fault
        self._changed()
