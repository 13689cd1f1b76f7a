"""The finished jobs: reports, statistics of runs, which outputs are flushed to disk, and pruning."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from tango_server.jobs.ledger.database import Database
from tango_server.jobs.ledger.rows import AGAIN, report_of
from tango_server.messages import FrameReport, ReportsQuery, RunStatistics

_VARIABLES = 500  # parameters of one SQL statement; SQLite's smallest common limit is 999
_RUNS_KEPT = 10_000
_PORTION = 500  # rows deleted at a time: the ledger is locked meanwhile

# Jobs from an earlier version all have the same age: only the wall clock gives their order.
_OLDEST = (
    "SELECT number, age, run_uid, iif(member IS NULL, group_id, NULL) FROM jobs WHERE outcome IS NOT NULL "
    "ORDER BY age, finished, number LIMIT ?"
)
_DELETE_MEMBERS = "DELETE FROM jobs WHERE group_id=? AND outcome IS NOT NULL"  # else they could not be retried
_DELETE_RUN = "DELETE FROM runs WHERE run_uid=?1 AND NOT EXISTS (SELECT 1 FROM jobs WHERE run_uid=?1)"
_DELETE_EMPTY_RUNS = (
    "DELETE FROM runs WHERE run_uid IN (SELECT run_uid FROM runs WHERE NOT EXISTS "
    "(SELECT 1 FROM jobs WHERE jobs.run_uid=runs.run_uid) ORDER BY announced LIMIT ?)"
)
_REPORTS = (
    "SELECT report FROM jobs WHERE run_uid=? AND outcome IS NOT NULL AND (? IS NULL OR outcome=?) "
    "ORDER BY number LIMIT ?"
)
_REPORTS_AFTER = (
    "SELECT report FROM jobs WHERE run_uid=? AND outcome IS NOT NULL AND (? IS NULL OR outcome=?) "
    "AND (age, number) > (?, ?) ORDER BY age, number LIMIT ?"
)
_LATEST = "SELECT report FROM jobs WHERE outcome IS NOT NULL ORDER BY age DESC, finished DESC, number DESC LIMIT ?"
_LATEST_OF = "SELECT report FROM jobs WHERE outcome=? ORDER BY age DESC, finished DESC, number DESC LIMIT ?"
_TOTALS = (
    "SELECT outcome, count(*), total(conversion_time), total(bytes_in), total(bytes_out), min(accepted), "
    "max(finished), count(latency) FROM jobs WHERE run_uid=? GROUP BY outcome"
)
_LATENCY = (
    "SELECT latency FROM jobs WHERE run_uid=? AND outcome='converted' AND latency IS NOT NULL "
    "ORDER BY latency LIMIT 1 OFFSET ?"
)
_GROUPS = (
    "SELECT outcome, count(*) FROM jobs WHERE run_uid=? AND group_id IS NOT NULL AND member IS NULL GROUP BY outcome"
)
_RUN_COUNTS = "SELECT stream, seen, submitted FROM run_counts WHERE run_uid=?"

_NONE = (0, 0.0, 0, 0, 0.0, 0.0, 0)


class UnknownIdError(LookupError):
    """A job id or a run uid that is not on this ledger."""


class History:
    """The finished jobs. Every call is one transaction; any thread may call."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reports(self, query: ReportsQuery) -> tuple[list[FrameReport], int]:
        """Return the requested reports, oldest first, and the number of requested jobs without one.

        Raises
        ------
        UnknownIdError
            if a job id or the run uid is unknown.

        """
        if query.job_ids is not None:
            return self._reports_of_jobs(query.job_ids, query)
        if query.run_uid is not None:
            return self._reports_of_run(query.run_uid, query)
        return self._latest_reports(query)

    def run_statistics(self, run_uid: str) -> RunStatistics:
        """Return the counts and times of one run; raise `UnknownIdError` for an unknown run."""
        with self._database.reading() as connection:
            _require_run(connection, run_uid)
            of_outcomes = {row[0]: row[1:] for row in connection.execute(_TOTALS, (run_uid,))}
            converted, total, bytes_in, bytes_out, _, last, known = of_outcomes.get("converted", _NONE)
            latencies = [_nearest_rank(connection, run_uid, known, percent) for percent in (50, 95)]
            groups = dict(connection.execute(_GROUPS, (run_uid,)).fetchall())
            counts_of_streams = connection.execute(_RUN_COUNTS, (run_uid,)).fetchall()
        counts = {outcome: totals[0] - groups.get(outcome, 0) for outcome, totals in of_outcomes.items()}
        duration = last - min((totals[4] for totals in of_outcomes.values()), default=0.0)
        return RunStatistics(
            run_uid=run_uid,
            submitted=sum(counts.values()),
            converted=counts.get("converted", 0),
            skipped=counts.get("skipped", 0),
            placeholders=counts.get("placeholder", 0),
            failed=counts.get("failed", 0),
            pending=counts.get(None, 0) or groups.get(None, 0),
            conversion_time_total=total,
            conversion_time_mean=total / converted if converted else 0.0,
            latency_median=latencies[0],
            latency_p95=latencies[1],
            bytes_in=int(bytes_in),
            bytes_out=int(bytes_out),
            bytes_per_second=bytes_in / duration if converted and duration > 0 else 0.0,
            run_counts={stream: (seen, submitted) for stream, seen, submitted in counts_of_streams},
            grouped=counts.get("grouped", 0),
            groups=groups.get("converted", 0) + groups.get("placeholder", 0),
            groups_failed=groups.get("failed", 0),
            superseded=counts.get("superseded", 0),
        )

    def unsynced(self, limit: int) -> list[tuple[str, Path]]:
        """Return the ids and outputs of jobs whose output may not be flushed to disk yet, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT job_id, json_extract(report, '$.output') FROM jobs WHERE synced=0 ORDER BY place LIMIT ?",
                (limit,),
            ).fetchall()
        return [(job_id, Path(output)) for job_id, output in rows]

    def mark_synced(self, job_ids: Sequence[str]) -> None:
        """Record that the outputs of these jobs are on disk."""
        with self._database.transaction() as connection:
            connection.executemany("UPDATE jobs SET synced=1 WHERE job_id=?", [(job_id,) for job_id in job_ids])

    def mark_doubtful(self, job_ids: Sequence[str]) -> None:
        """Record that flushing these outputs failed: after a power loss they are converted again."""
        with self._database.transaction() as connection:
            connection.executemany("UPDATE jobs SET synced=2 WHERE job_id=?", [(job_id,) for job_id in job_ids])

    def reopen_unsynced(self) -> int:
        """Make jobs pending again whose output a power loss may have destroyed; return their number."""
        with self._database.transaction() as connection:
            cursor = connection.execute(
                f"UPDATE jobs SET {AGAIN} WHERE synced IN (0, 2)"  # noqa: S608 - our own constant
            )
            return cursor.rowcount

    def prune(self, kept_for: float, limit: int) -> int:
        """Delete some of the jobs that finished more than `kept_for` seconds ago, or exceed the number `limit`.

        Only time while the ledger was open counts: neither a jump of the wall clock nor a shutdown deletes history.
        Return their number; call again until it is 0. Unreferenced runs and recipes are deleted, too; of runs without
        jobs the last `limit` stay, or ten thousand.
        """
        before = self._database.age - kept_for
        with self._database.transaction() as connection:
            count = connection.execute("SELECT count(*) FROM jobs WHERE outcome IS NOT NULL").fetchone()[0]
            rows = connection.execute(_OLDEST, (_PORTION,)).fetchall()
            surplus = count - limit
            old = [row for place, row in enumerate(rows) if row[1] < before or place < surplus]
            connection.executemany("DELETE FROM jobs WHERE number=?", [(number,) for number, *_ in old])
            connection.executemany(_DELETE_MEMBERS, [(group,) for *_, group in old if group is not None])
            connection.executemany(_DELETE_RUN, {(run_uid,) for _, _, run_uid, _ in old if run_uid is not None})
            if not old:
                _prune_unused(connection, before)
                _prune_empty_runs(connection, limit)
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
                f"Unknown job id {missing[0]!r} ({len(missing)} of {len(job_ids)} are unknown): "
                "this server never accepted it, or its history was pruned."
            )
        requested = [rows[job_id] for job_id in job_ids]
        pending = sum(outcome is None for outcome, _ in requested)
        wanted = [text for outcome, text in requested if outcome is not None and query.outcome in {None, outcome}]
        return [report_of(text) for text in wanted[: query.limit]], pending

    def _reports_of_run(self, run_uid: str, query: ReportsQuery) -> tuple[list[FrameReport], int]:
        with self._database.reading() as connection:
            _require_run(connection, run_uid)
            pending = connection.execute(
                "SELECT count(*) FROM jobs WHERE run_uid=? AND outcome IS NULL", (run_uid,)
            ).fetchone()[0]
            wanted = (run_uid, query.outcome, query.outcome)
            if query.after is None:
                rows = connection.execute(_REPORTS, (*wanted, query.limit)).fetchall()
            else:
                place = _place_of(connection, run_uid, query.after)
                rows = connection.execute(_REPORTS_AFTER, (*wanted, *place, query.limit)).fetchall()
        return [report_of(text) for (text,) in rows], pending

    def _latest_reports(self, query: ReportsQuery) -> tuple[list[FrameReport], int]:
        with self._database.reading() as connection:
            pending = connection.execute("SELECT count(*) FROM jobs WHERE outcome IS NULL").fetchone()[0]
            if query.outcome is None:
                rows = connection.execute(_LATEST, (query.limit,)).fetchall()
            else:
                rows = connection.execute(_LATEST_OF, (query.outcome, query.limit)).fetchall()
        return [report_of(text) for (text,) in reversed(rows)], pending


def _require_run(connection: sqlite3.Connection, run_uid: str) -> None:
    if connection.execute("SELECT 1 FROM runs WHERE run_uid=?", (run_uid,)).fetchone() is None:
        raise UnknownIdError(
            f"Unknown run {run_uid!r}: it has no frames and was not announced, or its history was pruned."
        )


def _place_of(connection: sqlite3.Connection, run_uid: str, job_id: str) -> tuple[float, int]:
    """Return the age and number of a job, which order finished jobs; values before all jobs if there is none."""
    if not job_id:
        return -1.0, 0
    found = connection.execute(
        "SELECT age, number FROM jobs WHERE job_id=? AND run_uid=?", (job_id, run_uid)
    ).fetchone()
    if found is None:
        raise UnknownIdError(f"after: unknown job id {job_id!r} in run {run_uid!r}, or its history was pruned.")
    age, number = found
    return (-1.0, 0) if age is None else (age, number)  # it is being retried, and has no finish time


def _nearest_rank(connection: sqlite3.Connection, run_uid: str, count: int, percent: int) -> float:
    """Return a percentile of the `count` latencies (s) of a run, 0 if there is none."""
    if not count:
        return 0.0
    rank = -(-percent * count // 100)
    return float(connection.execute(_LATENCY, (run_uid, rank - 1)).fetchone()[0])


def _prune_empty_runs(connection: sqlite3.Connection, limit: int) -> None:
    surplus = connection.execute("SELECT count(*) FROM runs").fetchone()[0] - max(limit, _RUNS_KEPT)
    if surplus > 0:
        connection.execute(_DELETE_EMPTY_RUNS, (min(surplus, _PORTION),))


def _prune_unused(connection: sqlite3.Connection, before: float) -> None:
    for table, stale, reference in (("runs", "announced", "run_uid"), ("recipes", "used", "id")):
        column = "recipe_id" if table == "recipes" else reference
        connection.execute(
            f"DELETE FROM {table} WHERE {stale} < ? "  # noqa: S608 - our own constants
            f"AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.{column} = {table}.{reference})",
            (before,),
        )
