"""Input and output of the state machine of the job service: events and instructions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tango_server.conversion.file_state import FileState
from tango_server.jobs.job import Job, Part
from tango_server.messages import FrameReport, Outcome

FailureKind = Literal["final", "not_ready", "blocked", "crashed", "unavailable", "away"]


@dataclass(frozen=True, slots=True)
class Instant:
    """One reading of the clocks: `monotonic` for durations, `wall` (Unix seconds) for timestamps."""

    monotonic: float
    wall: float


@dataclass(frozen=True, slots=True)
class Selection:
    """The jobs that a client has selected: by id, by run, or all (both None)."""

    job_ids: tuple[str, ...] | None = None
    run_uid: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """`count` jobs were added to the ledger: new, or left by an earlier server."""

    count: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """The next jobs of the ledger, up to the place `last`. The `unreadable` ones (ids) are left to another version."""

    jobs: tuple[Job, ...]
    unreadable: frozenset[str]
    last: int


@dataclass(frozen=True, slots=True)
class ObservedDark:
    """A check of a dark of the frame's run: `state`, `problem` and `lacks_sidecar` as those of a source."""

    path: Path
    state: FileState | None
    problem: str = ""
    lacks_sidecar: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """A check of a job's source; `state` is None if there is no file, `problem` says why it can't be read.

    `lacks_sidecar`: the conversion needs the frame's sidecar, which does not exist yet. `darks`: those of the frame's
    run that were to be checked; only if the source exists.
    """

    job_id: str
    state: FileState | None
    problem: str = ""
    lacks_sidecar: bool = False
    darks: tuple[ObservedDark, ...] = ()


@dataclass(frozen=True, slots=True)
class AttemptDone:
    """A worker has converted (or skipped) the frame."""

    job_id: str
    report: FrameReport


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """A worker has failed to convert the frame.

    `final`: the frame is at fault, retrying changes nothing. `not_ready`: the file is not, or no longer, complete.
    `blocked`: the output can't be written at the moment (full disk, read-only folder). `crashed`: the worker died or
    hung, perhaps because of the frame. `unavailable`: no worker is available. `away`: a file system is not mounted.
    The last two are not the fault of the frame. `members`: those of a group that failed, or are not ready, and why, by
    number.
    """

    job_id: str
    kind: FailureKind
    reason: str
    members: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expanded:
    """A file of several frames became `frames` jobs, one for each; none for `reason`."""

    job_id: str
    frames: int
    reason: str


@dataclass(frozen=True, slots=True)
class MemberEntry:
    """A member on the ledger; with its outcome and the reason, if it has ended already."""

    job: Job
    outcome: Outcome | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Assembled:
    """All members of a group that are on the ledger, in their order, without superseded ones."""

    job_id: str
    members: tuple[MemberEntry, ...]


@dataclass(frozen=True, slots=True)
class GroupsClosed:
    """The number of members of groups that are pending on the ledger, by id of the group."""

    members: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RunsAnnounced:
    """Sessions have said that these runs are open."""

    run_uids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Superseded:
    """These members were pending, and have ended on the ledger: a later frame took the place of each."""

    job_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Requeued:
    """These jobs of a group are at the end of the queue again: it has changed while it was converted."""

    job_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class SidecarObserved:
    """A check for the sidecar of a converted frame; if it exists, it was copied to the output.

    `problem`: why it can't be copied. `blocked`: it can't be written at the moment (full disk, read-only folder).
    """

    job_id: str
    carried: bool
    problem: str = ""
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """The reports of these jobs are on the ledger."""

    job_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Refused:
    """A request was refused; if it has a run, its report is already on the ledger."""

    report: FrameReport


@dataclass(frozen=True, slots=True)
class Ending:
    """The service is about to stop: report what is converted, with or without its sidecar."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Time has passed without another event."""


@dataclass(frozen=True, slots=True)
class StatisticsReset:
    """The counters are to be reset."""


@dataclass(frozen=True, slots=True)
class FailuresAcknowledged:
    """The failures so far were acknowledged."""


@dataclass(frozen=True, slots=True)
class FailuresRetried:
    """`count` failed jobs are pending on the ledger again."""

    count: int


@dataclass(frozen=True, slots=True)
class PauseWanted:
    """Conversions are to be paused (`paused`) or resumed."""

    paused: bool


@dataclass(frozen=True, slots=True)
class CancelWanted:
    """These jobs are to be cancelled; `ticket` identifies the call."""

    ticket: str
    selection: Selection


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The ledger has cancelled these jobs; `reports` is their number, `groups` that of whole groups among them."""

    reports: int
    job_ids: frozenset[str]
    groups: int = 0


Event = (
    Accepted
    | Fetched
    | Observed
    | AttemptDone
    | AttemptFailed
    | Expanded
    | Assembled
    | GroupsClosed
    | RunsAnnounced
    | Superseded
    | Requeued
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
    """Read at most `limit` jobs of the ledger after the place `after`; answer with `Fetched`."""

    after: int
    limit: int


@dataclass(frozen=True, slots=True)
class Observe:
    """Check a job's source and these darks of its run; answer with `Observed`."""

    job: Job
    darks: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Convert:
    """Give the job to a worker; answer with `AttemptDone` or `AttemptFailed`.

    With `placeholder` (rows, columns of the source), write a frame of zeros, because the file never arrived: `reason`.
    `proven`: inode, size and modification time of the source when it was checked. `members`: of a group, in their
    order.
    """

    job: Job
    attempt: int
    placeholder: tuple[int, int] | None = None
    reason: str = ""
    proven: tuple[int, int, int] | None = field(default=None, compare=False)
    members: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Assemble:
    """Read all members of a group from the ledger; answer with `Assembled`."""

    job: Job


@dataclass(frozen=True, slots=True)
class Expand:
    """Make one job for each of the `frames` of this job's file; answer with `Expanded` or `AttemptFailed`.

    `problem`: why it has none, or why some of them may not be there.
    """

    job: Job
    frames: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class CarrySidecar:
    """Copy the sidecar of a converted frame to its output if it exists; answer with `SidecarObserved`."""

    job: Job
    output: Path


@dataclass(frozen=True, slots=True)
class WriteCompanions:
    """Write the companion files for CrysAlis of the scan that this job's frame belongs to."""

    job: Job
    output: Path


@dataclass(frozen=True, slots=True)
class Finish:
    """Write the report to the ledger, with the size (bytes) and modification time (ns) of its source.

    That of a group together with those of its `members`, or not at all if it has changed meanwhile; answer with
    `Requeued` then.
    """

    report: FrameReport
    identity: tuple[int, int] | None = None
    members: tuple["Finish", ...] = ()


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel the selected jobs, except `spared`; answer the call, and with `Cancelled`."""

    ticket: str
    selection: Selection
    spared: frozenset[str]


Instruction = Fetch | Observe | Convert | Expand | Assemble | CarrySidecar | WriteCompanions | Finish | Cancel
