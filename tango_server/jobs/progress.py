"""How far one job has come, and the reports that follow from it."""

from dataclasses import dataclass, field

from tango_server.jobs.readiness import Wait
from tango_server.jobs.vocabulary import Job, Reading
from tango_server.messages import FrameReport


@dataclass(slots=True)
class Progress:
    """A job between the ledger and its report. Instants by the monotonic clock, in s."""

    job: Job
    accepted: float
    wait: Wait = field(default_factory=Wait)
    complete_seen: float = 0.0
    starts: int = 0
    attempts: int = 0
    """Starts that count against the limit: not those that ended by no fault of the frame."""
    unfit: tuple[int, int, int] | None = None
    """Identity of the file that a conversion found incomplete although its structure is not."""
    unfit_reason: str = ""
    blocked_since: float | None = None
    """When its output, or then its sidecar, could not be written for the first time."""
    gave_up: str = ""
    """Why the file is no longer awaited; a placeholder is to take its place."""
    sidecar_expected: bool = False
    sidecar_deadline: float = 0.0
    report: FrameReport | None = None
    """The report of a converted frame that still waits for its sidecar."""

    @property
    def identity(self) -> tuple[int, int] | None:
        """Size (bytes) and modification time (ns) of the source as it was seen last."""
        return self.wait.identity[1:] if self.wait.identity else None

    def blocked_for(self, now: Reading) -> float:
        """Return for how long (s) the output can't be written; the first call is the beginning."""
        if self.blocked_since is None:
            self.blocked_since = now.monotonic
        return now.monotonic - self.blocked_since

    def completed(self, report: FrameReport, now: Reading) -> FrameReport:
        """Return a worker's report with what only the server knows."""
        job = self.job
        latency = now.monotonic - max(self.accepted, self.complete_seen) if report.outcome == "converted" else None
        return report.model_copy(
            update={
                "job_id": job.job_id,
                "latency": latency,
                "accepted": job.accepted,
                "finished": now.wall,
                "run_uid": job.run_uid,
                "stream": job.stream,
                "seq_num": job.seq_num,
            }
        )

    def failed(self, reason: str, now: Reading) -> FrameReport:
        """Return the report of a failure; the reason names the file."""
        source = str(self.job.source)
        return self.job.failed(reason if source in reason else f"{source}: {reason}", now.wall)
