"""The live map of a run: one value for each point, from the reports. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tango_server.messages import FrameReport

Quantity = Literal["total", "maximum"]


@dataclass(frozen=True, slots=True)
class MapCell:
    """One point: the job of its frame, and the sum and the maximum of its pixels; NaN where they are unknown."""

    job_id: str
    total: float
    maximum: float


@dataclass(frozen=True, slots=True)
class LiveMap:
    """The map of a run; `after` is the job of the last report that was processed.

    `known` has the points of all maps of the run, by name: those of two detectors are reported in turn.
    """

    run_uid: str
    name: str = ""
    shape: tuple[int, ...] = (1,)
    motors: tuple[str, ...] = ()
    cells: Mapping[int, MapCell] = field(default_factory=dict)
    after: str = ""
    known: Mapping[str, Mapping[int, MapCell]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The number of points."""
        return math.prod(self.shape)

    def image(self, quantity: Quantity) -> NDArray[np.float64]:
        """Return the values in rows and columns; NaN where there is no frame."""
        values = np.full(self.size, np.nan)
        for point, cell in self.cells.items():
            values[point] = getattr(cell, quantity)
        return values.reshape(-1, self.shape[-1])

    def cell_at(self, row: int, column: int) -> MapCell | None:
        """Return the point in a row and column, None if it has no frame."""
        if not 0 <= column < self.shape[-1]:
            return None
        return self.cells.get(row * self.shape[-1] + column)

    def with_reports(self, reports: Sequence[FrameReport]) -> "LiveMap":
        """Return the map with further reports of its run; of several maps, the one that was reported last is shown."""
        latest = next((report.map for report in reversed(reports) if report.map is not None), None)
        after = next((report.job_id for report in reversed(reports) if report.job_id), self.after)
        if latest is None:
            return replace(self, after=after)
        names = {report.map.name for report in reports if report.map is not None}
        known = {**self.known, **{name: {**self.known.get(name, {}), **_cells(reports, name)} for name in names}}
        return replace(
            self, name=latest.name, shape=latest.shape, motors=latest.motors, cells=known[latest.name], after=after,
            known=known,
        )  # fmt: skip


def run_with_map(reports: Iterable[FrameReport]) -> str | None:
    """Return the run of the latest report (oldest first) with a point of a map, None if there is none."""
    found = [report.run_uid for report in reports if report.map is not None and report.run_uid]
    return found[-1] if found else None


def _cells(reports: Iterable[FrameReport], name: str) -> dict[int, MapCell]:
    cells = {}
    for report in reports:
        is_output = report.map is not None and report.map.name == name and report.member is None
        if report.map is not None and is_output and report.output and report.job_id and report.outcome == "converted":
            total, maximum = report.pixels.total, report.pixels.maximum
            cells[report.map.point] = MapCell(
                report.job_id, math.nan if total is None else total, math.nan if maximum is None else maximum
            )
    return cells
