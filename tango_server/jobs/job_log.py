"""What the log says of a job's life, and which fields its lines carry."""

import logging
from typing import Any

from tango_server.jobs.state_machine.events import Job
from tango_server.messages import FrameReport

_log = logging.getLogger(__name__)

_FIELDS = ("job_id", "run_uid", "seq_num", "source", "output", "outcome", "conversion_time", "latency")


def about(job: Job) -> dict[str, Any]:
    """Return the `extra` of every message about `job`."""
    return _known(job, ("job_id", "run_uid"))


def log_finished(report: FrameReport) -> None:
    """Log the end of a job: a failure, or a sidecar that was left behind, as a warning, the rest as information."""
    fields = _known(report, _FIELDS)
    if report.outcome == "failed":
        _log.warning("failed: %s", report.reason, extra=fields)
    elif report.outcome == "converted" and report.reason:
        _log.warning("converted: %s -> %s, but %s", report.source, report.output, report.reason, extra=fields)
    else:
        why = f" ({report.reason})" if report.reason else ""
        _log.info("%s: %s -> %s%s", report.outcome, report.source, report.output, why, extra=fields)


def _known(thing: Job | FrameReport, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(thing, name)) is not None}
