"""What goes into the state machine of the job service and comes out of it: events and instructions."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tango_server.conversion.tiff.structure import Structure
from tango_server.jobs.job import Job
from tango_server.messages import FrameReport

FailureKind = Literal["final", "not_ready", "blocked", "crashed", "unavailable", "away"]


@dataclass(frozen=True, slots=True)
class Instant:
    """One look at the clocks: `monotonic` for durations, `wall` (Unix seconds) for instants that people read."""

    monotonic: float
    wall: float


@dataclass(frozen=True, slots=True)
class Selection:
    """The jobs that a client means: those with these ids, those of a run, or all (both None)."""

    job_ids: tuple[str, ...] | None = None
    run_uid: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """So many jobs are on the ledger, new, retried, or left by an earlier server."""

    count: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """The next jobs of the ledger up to the place `last`. The `unreadable` ones (ids) are left to another version."""

    jobs: tuple[Job, ...]
    unreadable: frozenset[str]
    last: int


@dataclass(frozen=True, slots=True)
class Observed:
    """A look at a job's source; `structure` is None if there is no file, `trouble` tells of one that can't be read.

    `lacks_sidecar`: the conversion needs what only the frame's sidecar can tell, and that is not there yet.
    """

    job_id: str
    structure: Structure | None
    trouble: str = ""
    lacks_sidecar: bool = False


@dataclass(frozen=True, slots=True)
class AttemptDone:
    """A worker has converted (or skipped) the frame."""

    job_id: str
    report: FrameReport


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """A worker could not.

    `final`: the frame is at fault, trying again changes nothing. `not_ready`: the file is not, or no longer, complete.
    `blocked`: the output can't be written at present (full disk, read-only folder). `crashed`: the worker died or hung,
    the frame may be innocent. `unavailable`: nobody can convert at present, the frame is innocent.
    """

    job_id: str
    kind: FailureKind
    reason: str


@dataclass(frozen=True, slots=True)
class SidecarObserved:
    """A look at whether the sidecar of a converted frame has come; if so, it was carried to the output.

    `trouble`: it has, and can't be carried. `blocked`: since it can't be written at present (full disk, read-only
    folder).
    """

    job_id: str
    carried: bool
    trouble: str = ""
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """The reports of these jobs stand on the ledger."""

    job_ids: frozenset[str]


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


@dataclass(frozen=True, slots=True)
class FailuresRetried:
    """So many failed jobs are on the ledger again as pending ones."""

    count: int


@dataclass(frozen=True, slots=True)
class PauseWanted:
    """Somebody wants no conversion to start any more (`paused`), or to go on."""

    paused: bool


@dataclass(frozen=True, slots=True)
class CancelWanted:
    """Somebody does not want these jobs any more; `ticket` names the question."""

    ticket: str
    selection: Selection


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The ledger has given these jobs a report that says so."""

    reports: int
    job_ids: frozenset[str]


Event = (
    Accepted
    | Fetched
    | Observed
    | AttemptDone
    | AttemptFailed
    | SidecarObserved
    | Written
    | Refused
    | Ending
    | TimePassed
    | StatisticsReset
    | FailuresAcknowledged
    | FailuresRetried
    | PauseWanted
    | CancelWanted
    | Cancelled
)


@dataclass(frozen=True, slots=True)
class Fetch:
    """Read the next jobs of the ledger, at most `limit` of those behind the place `after`; answer with `Fetched`."""

    after: int
    limit: int


@dataclass(frozen=True, slots=True)
class Observe:
    """Look at a job's source and answer with `Observed`."""

    job: Job


@dataclass(frozen=True, slots=True)
class Convert:
    """Give the job to a worker and answer with `AttemptDone` or `AttemptFailed`.

    With `placeholder` (rows, columns of the source) a frame of zeros is wanted, since the file never came: `reason`.
    """

    job: Job
    attempt: int
    placeholder: tuple[int, int] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CarrySidecar:
    """Carry the sidecar of a converted frame to its output if it is there; answer with `SidecarObserved`."""

    job: Job
    output: Path


@dataclass(frozen=True, slots=True)
class WriteCompanions:
    """Write what CrysAlis wants beside the frames of a scan, of which this job's is one."""

    job: Job
    output: Path


@dataclass(frozen=True, slots=True)
class Finish:
    """Write the report to the ledger, with the size (bytes) and modification time (ns) of the source it is about."""

    report: FrameReport
    identity: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Give the selected jobs, but none of `spared`, their reports; answer the question and with `Cancelled`."""

    ticket: str
    selection: Selection
    spared: frozenset[str]


Instruction = Fetch | Observe | Convert | CarrySidecar | WriteCompanions | Finish | Cancel


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The numbers of the service at one instant. Times in s, sizes in bytes.

    `gathering` are the files found so far in a folder that is gone through. `alarms` and `warning` are in words.
    """

    processed: int = 0
    converted: int = 0
    skipped: int = 0
    placeholders: int = 0
    failed: int = 0
    queue_length: int = 0
    running: int = 0
    paused: bool = False
    conversion_time_total: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    frames_per_second: float = 0.0
    bytes_per_second: float = 0.0
    latency_median: float = 0.0
    latency_p95: float = 0.0
    last_source: str = ""
    last_output: str = ""
    last_error: str = ""
    failed_files: tuple[str, ...] = field(default=())
    unacknowledged: int = 0
    gathering: int = 0
    free_space: int | None = None
    alarms: tuple[str, ...] = ()
    warning: str = ""

    @property
    def conversion_time_mean(self) -> float:
        """Mean conversion time of the converted frames in s, 0 if there are none."""
        return self.conversion_time_total / self.converted if self.converted else 0.0
