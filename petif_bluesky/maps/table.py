"""The table of a map, `map.csv`: what became of each point. Pure but for writing it."""

import csv
import math
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tango_server.messages import FrameReport, MapPoint

TABLE = "map.csv"
_BEST = ("converted", "skipped", "placeholder", "failed")
_UID_BEGINS = 8  # characters that tell runs apart, as in the folder of a map


@dataclass(frozen=True, slots=True)
class MapTable:
    """The points of one map in the order of the rows: the report of each, None where there is none."""

    name: str
    run_uid: str
    shape: tuple[int, ...]
    motors: tuple[str, ...]
    reports: tuple[FrameReport | None, ...]

    @property
    def missing(self) -> list[int]:
        """The points without an output."""
        return [point for point, report in enumerate(self.reports) if report is None or not report.output]

    def count(self, outcome: str) -> int:
        """Return how many points have this outcome."""
        return sum(report is not None and report.outcome == outcome for report in self.reports)

    @property
    def folder(self) -> Path | None:
        """The folder of the outputs, None if there is none."""
        return next((Path(report.output).parent for report in self.reports if report and report.output), None)

    @property
    def file_name(self) -> str:
        """The name of the table, with the run where the folder has the outputs of other runs, too."""
        run, folder = self.run_uid[:_UID_BEGINS], self.folder
        return TABLE if folder is None or folder.name.endswith(f"_{run}") else f"map_{run}.csv"

    def rows(self) -> list[list[object]]:
        """Return the cells of each row, headings first."""
        cells: list[list[object]] = [
            ["point", "row", "column", *self.motors, "outcome", "file", "total", "overexposed", "source", "reason"]
        ]
        for number, report in enumerate(self.reports):
            row, column = divmod(number, self.shape[-1])
            if report is None or report.map is None:
                cells.append([number, row, column, *[""] * len(self.motors), "missing", *[""] * 5])
                continue
            positions = [*report.map.positions, *[""] * (len(self.motors) - len(report.map.positions))]
            counts = (report.pixels.total, report.pixels.overexposed)
            cells.append([
                number, row, column, *positions, report.outcome, report.output or "",
                *("" if count is None else count for count in counts), report.source, report.reason,
            ])  # fmt: skip
        return cells

    def write(self, path: Path) -> None:
        """Write the table; a reader never sees half of it."""
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with part.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows(self.rows())
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def tables_of(reports: Iterable[FrameReport]) -> list[MapTable]:
    """Return the maps in the reports of one run, by name; a point that was converted is not one that failed."""
    best: dict[str, dict[int, FrameReport]] = {}
    places: dict[str, tuple[MapPoint, str]] = {}
    for report in reports:
        if report.map is None or report.member is not None or report.outcome not in _BEST:
            continue
        places.setdefault(report.map.name, (report.map, (report.run_uid or "").partition("#")[0]))
        points = best.setdefault(report.map.name, {})
        known = points.get(report.map.point)
        if known is None or _BEST.index(report.outcome) <= _BEST.index(known.outcome):
            points[report.map.point] = report
    return [_table(*places[name], points) for name, points in sorted(best.items())]


def _table(first: MapPoint, run_uid: str, points: dict[int, FrameReport]) -> MapTable:
    found = tuple(points.get(number) for number in range(math.prod(first.shape)))
    return MapTable(first.name, run_uid, first.shape, first.motors, found)


def write_tables(reports: Sequence[FrameReport]) -> list[Path]:
    """Write the table of each map beside its outputs, where this machine sees them; return the paths."""
    written = []
    for table in tables_of(reports):
        if table.folder is not None and os.path.isdir(table.folder):  # noqa: PTH112 - a path of the server
            path = table.folder / table.file_name
            table.write(path)
            written.append(path)
    return written
