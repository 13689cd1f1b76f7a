"""The wire contract: the JSON messages over Tango, in both directions.

Times are in seconds, instants in Unix seconds. Unknown keys are errors in requests, and ignored in answers.
"""

import json
import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tango_server.limits import (
    DEEPEST,
    LARGEST_METADATA,
    LONGEST_ID,
    LONGEST_KEY,
    LONGEST_SOURCE,
    MOST_AXES,
    MOST_COUNTS,
    MOST_JOB_IDS,
    MOST_LISTED,
    MOST_LOOKED_FOR,
    MOST_MEMBERS,
    MOST_POINTS,
    MOST_REPORTS,
    MOST_REQUESTS,
    MOST_STREAMS,
)
from tango_server.recipe import RecipeField
from tango_server.recipe.corrections import Kind
from tango_server.text import LONGEST_MESSAGE, printable


def _shown(value: object) -> object:
    return printable(value, LONGEST_SOURCE + LONGEST_MESSAGE) if isinstance(value, str) else value


Shown = Annotated[str, BeforeValidator(_shown)]
"""Text from files and their names, made printable for all receivers of a report."""
Outcome = Literal["converted", "skipped", "placeholder", "failed", "grouped", "superseded"]
"""`grouped`: the frame became part of another output; `superseded`: a later frame of the same point took its place."""
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_ID)]


def _bounded(metadata: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [metadata]
    for depth in range(DEEPEST + 1):
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        if not inner:
            break
        if depth == DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} levels deep")
        level = [value for values in inner for value in values]
    size = len(json.dumps(metadata, default=str))
    if size > LARGEST_METADATA:
        raise ValueError(f"{size} bytes of JSON (at most {LARGEST_METADATA})")
    return metadata


Metadata = Annotated[dict[str, Any], AfterValidator(_bounded)]


def _few_counts(counts: "RunCounts") -> "RunCounts":
    total = sum(map(len, counts.values()))
    if total > MOST_COUNTS:
        raise ValueError(f"{total} streams (at most {MOST_COUNTS})")
    return counts


Count = Annotated[int, Field(ge=0, lt=2**63)]
StreamCounts = Annotated[dict[Name, tuple[Count, Count]], Field(max_length=MOST_STREAMS)]
RunCounts = dict[Name, StreamCounts]
"""By run uid and stream: how many of the stream's seq_nums and indices were read, and how many requests were made."""


