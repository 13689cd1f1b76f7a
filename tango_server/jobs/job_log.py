"""Log messages about a job, and their fields."""

import logging
from typing import Any

from tango_server.jobs.job import Job
from tango_server.messages import FrameReport

_log = logging.getLogger(__name__)

_FIELDS = ("job_id", "run_uid", "seq_num", "source", "output", "outcome", "conversion_time", "latency")


def about(job: Job) -> dict[str, Any]:
    """Return the `extra` of log messages about `job`."""
    run_uid = job.request.run_uid
    return {"job_id": job.job_id} if run_uid is None else {"job_id": job.job_id, "run_uid": run_uid}


def log_finished(report: FrameReport) -> None:
    """Log the end of a job: failures and missing sidecars as warnings, others as information."""
    fields = {name: value for name in _FIELDS if (value := getattr(report, name)) is not None}
    if report.outcome == "failed":
        _log.warning("failed: %s", report.reason, extra=fields)
    elif report.outcome == "converted" and report.reason:
        _log.warning("converted: %s -> %s, but %s", report.source, report.output, report.reason, extra=fields)
    else:
        why = f" ({report.reason})" if report.reason else ""
        _log.info("%s: %s -> %s%s", report.outcome, report.source, report.output, why, extra=fields)
