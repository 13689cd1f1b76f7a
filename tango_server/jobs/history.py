"""What became of the jobs: reports, statistics of runs, what is on disk for sure, and how long it is all kept."""

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tango_server.jobs.database import Database
from tango_server.jobs.statistics import percentile
from tango_server.messages import FrameReport, Outcome, ReportsQuery, RunStatistics

_VARIABLES = 500  # parameters of one SQL statement; SQLite's smallest common limit is 999
_PORTION = 500  # rows that are deleted at once: the ledger is locked meanwhile
_ROWS = 10_000  # rows that are read at once

_OLDEST = "SELECT number, finished, run_uid FROM jobs WHERE outcome IS NOT NULL ORDER BY finished LIMIT ?"
_FORGET_RUN = "DELETE FROM runs WHERE run_uid=?1 AND NOT EXISTS (SELECT 1 FROM jobs WHERE run_uid=?1)"
_REPORTS = (
    "SELECT report FROM jobs WHERE run_uid=? AND outcome IS NOT NULL AND (? IS NULL OR outcome=?) "
    "ORDER BY number LIMIT ?"
)
_NUMBERS = (
    "SELECT number, outcome, conversion_time, latency, bytes_in, bytes_out, accepted, finished FROM jobs "
    "WHERE run_uid=? AND number > ? ORDER BY number LIMIT ?"
)


class UnknownIdError(LookupError):
    """A job id or a run uid that this ledger has never seen."""


