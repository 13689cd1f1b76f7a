"""A frame on its way through the server: the request as it came, and what the server decided when it accepted it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from tango_server.messages import FrameReport, FrameRequest
from tango_server.recipe import Recipe
from tango_server.recipe.esperanto import RESOLVED_MASK

NO_OUTPUT = Path()
"""The output of a request that was refused when it came."""

_LARGEST_SIDE = 65_536  # pixels


@dataclass(frozen=True, slots=True)
class Job:
    """A request that is on the ledger, or one of a batch without a server.

    `request` is complete: its recipe is the server's where it brought none. `source`, `output` and the recipe's `mask`
    are resolved, below the roots of when they were accepted. `accepted` is in Unix seconds, None without a server.
    `refused` says why the request can't be done as it stands. `place` orders the queue.
    `resumed`: it was pending when this server started, so that an earlier one may have left something of it.
    """

    job_id: str
    request: FrameRequest = field(hash=False)  # its metadata are a dict
    source: Path
    output: Path
    accepted: float | None = None
    source_root: Path | None = None
    output_root: Path | None = None
    mask: Path | None = None
    refused: str = ""
    place: int = 0
    resumed: bool = False

    @property
    def recipe(self) -> Recipe:
        """What is done to the frame."""
        return cast("Recipe", self.request.recipe)

    @property
    def record_id(self) -> str | None:
        """What records and reports call the job; None without a server, where nobody could ask for it."""
        return None if self.accepted is None else self.job_id

    @property
    def fields(self) -> Mapping[str, object]:
        """What names and headers may take from the frame: metadata, and with a server run and seq_num."""
        if self.accepted is None:
            return self.request.metadata
        fields = self.request.fields
        return fields if self.mask is None else {**fields, RESOLVED_MASK: str(self.mask)}

    @property
    def shape(self) -> tuple[int, int] | None:
        """The shape (rows, columns) that the source should have, if the request's metadata tell it."""
        match self.request.metadata.get("shape"):
            case [*_, rows, columns] if _is_side(rows) and _is_side(columns):
                return rows, columns
        return None

    @property
    def refusal(self) -> FrameReport | None:
        """The report of a request that can't be done as it stands, None for every other one."""
        return self.failed(self.refused, self.accepted or 0.0) if self.refused else None

    def failed(self, reason: str, finished: float) -> FrameReport:
        """Return the report of this job's failure at `finished` (Unix seconds)."""
        return FrameReport(
            job_id=self.record_id,
            source=str(self.source),
            outcome="failed",
            reason=reason,
            accepted=self.accepted,
            finished=finished,
            recipe_hash=self.recipe.hash,
            **self.request.origin,
        )


def _is_side(value: object) -> bool:
    return type(value) is int and 0 < value <= _LARGEST_SIDE
