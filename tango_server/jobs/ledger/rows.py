"""How requests, jobs and reports stand in the tables of the ledger."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tango_server.jobs.state_machine.events import Job
from tango_server.messages import FrameReport
from tango_server.recipe import Recipe
from tango_server.sqlite.wal_file import sqlite_integer

NO_OUTPUT = Path()
"""The output of a request that was refused at once."""

PENDING_COLUMNS = (
    "place, job_id, source, output, text, accepted, run_uid, stream, seq_num, source_root, output_root, metadata"
)
"""What `job_of` makes a job of, from `jobs JOIN recipes`."""

FINISHED_COLUMNS = (
    "outcome, report, finished, conversion_time, latency, bytes_in, bytes_out, source_size, source_mtime_ns, synced, "
    "retryable, age"
)
"""What `finished_row` gives values for, with the job id behind them."""

_COLUMNS = (
    "number, place, job_id, key, source, source_root, output, output_root, recipe_id, accepted, run_uid, stream, "
    "seq_num, metadata, outcome, report, finished, age"
)
_LARGEST_SIDE = 65_536  # pixels


@dataclass(frozen=True, slots=True)
class Entry:
    """What is written for one request: its job, its key and metadata, and its report if it was refused at once."""

    job: Job
    key: str | None
    metadata: dict[str, object]
    report: FrameReport | None = None


def job_of(row: tuple[Any, ...], earlier: int) -> Job:
    """Return the job of a row of `PENDING_COLUMNS`; it was begun by an earlier server up to the place `earlier`.

    Raises
    ------
    ValueError
        if this version does not understand it.
    """
    place, job_id, source, output, text, accepted, run_uid, stream, seq_num, source_root, output_root, data = row
    recipe = _recipe(text)
    return Job(
        job_id,
        Path(source),
        Path(output),
        recipe,
        accepted,
        run_uid,
        stream,
        seq_num,
        Path(source_root) if source_root else None,
        Path(output_root) if output_root else None,
        _shape(data),
        place,
        resumed=place <= earlier,
        fields=fields_of(run_uid, seq_num, json.loads(data)) if recipe.esperanto is not None else {},
    )


def fields_of(run_uid: str | None, seq_num: int | None, metadata: Mapping[str, object]) -> dict[str, object]:
    """Return what names and headers may take from a frame."""
    return {**metadata, "run": run_uid or "", "seq_num": seq_num or 0}


def recipe_id(connection: sqlite3.Connection, recipe: Recipe, used: float) -> int:
    """Return the number of a recipe, which is written if it is new; it was `used` at that age of the ledger."""
    text = recipe.model_dump_json()
    connection.execute(
        "INSERT INTO recipes (text, used) VALUES (?, ?) ON CONFLICT (text) DO UPDATE SET used=excluded.used",
        (text, used),
    )
    return int(connection.execute("SELECT id FROM recipes WHERE text=?", (text,)).fetchone()[0])


def insert(connection: sqlite3.Connection, entry: Entry, recipe: int, place: int, age: float) -> None:
    """Write the row of an entry; `age` is the ledger's."""
    job, report = entry.job, entry.report
    connection.execute(
        f"INSERT INTO jobs ({_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (
            place, job.job_id, entry.key, str(job.source), _text(job.source_root), str(job.output),
            _text(job.output_root), recipe, job.accepted, job.run_uid, job.stream, job.seq_num,
            json.dumps(entry.metadata), report and report.outcome, report and _report_text(report),
            report and report.finished, report and age,
        ),
    )  # fmt: skip


def finished_row(report: FrameReport, identity: tuple[int, int] | None, age: float) -> tuple[object, ...]:
    """Return the values of `FINISHED_COLUMNS` and the job id; `identity`: size, mtime (ns) of the source."""
    written = report.outcome in {"converted", "placeholder"} and report.output not in {None, report.source}
    size, mtime_ns = map(sqlite_integer, identity) if identity else (None, None)
    return (
        report.outcome, _report_text(report), report.finished, report.conversion_time, report.latency,
        report.bytes_in, report.bytes_out, size, mtime_ns, 0 if written else None, int(report.outcome == "failed"),
        age, report.job_id,
    )  # fmt: skip


def _report_text(report: FrameReport) -> str:
    return report.model_dump_json(exclude_defaults=True)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


@lru_cache(maxsize=256)
def _recipe(text: str) -> Recipe:
    return Recipe.model_validate_json(text)


def _shape(metadata: str) -> tuple[int, int] | None:
    """Return the shape (rows, columns) that a request tells of its frame in its metadata, None if it doesn't."""
    if '"shape"' not in metadata:
        return None
    match json.loads(metadata).get("shape"):
        case [*_, rows, columns] if _is_side(rows) and _is_side(columns):
            return rows, columns
    return None


def _is_side(value: object) -> bool:
    return type(value) is int and 0 < value <= _LARGEST_SIDE