class History:
    """The finished jobs. Every call is one transaction; any thread may call."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reports(self, query: ReportsQuery) -> tuple[list[FrameReport], int]:
        """Return the reports asked for, oldest first, and how many of the jobs asked for have none yet.

        Raises
        ------
        UnknownIdError
            if a job id or the run uid was never seen.

        """
        if query.job_ids is not None:
            return self._reports_of_jobs(query.job_ids, query)
        return self._reports_of_run(query.run_uid or "", query)

    def run_statistics(self, run_uid: str) -> RunStatistics:
        """Return the counts and times of one run; raise `UnknownIdError` for a run that was never announced."""
        rows = self._rows_of_run(run_uid)
        counts = _count(row[1] for row in rows)
        converted = [row for row in rows if row[1] == "converted"]
        total = float(sum(row[2] for row in converted))
        latencies = sorted(row[3] for row in converted if row[3] is not None)
        bytes_in = sum(row[4] for row in converted)
        duration = max((row[7] for row in converted), default=0.0) - min((row[6] for row in rows), default=0.0)
        return RunStatistics(
            run_uid=run_uid,
            submitted=len(rows),
            converted=counts["converted"],
            skipped=counts["skipped"],
            placeholders=counts["placeholder"],
            failed=counts["failed"],
            pending=len(rows) - sum(counts.values()),
            conversion_time_total=total,
            conversion_time_mean=total / len(converted) if converted else 0.0,
            latency_median=percentile(latencies, 0.5),
            latency_p95=percentile(latencies, 0.95),
            bytes_in=bytes_in,
            bytes_out=sum(row[5] for row in converted),
            bytes_per_second=bytes_in / duration if converted and duration > 0 else 0.0,
        )

    def unsynced(self, limit: int) -> list[tuple[str, Path]]:
        """Return the ids and outputs of jobs whose output may not be on disk yet, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT job_id, json_extract(report, '$.output') FROM jobs WHERE synced=0 ORDER BY place LIMIT ?",
                (limit,),
            ).fetchall()
        return [(job_id, Path(output)) for job_id, output in rows]

    def mark_synced(self, job_ids: Sequence[str]) -> None:
        """The outputs of these jobs are on disk."""
        with self._database.transaction() as connection:
            connection.executemany("UPDATE jobs SET synced=1 WHERE job_id=?", [(job_id,) for job_id in job_ids])

    def mark_doubtful(self, job_ids: Sequence[str]) -> None:
        """Flushing these outputs has failed: they are made again after a power loss, and not flushed again."""
        with self._database.transaction() as connection:
            connection.executemany("UPDATE jobs SET synced=2 WHERE job_id=?", [(job_id,) for job_id in job_ids])

    def reopen_unsynced(self) -> int:
        """Make jobs pending again whose output may have been lost with the power; return how many they are."""
        with self._database.transaction() as connection:
            cursor = connection.execute(
                "UPDATE jobs SET outcome=NULL, report=NULL, finished=NULL, conversion_time=NULL, latency=NULL, "
                "bytes_in=NULL, bytes_out=NULL, synced=NULL WHERE synced IN (0, 2)"
            )
            return cursor.rowcount

    def prune(self, before: float, limit: int) -> int:
        """Forget a portion of the jobs that were finished before an instant (Unix s), or are more than `limit`.

        Return how many; the caller comes again until it is none. Runs and recipes that nothing refers to go, too.
        """
        with self._database.transaction() as connection:
            count = connection.execute("SELECT count(*) FROM jobs WHERE outcome IS NOT NULL").fetchone()[0]
            rows = connection.execute(_OLDEST, (_PORTION,)).fetchall()
            surplus = count - limit
            old = [row for place, row in enumerate(rows) if row[1] < before or place < surplus]
            connection.executemany("DELETE FROM jobs WHERE number=?", [(number,) for number, _, _ in old])
            connection.executemany(_FORGET_RUN, {(run_uid,) for _, _, run_uid in old if run_uid is not None})
            if not old:
                _prune_unused(connection, before)
        return len(old)

    def _reports_of_jobs(self, job_ids: Sequence[str], query: ReportsQuery) -> tuple[list[FrameReport], int]:
        rows: dict[str, tuple[str | None, str]] = {}
        for start in range(0, len(job_ids), _VARIABLES):
            part = job_ids[start : start + _VARIABLES]
            marks = ",".join("?" * len(part))
            with self._database.reading() as connection:
                found = connection.execute(
                    f"SELECT job_id, outcome, report FROM jobs WHERE job_id IN ({marks})",  # noqa: S608 - only marks
                    part,
                ).fetchall()
            rows.update({job_id: (outcome, report) for job_id, outcome, report in found})
        missing = [job_id for job_id in job_ids if job_id not in rows]
        if missing:
            raise UnknownIdError(
                f"unknown job id {missing[0]!r} ({len(missing)} of {len(job_ids)} are unknown): "
                "it was never accepted by this server, or its history was pruned"
            )
        asked = [rows[job_id] for job_id in job_ids]
        pending = sum(outcome is None for outcome, _ in asked)
        wanted = [text for outcome, text in asked if outcome is not None and query.outcome in {None, outcome}]
        return [FrameReport.model_validate_json(text) for text in wanted[: query.limit]], pending

    def _reports_of_run(self, run_uid: str, query: ReportsQuery) -> tuple[list[FrameReport], int]:
        with self._database.reading() as connection:
            _require_run(connection, run_uid)
            pending = connection.execute(
                "SELECT count(*) FROM jobs WHERE run_uid=? AND outcome IS NULL", (run_uid,)
            ).fetchone()[0]
            rows = connection.execute(_REPORTS, (run_uid, query.outcome, query.outcome, query.limit)).fetchall()
        return [FrameReport.model_validate_json(text) for (text,) in rows], pending

    def _rows_of_run(self, run_uid: str) -> list[tuple[Any, ...]]:
        """Return the numbers of a run's jobs, read in portions, so that others need not wait for a long run."""
        with self._database.reading() as connection:
            _require_run(connection, run_uid)
        rows: list[tuple[Any, ...]] = []
        portion = None
        while portion is None or len(portion) == _ROWS:
            last = rows[-1][0] if rows else 0
            with self._database.reading() as connection:
                portion = connection.execute(_NUMBERS, (run_uid, last, _ROWS)).fetchall()
            rows += portion
        return rows


def _require_run(connection: sqlite3.Connection, run_uid: str) -> None:
    if connection.execute("SELECT 1 FROM runs WHERE run_uid=?", (run_uid,)).fetchone() is None:
        raise UnknownIdError(
            f"unknown run {run_uid!r}: no frame of it was submitted and it was not announced, or its history was pruned"
        )


def _prune_unused(connection: sqlite3.Connection, before: float) -> None:
    for table, stale, reference in (("runs", "announced", "run_uid"), ("recipes", "used", "id")):
        column = "recipe_id" if table == "recipes" else reference
        connection.execute(
            f"DELETE FROM {table} WHERE {stale} < ? "  # noqa: S608 - our own words
            f"AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.{column} = {table}.{reference})",
            (before,),
        )


def _count(outcomes: Iterable[Outcome | None]) -> dict[Outcome, int]:
    counts: dict[Outcome, int] = {"converted": 0, "skipped": 0, "placeholder": 0, "failed": 0}
    for outcome in outcomes:
        if outcome is not None:
            counts[outcome] += 1
    return counts
