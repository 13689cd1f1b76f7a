"""The words that the parts of the job service speak: jobs, events in, instructions out. No I/O, no threads."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tango_server.conversion.structure import Structure
from tango_server.messages import FrameReport
from tango_server.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the clocks: `monotonic` for durations, `wall` (Unix seconds) for instants that people read."""

    monotonic: float
    wall: float


@dataclass(frozen=True, slots=True)
class Job:
    """A request that is on the ledger. `source` and `output` are resolved; `accepted` is in Unix seconds."""

    job_id: str
    source: Path
    output: Path
    recipe: Recipe
    accepted: float
    run_uid: str | None = None
    stream: str | None = None
    seq_num: int | None = None

    def failed(self, reason: str, finished: float) -> FrameReport:
        """Return the report of this job's failure at `finished` (Unix seconds)."""
        return FrameReport(
            job_id=self.job_id,
            source=str(self.source),
            outcome="failed",
            reason=reason,
            accepted=self.accepted,
            finished=finished,
            recipe_hash=self.recipe.hash,
            run_uid=self.run_uid,
            stream=self.stream,
            seq_num=self.seq_num,
        )


@dataclass(frozen=True, slots=True)
class Accepted:
    """These jobs are on the ledger, new or taken up again after a restart."""

    jobs: tuple[Job, ...]


@dataclass(frozen=True, slots=True)
class Observed:
    """A look at a job's source; `structure` is None if there is no file, `trouble` tells of one that can't be read."""

    job_id: str
    structure: Structure | None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class AttemptDone:
    """A worker has converted (or skipped) the frame."""

    job_id: str
    report: FrameReport


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """A worker could not.

    `final`: the frame is at fault, trying again changes nothing. `not_ready`: the file is not, or no longer, complete.
    `crashed`: the worker died or hung, the frame may be innocent.
    """

    job_id: str
    kind: Literal["final", "not_ready", "crashed"]
    reason: str


@dataclass(frozen=True, slots=True)
class SidecarLooked:
    """A look at whether the sidecar of a converted frame has come; if so, it was carried to the output."""

    job_id: str
    carried: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """A request of a run that can't be done as it stands; its report is on the ledger already."""

    report: FrameReport


@dataclass(frozen=True, slots=True)
class Ending:
    """The service is about to end: what is converted is to be reported, with or without its sidecar."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Nothing happened but time."""


@dataclass(frozen=True, slots=True)
class StatisticsReset:
    """Somebody asked for the counters to start from zero."""


@dataclass(frozen=True, slots=True)
class FailuresAcknowledged:
    """Somebody has seen the failures so far."""


Event = (
    Accepted
    | Observed
    | AttemptDone
    | AttemptFailed
    | SidecarLooked
    | Refused
    | Ending
    | TimePassed
    | StatisticsReset
    | FailuresAcknowledged
)


@dataclass(frozen=True, slots=True)
class Observe:
    """Look at a job's source and answer with `Observed`."""

    job_id: str
    source: Path


@dataclass(frozen=True, slots=True)
class Convert:
    """Give the job to a worker and answer with `AttemptDone` or `AttemptFailed`."""

    job: Job
    attempt: int


@dataclass(frozen=True, slots=True)
class CarrySidecar:
    """Carry the sidecar of a converted frame to its output if it is there; answer with `SidecarLooked`."""

    job: Job
    output: Path


@dataclass(frozen=True, slots=True)
class Finish:
    """Write the report to the ledger."""

    report: FrameReport


Instruction = Observe | Convert | CarrySidecar | Finish


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The numbers of the service at one instant. Times in s."""

    processed: int = 0
    converted: int = 0
    skipped: int = 0
    placeholders: int = 0
    failed: int = 0
    queue_length: int = 0
    running: int = 0
    conversion_time_total: float = 0.0
    frames_per_second: float = 0.0
    latency_median: float = 0.0
    latency_p95: float = 0.0
    last_source: str = ""
    last_output: str = ""
    last_error: str = ""
    failed_files: tuple[str, ...] = field(default=())
    unacknowledged: int = 0

    @property
    def conversion_time_mean(self) -> float:
        """Mean conversion time of the converted frames in s, 0 if there are none."""
        return self.conversion_time_total / self.converted if self.converted else 0.0
