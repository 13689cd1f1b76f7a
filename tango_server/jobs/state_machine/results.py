"""The reports that are not on the ledger yet, and the counters, which count only those that are."""

from collections.abc import Iterable, KeysView
from dataclasses import replace

from tango_server.jobs.job import Job
from tango_server.jobs.state_machine.corrections_in_use import CorrectionsLog
from tango_server.jobs.state_machine.events import (
    Cancelled,
    Event,
    FailuresAcknowledged,
    FailuresRetried,
    Finish,
    Instant,
    Refused,
    Requeued,
    StatisticsReset,
    Superseded,
    Written,
)
from tango_server.jobs.state_machine.snapshot import Snapshot
from tango_server.jobs.state_machine.statistics import Statistics
from tango_server.messages import FrameReport


class Results:
    """What became of jobs. A report counts when it is on the ledger."""

    def __init__(self) -> None:
        self._unwritten: dict[str, FrameReport] = {}
        self._statistics = Statistics()
        self._corrections = CorrectionsLog()

    def __len__(self) -> int:
        return len(self._unwritten)

    @property
    def unwritten(self) -> KeysView[str]:
        """The ids of the jobs whose reports are not on the ledger yet."""
        return self._unwritten.keys()

    def add(self, job: Job, step: Finish) -> None:
        """Note a report on its way to the ledger."""
        for each in (*step.members, step):
            self._unwritten[str(each.report.job_id)] = each.report
        if step.report.outcome == "converted":
            self._corrections.add(job, step.report)

    def note(self, event: Event, now: Instant) -> None:
        """Count what has happened on the ledger, or clear counters."""
        match event:
            case Written(job_ids):
                for report in self._take(job_ids):
                    self._statistics.add(report, now.monotonic)
            case Requeued(job_ids):
                self._take(job_ids)
            case Superseded(job_ids):
                self._statistics.count("superseded", len(job_ids))
            case Cancelled(reports, _, groups):
                self._statistics.count("skipped", reports - groups)
            case Refused(report):
                self._statistics.add(report, now.monotonic)
            case StatisticsReset():
                self._statistics = self._statistics.restarted()
            case FailuresAcknowledged():
                self._statistics.unacknowledged = 0
            case FailuresRetried():
                self._statistics.forget_failures()

    def snapshot(self, now: Instant, queue_length: int, running: int, *, paused: bool) -> Snapshot:
        """Return the counters."""
        snapshot = self._statistics.snapshot(now.monotonic, queue_length, running, paused=paused)
        return replace(snapshot, corrections=self._corrections.in_use)

    def _take(self, job_ids: Iterable[str]) -> list[FrameReport]:
        return [self._unwritten.pop(each) for each in [each for each in self._unwritten if each in set(job_ids)]]
