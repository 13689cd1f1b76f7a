"""Jobs and reports as rows of the ledger's tables."""

import json
import sqlite3
from functools import lru_cache
from pathlib import Path
from typing import Any

from tango_server.jobs.job import Job
from tango_server.messages import FrameOrigin, FrameReport, FrameRequest, GroupReport
from tango_server.recipe import Recipe
from tango_server.recipe.corrections import Corrections
from tango_server.sqlite.wal_file import sqlite_integer

PENDING_COLUMNS = (
    "place, job_id, source, output, mask, corrections, source_root, output_root, accepted, recipes.text, request, "
    "metadata, CASE WHEN group_id IS NOT NULL AND member IS NULL THEN (SELECT count(DISTINCT member) FROM jobs AS one "
    "WHERE one.group_id = jobs.group_id AND one.member IS NOT NULL AND one.outcome IS NOT NULL AND NOT EXISTS ("
    "SELECT 1 FROM jobs AS later WHERE later.group_id = one.group_id AND later.member = one.member "
    "AND later.outcome IS NULL)) ELSE 0 END"
)
"""The columns that `job_of` needs, from `jobs JOIN recipes`."""

FINISHED_COLUMNS = (
    "outcome, report, finished, conversion_time, latency, bytes_in, bytes_out, source_size, source_mtime_ns, synced, "
    "retryable"
)
"""The columns of `finished_row`, which appends the job id."""

AGAIN = (
    "outcome=NULL, report=NULL, finished=NULL, conversion_time=NULL, latency=NULL, bytes_in=NULL, bytes_out=NULL, "
    "synced=NULL, age=NULL, retryable=0"
)
"""What makes a finished job pending again."""

ORIGIN = ", ".join(f"'{name}', json_extract(request, '$.{name}')" for name in FrameOrigin.model_fields)
"""Names and values for `json_object`: the fields that a report copies from its request."""

_COLUMNS = (
    "number, place, job_id, key, run_uid, source, source_root, output, output_root, mask, recipe_id, accepted, "
    "request, metadata, outcome, report, finished, age, corrections, group_id, member"
)
_OWN_COLUMNS = {"recipe", "metadata"}
"""Fields stored outside a request's JSON: recipes are few, and SQLite can't parse NaN, which metadata may contain."""


def job_of(row: tuple[Any, ...], earlier: int) -> Job:
    """Return the job of a row of `PENDING_COLUMNS`; up to the place `earlier` it is from an earlier server.

    Raises
    ------
    ValueError
        if this version can't parse it.
    """
    (
        place, job_id, source, output, mask, corrections, source_root, output_root, accepted, text, request, metadata,
        settled,
    ) = row  # fmt: skip
    recipe = _recipe(text)
    fields = {**json.loads(request), "recipe": recipe, "metadata": json.loads(metadata)}
    return Job(
        job_id,
        FrameRequest.model_validate(fields),
        source=Path(source),
        output=Path(output),
        accepted=accepted,
        source_root=_path(source_root),
        output_root=_path(output_root),
        mask=_path(mask),
        corrections=_corrections(corrections) if corrections else recipe.corrections,
        place=place,
        resumed=place <= earlier,
        settled=settled,
    )


def recipe_id(connection: sqlite3.Connection, recipe: Recipe, used: float) -> int:
    """Return the number of a recipe, inserted if it is new; `used` is the current age of the ledger."""
    text = recipe.model_dump_json()
    connection.execute(
        "INSERT INTO recipes (text, used) VALUES (?, ?) ON CONFLICT (text) DO UPDATE SET used=excluded.used",
        (text, used),
    )
    return int(connection.execute("SELECT id FROM recipes WHERE text=?", (text,)).fetchone()[0])


def insert(connection: sqlite3.Connection, job: Job, recipe: int, place: int, age: float) -> None:
    """Insert the row of a job, with its report if it was refused; `age` is the ledger's."""
    request, report = job.request, job.refusal
    connection.execute(
        f"INSERT INTO jobs ({_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (
            place, job.job_id, request.key, request.run_uid, str(job.source), _text(job.source_root), str(job.output),
            _text(job.output_root), _text(job.mask), recipe, job.accepted,
            request.model_dump_json(exclude=_OWN_COLUMNS, exclude_defaults=True), json.dumps(request.metadata),
            report and report.outcome, report and _report_text(report), report and report.finished, report and age,
            _resolved(job), None if job.refused and not job.is_member else request.group, request.member,
        ),
    )  # fmt: skip


def report_of(text: str) -> FrameReport:
    """Return the report of a job, a `GroupReport` for that of a group."""
    report = FrameReport.model_validate_json(text)
    is_whole = report.group is not None and report.member is None and '"members"' in text
    return GroupReport.model_validate_json(text) if is_whole else report


def finished_row(report: FrameReport, identity: tuple[int, int] | None) -> tuple[object, ...]:
    """Return the values of `FINISHED_COLUMNS` and the job id; `identity`: size, mtime (ns) of the source."""
    written = report.outcome in {"converted", "placeholder"} and report.output not in {None, report.source}
    size, mtime_ns = map(sqlite_integer, identity) if identity else (None, None)
    return (
        report.outcome, _report_text(report), report.finished, report.conversion_time, report.latency,
        report.bytes_in, report.bytes_out, size, mtime_ns, 0 if written else None, int(report.outcome == "failed"),
        report.job_id,
    )  # fmt: skip


def _report_text(report: FrameReport) -> str:
    return report.model_dump_json(exclude_defaults=True)


def _resolved(job: Job) -> str | None:
    """Return the corrections of a job as JSON, None if their paths are those of the recipe."""
    if job.corrections is None or job.corrections == job.recipe.corrections:
        return None
    return job.corrections.model_dump_json(exclude_defaults=True)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


@lru_cache(maxsize=256)  # roots and masks are few
def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


@lru_cache(maxsize=256)
def _corrections(text: str) -> Corrections:
    return Corrections.model_validate_json(text)


@lru_cache(maxsize=256)
def _recipe(text: str) -> Recipe:
    return Recipe.model_validate_json(text)