class _Message(BaseModel):
    """A message to a server: unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", cache_strings="keys")  # ids and paths rarely repeat


class _Answer(_Message):
    """A message to a client: keys of a later version are ignored."""

    model_config = ConfigDict(extra="ignore")


class MapPoint(_Message):
    """The point of a map that a frame belongs to.

    `point`: its number, row by row, whatever the order of the scan was. `shape`: of the grid, the slowest motor first.
    `motors`: their data keys, `positions`: where they were for the frame. `name`: the common part of the names of all
    outputs of the map.

    >>> here = MapPoint(point=5, shape=(2, 3), motors=("y", "x"), positions=(1.0, 0.2), name="pattern")
    >>> here.row, here.column
    (1, 2)
    """

    point: int = Field(ge=0, lt=MOST_POINTS)
    shape: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=MOST_AXES)]
    motors: Annotated[tuple[Name, ...], Field(max_length=MOST_AXES)] = ()
    positions: Annotated[tuple[float, ...], Field(max_length=MOST_AXES)] = ()
    name: Name

    @model_validator(mode="after")
    def _is_in_the_map(self) -> Self:
        if not self.point < math.prod(self.shape) <= MOST_POINTS:
            raise ValueError(f"point {self.point} of a map of {' x '.join(map(str, self.shape))} points")
        return self

    @property
    def row(self) -> int:
        """Its row in the map."""
        return self.point // self.shape[-1]

    @property
    def column(self) -> int:
        """Its column in the map."""
        return self.point % self.shape[-1]

    @property
    def fields(self) -> dict[str, object]:
        """The fields of its frame for name templates."""
        return {"point": self.point, "row": self.row, "column": self.column, "map": self}


class FrameOrigin(_Message):
    """Where a frame came from; the report repeats these fields of the request.

    `frame` is its index in a file of several frames; None for a file that is one frame, or for all frames of a file.
    `group` and `member`: which frames it is combined with, and its place among them, counted from 0.
    `map`: the point of the map that its output belongs to.
    """

    run_uid: Name | None = None
    stream: Name | None = None
    seq_num: int | None = Field(default=None, ge=0, lt=2**63)
    frame: int | None = Field(default=None, ge=0, lt=2**63, exclude_if=lambda value: value is None)
    group: Name | None = Field(default=None, exclude_if=lambda value: value is None)
    member: int | None = Field(default=None, ge=0, lt=MOST_MEMBERS, exclude_if=lambda value: value is None)
    map: MapPoint | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def origin(self) -> dict[str, Any]:
        """The values of these fields, by name."""
        return {name: getattr(self, name) for name in FrameOrigin.model_fields}


class FrameRequest(FrameOrigin):
    """One frame to convert, and where it came from.

    `recipe=None` means the server's recipe. Requests with the same `key` are one job. `members`: the number of places
    in the group, None while it is unknown. `supersedes`: the key of an earlier frame, whose point was taken again: it
    is no member any more, and its place in its group stays empty unless this frame has it. `placeholder`: why nothing
    is there for a point of a map; a frame of zeros is written, and no file is awaited.
    """

    source: Annotated[str, Field(min_length=1, max_length=LONGEST_SOURCE)]
    recipe: RecipeField | None = None
    key: Annotated[str, Field(min_length=1, max_length=LONGEST_KEY)] | None = None
    metadata: Metadata = {}
    members: int | None = Field(default=None, ge=1, le=MOST_MEMBERS, exclude_if=lambda value: value is None)
    supersedes: Annotated[str, Field(min_length=1, max_length=LONGEST_KEY)] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    placeholder: Annotated[str, Field(min_length=1, max_length=LONGEST_MESSAGE)] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )

    @property
    def fields(self) -> dict[str, object]:
        """The fields of the frame for name templates and headers."""
        run = (self.run_uid or "").partition("#")[0]  # the rest is the name of a further converter
        place = {} if self.map is None else self.map.fields
        return {**self.metadata, **place, "run": run, "seq_num": self.seq_num or 0}


class PixelCounts(_Answer):
    """How many pixels changed their value with the pixel type, and the source's finite range.

    `nan`: became `invalid_value`. `saturated_low`, `saturated_high`: outside the target's range, Inf included.
    `negative`: below zero, became 0 in an unsigned type. `minimum`, `maximum`: of the source's finite pixels, None
    if it has none. `total`: the sum of these pixels, for combined frames and maps only.
    `masked`, `overexposed`: with corrections only; masked pixels are in no other count, and `minimum` and `maximum` are
    those of the corrected frame. `overexposed` is None where it is unknown, and a lower bound for summed exposures.
    In an ESPERANTO frame with corrections, `negative` counts values that would have become -1 and were written as 0.
    """

    nan: int = 0
    saturated_low: int = 0
    saturated_high: int = 0
    negative: int = 0
    minimum: float | None = None
    maximum: float | None = None
    masked: int = Field(default=0, exclude_if=lambda value: value == 0)
    overexposed: int | None = Field(default=None, exclude_if=lambda value: value is None)
    total: float | None = Field(default=None, exclude_if=lambda value: value is None)


class Master(_Answer):
    """A file that corrected a frame: its path on the server, and the hash of the bytes that were used.

    `run_uid`: the run of a dark. `scale`: the factor of a dark (summed exposures of the frame by those of the dark) or
    of a flat (1 / mean with `flat_normalize`). `modified`: when the file was last changed, in Unix s.
    `exposure_time`: of one exposure of a dark, in s; None if unknown.
    """

    kind: Kind
    path: Shown
    sha256: str
    run_uid: str | None = None
    scale: float = 1.0
    modified: float | None = Field(default=None, exclude_if=lambda value: value is None)
    exposure_time: float | None = Field(default=None, exclude_if=lambda value: value is None)


class FrameReport(FrameOrigin):
    """The result of one frame.

    `reason`: why the frame was not converted; for a converted one, notes: why an existing sidecar was not copied, that
    its pixels were read differently from what the file says, what is unknown about its corrections.
    `shape` is the output's (rows, columns). `latency` is the time from accepted, or first seen complete if that was
    later, until the output is visible; it and the job's fields are None for a conversion without a server.
    `metadata`: what the detector states in the file itself, under NeXus names: lengths in mm, the wavelength in
    Angstrom, times in s, angles in degrees.
    `frames`: the file was skipped, because it became that many jobs, one for each frame: see `frame_job_id`.
    """

    model_config = ConfigDict(extra="ignore")

    job_id: str | None = None
    source: Shown
    output: Shown | None = None
    outcome: Outcome
    reason: Shown = ""
    shape: tuple[int, int] | None = None
    pixel_type: str | None = None
    pixels: PixelCounts = PixelCounts()
    pages: int = 1
    frames: int | None = Field(default=None, exclude_if=lambda value: value is None)
    sidecar: Literal["carried", "absent"] = "absent"
    conversion_time: float = 0.0
    latency: float | None = None
    accepted: float | None = None
    finished: float
    recipe_hash: str | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    masters: tuple[Master, ...] = Field(default=(), exclude_if=lambda value: value == ())
    metadata: dict[str, Any] = Field(default={}, exclude_if=lambda value: value == {})

    @property
    def frame_name(self) -> str:
        """The source, and for one of several frames in a file its index."""
        return self.source if self.frame is None else f"{self.source} frame {self.frame}"


class GroupMember(_Answer):
    """One frame of a group: `grouped` if it is part of the output, else why not."""

    source: Shown
    frame: int | None = Field(default=None, exclude_if=lambda value: value is None)
    outcome: Outcome
    reason: Shown = ""


class GroupReport(FrameReport):
    """The result of several frames that became one: `source` is the first one; `members` are all, in their order."""

    members: Annotated[tuple[GroupMember, ...], Field(max_length=MOST_MEMBERS)]


def frame_job_id(job_id: str, index: int) -> str:
    """Return the id of the job for one frame of a file, which was submitted as the job `job_id`.

    >>> frame_job_id("4f3c", 7)
    '4f3c-7'
    """
    return f"{job_id}-{index}"


class CorrectionsInUse(_Answer):
    """What corrected the newest frame of one detector, and when that frame was finished (Unix s).

    `detector`: the frame's data key, or its folder where that is unknown. `masters` has one dark of several, the
    oldest; `darks` is their number. `dark_max_age`: the recipe's, in s. `masked`, `overexposed`: pixels of the frame.
    """

    detector: Shown
    finished: float
    masters: tuple[Master, ...]
    darks: int = 0
    dark_max_age: float | None = None
    masked: int = 0
    overexposed: int | None = None


class RunStatistics(_Answer):
    """The results of one run so far; `pending` frames have no report yet.

    `bytes_per_second`: bytes read, from the first frame accepted to the last one converted.
    `grouped`: frames that became part of a group's output, `superseded`: frames whose point was taken again. `groups`
    and `groups_failed` count outputs of several frames, which are in none of the other counts.
    `run_counts`: by stream, how many of its seq_nums and indices were read from the run's documents, and how many
    requests were made for them, as announced with `Submit`.
    """

    run_uid: str
    submitted: int = 0
    converted: int = 0
    skipped: int = 0
    placeholders: int = 0
    failed: int = 0
    pending: int = 0
    conversion_time_total: float = 0.0
    conversion_time_mean: float = 0.0
    latency_median: float = 0.0
    latency_p95: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    bytes_per_second: float = 0.0
    run_counts: dict[str, tuple[int, int]] = Field(default={}, exclude_if=lambda value: value == {})
    grouped: int = Field(default=0, exclude_if=lambda value: value == 0)
    groups: int = Field(default=0, exclude_if=lambda value: value == 0)
    groups_failed: int = Field(default=0, exclude_if=lambda value: value == 0)
    superseded: int = Field(default=0, exclude_if=lambda value: value == 0)


class AcceptedJob(_Answer):
    """A request in the ledger: it survives `kill -9` of the server."""

    job_id: str
    source: str


class RefusedRequest(_Answer):
    """A request that can never succeed; sending it again does not help."""

    source: Shown
    reason: Shown


class SubmitQuery(_Message):
    """The argument of `Submit`.

    `requests` are validated one by one, so that only wrong ones are refused. `runs` announces run uids: such a run is
    known from then on, even without frames.

    `run_counts` announces, for each run and stream, how many of the stream's seq_nums and indices were read (the last
    seq_num if none was lost) and how many requests were made for them. The numbers never decrease: the server keeps the
    largest. `close_groups` announces how many members a group has, by its id.
    """

    requests: Annotated[list[dict[str, Any]], Field(max_length=MOST_REQUESTS)] = []
    runs: Annotated[list[Name], Field(max_length=MOST_REQUESTS)] = []
    run_counts: Annotated[RunCounts, Field(max_length=MOST_REQUESTS), AfterValidator(_few_counts)] = Field(
        default={}, exclude_if=lambda value: value == {}
    )
    close_groups: Annotated[
        dict[Name, Annotated[int, Field(ge=1, le=MOST_MEMBERS)]], Field(max_length=MOST_REQUESTS)
    ] = Field(default={}, exclude_if=lambda value: value == {})


class SubmitAnswer(_Answer):
    """The answer of `Submit`: each request is in one of the two lists, in order."""

    jobs: list[AcceptedJob]
    refused: list[RefusedRequest]


class ReportsQuery(_Message):
    """The argument of `GetReports`: job ids, a run uid, or the newest reports of all.

    `limit` restricts the number of reports: the first of a run, the `latest` of all. Both come oldest first.

    With `after`, reports come in the order of finishing, so that a client can fetch new ones only. Of a run: those
    after the given job, or from the first one on (""). With `latest`: those of all runs after the `position` of an
    earlier answer, or from the oldest one on (""); "now" gives only the position.
    """

    job_ids: Annotated[list[Name], Field(max_length=MOST_JOB_IDS)] | None = None
    run_uid: Name | None = None
    latest: bool = False
    outcome: Outcome | None = None
    after: Annotated[str, Field(max_length=LONGEST_ID)] | None = None
    limit: int = Field(default=1000, ge=1, le=MOST_REPORTS)

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        if self.after is not None and self.job_ids is not None:
            raise ValueError('after needs a run_uid or "latest": true')
        if (self.job_ids is not None) + (self.run_uid is not None) + self.latest != 1:
            raise ValueError('give one of job_ids, run_uid and "latest": true')
        return self


class FolderQuery(_Message):
    """The argument of `ListFolder`; `after` is the last name of the previous answer, to continue from there."""

    folder: Annotated[str, Field(min_length=1, max_length=LONGEST_SOURCE)]
    skip_dark: bool = True
    after: str = ""
    limit: int = Field(default=MOST_LISTED, ge=1, le=MOST_LISTED)


class FolderAnswer(_Answer):
    """The answer of `ListFolder`: paths sorted by name, and whether there are more."""

    frames: list[str]
    more: bool


class MissingQuery(_Message):
    """The argument of `FindMissing`."""

    paths: Annotated[list[Annotated[str, Field(max_length=LONGEST_SOURCE)]], Field(max_length=MOST_LOOKED_FOR)]


class MissingAnswer(_Answer):
    """The answer of `FindMissing`: the paths without a file that the server may read, and why."""

    missing: list[RefusedRequest]


class CancelQuery(_Message):
    """The argument of `Cancel`: job ids, a run uid, or all."""

    job_ids: Annotated[list[Name], Field(max_length=MOST_JOB_IDS)] | None = None
    run_uid: Name | None = None
    all: bool = False

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        if (self.job_ids is not None) + (self.run_uid is not None) + self.all != 1:
            raise ValueError('give one of job_ids, run_uid and "all": true')
        return self


class CancelAnswer(_Answer):
    """The answer of `Cancel`: the number of cancelled jobs; those already with a worker continue."""

    cancelled: int


class AwaitedFrame(_Answer):
    """A frame that cannot be converted yet because its file is not complete: why, and for how long (s)."""

    source: Shown
    reason: Shown
    waited: float
    remaining: float


class ReportsAnswer(_Answer):
    """The answer of `GetReports`; `pending` counts the requested jobs without a report yet.

    `awaited` lists some of the pending jobs whose files are not complete yet; only for a query by job ids.
    `position`: the place of the last report in the order of finishing, to continue from there; only for a query with
    `latest` and `after`, and empty if no job has finished yet.
    """

    reports: list[GroupReport | FrameReport]
    pending: int
    awaited: list[AwaitedFrame] = Field(default=[], exclude_if=lambda value: value == [])
    position: str = Field(default="", exclude_if=lambda value: value == "")
