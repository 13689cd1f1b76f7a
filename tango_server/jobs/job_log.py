"""Log messages about jobs: one for each failure and each run, and at debug level one for each frame."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tango_server.jobs.job import Job
from tango_server.messages import FrameReport, Outcome

_log = logging.getLogger(__name__)

_FIELDS = ("job_id", "run_uid", "seq_num", "source", "output", "outcome", "conversion_time", "latency")
_WORDS: dict[Outcome, str] = {
    "converted": "converted", "skipped": "skipped", "placeholder": "placeholders", "failed": "failed",
    "grouped": "grouped", "superseded": "superseded",
}  # fmt: skip


def about(job: Job) -> dict[str, Any]:
    """Return the `extra` of log messages about `job`."""
    run_uid = job.request.run_uid
    return {"job_id": job.job_id} if run_uid is None else {"job_id": job.job_id, "run_uid": run_uid}


def log_finished(report: FrameReport) -> None:
    """Log the end of a job: failures and missing sidecars as warnings, others at debug level."""
    fields = {name: value for name in _FIELDS if (value := getattr(report, name)) is not None}
    if report.outcome == "failed":
        _log.warning("failed: %s", report.reason, extra=fields)
    elif report.outcome == "converted" and report.reason:
        _log.warning("converted: %s -> %s, but %s", report.source, report.output, report.reason, extra=fields)
    else:
        why = f" ({report.reason})" if report.reason else ""
        _log.debug("%s: %s -> %s%s", report.outcome, report.source, report.output, why, extra=fields)


@dataclass(slots=True)
class _Summary:
    first: float
    last: float
    outcomes: Counter[Outcome] = field(default_factory=Counter)


class RunSummaries:
    """Logs one line for each run when no report of it has come for `pause` seconds.

    Fed with reports and clock readings (monotonic, s).
    """

    def __init__(self, pause: float = 30.0) -> None:
        self._pause = pause
        self._runs: dict[str | None, _Summary] = {}

    def add(self, report: FrameReport, now: float) -> None:
        """Count a report."""
        summary = self._runs.setdefault(report.run_uid, _Summary(now, now))
        summary.last = now
        summary.outcomes[report.outcome] += 1

    @property
    def due(self) -> float | None:
        """When the next line is due, None if there is none to come."""
        return min((each.last + self._pause for each in self._runs.values()), default=None)

    def log_due(self, now: float) -> None:
        """Log the runs whose frames have paused."""
        for run_uid in [uid for uid, each in self._runs.items() if now >= each.last + self._pause]:
            self._log(run_uid)

    def log_all(self) -> None:
        """Log all runs, because the server ends."""
        for run_uid in list(self._runs):
            self._log(run_uid)

    def _log(self, run_uid: str | None) -> None:
        summary = self._runs.pop(run_uid)
        counts = ", ".join(f"{count} {_WORDS[outcome]}" for outcome, count in summary.outcomes.items())
        name, extra = ("frames without a run", {}) if run_uid is None else (f"run {run_uid}", {"run_uid": run_uid})
        _log.info("%s: %s in %.1f s", name, counts, summary.last - summary.first, extra=extra)
