"""A frame on its way through the server: the request, and what the server decided on accepting it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import Roots
from tango_server.messages import FrameReport, FrameRequest
from tango_server.recipe import Recipe
from tango_server.recipe.corrections import DARK_FACTS, Corrections, split_master
from tango_server.recipe.esperanto import RESOLVED_MASK
from tango_server.text import split_data_set

NO_OUTPUT = Path()
"""The output of a refused request."""

_LARGEST_SIDE = 65_536  # pixels


@dataclass(frozen=True, slots=True)
class Job:
    """A request on the ledger, or in a batch without a server.

    `request` is complete: its recipe is the default one if it had none. `source` is the file, without the data set in
    it. It, `output`, the recipe's `mask` and the paths in its `corrections` are resolved, below the roots at the time
    of acceptance; without a server, those of the recipe hold. `accepted` is in Unix seconds, None without a server.
    `refused` says why the request is invalid. `place` orders the queue.
    `resumed`: it was pending when this server started, so that an earlier one may have left temporary files.
    `modules`: how many modules a Lambda detector has, for those who open the file; not on the ledger.
    `settled`: of a group, how many of its members have ended when it is read from the ledger. `earlier`: where its
    output may have been before it lost members.
    """

    job_id: str
    request: FrameRequest = field(hash=False)  # metadata is a dict
    source: Path
    output: Path
    accepted: float | None = None
    source_root: Path | None = None
    output_root: Path | None = None
    mask: Path | None = None
    corrections: Corrections | None = None
    refused: str = ""
    place: int = 0
    resumed: bool = False
    modules: int | None = None
    settled: int = 0
    earlier: tuple[Path, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The recipe of the request."""
        return cast("Recipe", self.request.recipe)

    @property
    def group(self) -> str:
        """The id of the group of which this is the job of a member, or of the whole; empty for all others."""
        return self.request.group or ""

    @property
    def is_member(self) -> bool:
        """Whether this frame is combined with others, and so is not converted by itself."""
        return self.request.member is not None

    @property
    def is_group(self) -> bool:
        """Whether this is the job of a whole group."""
        return self.request.group is not None and self.request.member is None

    @property
    def data_set(self) -> str:
        """The data set that the request names in an HDF5 file, or an empty text."""
        return split_data_set(self.request.source)[1]

    @property
    def location(self) -> FrameLocation:
        """Where the frame is; without an index, the whole file."""
        return FrameLocation(self.source, self.data_set, self.request.frame, self.modules)

    @property
    def roots(self) -> Roots | None:
        """The roots of source and output when it was accepted; None if those were not stored."""
        if self.source_root is None or self.output_root is None:
            return None
        return Roots(read=(self.source_root,), write=(self.output_root,))

    @property
    def record_id(self) -> str | None:
        """The job id in records and reports; None without a server."""
        return None if self.accepted is None else self.job_id

    @property
    def fields(self) -> Mapping[str, object]:
        """Fields available to names and headers: metadata, and with a server run and seq_num."""
        if self.accepted is None:
            return self.request.metadata
        fields = self.request.fields
        return fields if self.mask is None else {**fields, RESOLVED_MASK: str(self.mask)}

    @property
    def has_run_dark(self) -> bool:
        """Whether the dark was found in a run, so that its files may still be written."""
        return DARK_FACTS in self.request.metadata

    @property
    def master_files(self) -> tuple[Path, ...]:
        """The files of the corrections, besides the frame's own."""
        masters = () if self.corrections is None else self.corrections.masters
        return tuple(Path(file) for file, _ in (split_master(path) for _, path in masters) if file)

    @property
    def missing_file(self) -> Path | None:
        """The first of source and masters that this machine cannot see, None if it sees all."""
        return next((file for file in (self.source, *self.master_files) if not file.exists()), None)

    @property
    def awaited_darks(self) -> tuple[Path, ...]:
        """The files of a run's dark."""
        if self.corrections is None or not self.has_run_dark:
            return ()
        return tuple(Path(file) for file, _ in map(split_master, self.corrections.darks) if file)

    @property
    def shape(self) -> tuple[int, int] | None:
        """The expected shape (rows, columns) of the source, if the metadata contains it."""
        match self.request.metadata.get("shape"):
            case [*_, rows, columns] if _is_side(rows) and _is_side(columns):
                return rows, columns
        return None

    @property
    def refusal(self) -> FrameReport | None:
        """The report of a refused request, None for all others."""
        return self.failed(self.refused, self.accepted or 0.0) if self.refused else None

    def failed(self, reason: str, finished: float) -> FrameReport:
        """Return the report of a failure at `finished` (Unix seconds)."""
        return FrameReport(
            job_id=self.record_id,
            source=self.location.path,
            outcome="failed",
            reason=self.location.about(reason),
            accepted=self.accepted,
            finished=finished,
            recipe_hash=self.recipe.hash,
            **self.request.origin,
        )


@dataclass(frozen=True, slots=True)
class Part:
    """One place in a group: the job of its member, None if no request came, and why that is missing or failed.

    `proven`: inode, size and modification time of its file when it was checked.
    """

    job: Job | None
    problem: str = ""
    proven: tuple[int, int, int] | None = field(default=None, compare=False)


def _is_side(value: object) -> bool:
    return type(value) is int and 0 < value <= _LARGEST_SIDE
