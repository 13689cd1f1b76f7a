"""The durable list of jobs: what stands here survives `kill -9` of the server.

SQLite in WAL mode with `synchronous=FULL`, so that a commit is on disk when it returns.
"""

import json
import logging
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from tango_server.jobs.statistics import percentile
from tango_server.jobs.vocabulary import Job
from tango_server.messages import FrameReport, Outcome, ReportsQuery, RunStatistics
from tango_server.recipe import Recipe

_log = logging.getLogger(__name__)

VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL UNIQUE,
    key TEXT UNIQUE,
    source TEXT NOT NULL,
    output TEXT NOT NULL,
    recipe TEXT NOT NULL,
    accepted REAL NOT NULL,
    run_uid TEXT,
    stream TEXT,
    seq_num INTEGER,
    metadata TEXT NOT NULL,
    outcome TEXT,
    report TEXT,
    conversion_time REAL,
    latency REAL,
    bytes_in INTEGER,
    bytes_out INTEGER
);
CREATE INDEX IF NOT EXISTS jobs_of_run ON jobs (run_uid) WHERE run_uid IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_pending ON jobs (number) WHERE outcome IS NULL;
CREATE TABLE IF NOT EXISTS runs (run_uid TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_VARIABLES = 500  # parameters of one SQL statement; SQLite's smallest common limit is 999


NO_OUTPUT = Path()
"""The output of a request that was refused at once."""


class UnknownIdError(LookupError):
    """A job id or a run uid that this ledger has never seen."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is written for one request: its job, its key and metadata, and its report if it was refused at once."""

    job: Job
    key: str | None
    metadata: dict[str, object]
    report: FrameReport | None = None


class Ledger:
    """The SQLite file. Every call is one transaction; any thread may call."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._database = _open_for_this_server(path)
        try:
            self._prepare(path)
        except sqlite3.Error as error:
            self._database.close()
            raise OSError(f"{path}: the ledger can't be prepared ({error}); is the disk full?") from error
        except OSError:
            self._database.close()
            raise

    def _prepare(self, path: Path) -> None:
        self._database.execute("PRAGMA synchronous=FULL")
        found = self._database.execute("PRAGMA user_version").fetchone()[0]
        if found not in {0, VERSION}:
            raise OSError(
                f"{path}: a ledger of version {found}; expected {VERSION}. "
                "Start the version of petif-bluesky that wrote it, or give another state directory."
            )
        self._database.executescript(_SCHEMA)
        self._database.execute(f"PRAGMA user_version={VERSION}")

    def close(self) -> None:
        """Close the file; later calls raise `sqlite3.ProgrammingError`."""
        with self._lock:
            self._database.close()

    def accept(self, entries: Sequence[Entry], runs: Iterable[str] = ()) -> list[tuple[str, FrameReport | None, bool]]:
        """Write jobs and announced runs in one transaction.

        Return for each entry its job id, its report if it has one already, and whether the entry is new (False: its key
        was on the ledger before).
        """
        answers = []
        with self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            uids = {entry.job.run_uid for entry in entries if entry.job.run_uid} | set(runs)
            self._database.executemany("INSERT OR IGNORE INTO runs VALUES (?)", [(uid,) for uid in uids])
            for entry in entries:
                known = self._by_key(entry.key)
                if known is not None and entry.report is None and self._drop_refusal(entry.key):
                    known = None
                if known is None:
                    self._insert(entry)
                    answers.append((entry.job.job_id, entry.report, True))
                else:
                    answers.append((*known, False))
        return answers

    def finish(self, reports: Sequence[FrameReport]) -> None:
        """Write the reports of jobs in one transaction."""
        rows = [(*_report_columns(report), report.job_id) for report in reports]
        with self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(
                "UPDATE jobs SET outcome=?, report=?, conversion_time=?, latency=?, bytes_in=?, bytes_out=? "
                "WHERE job_id=? AND outcome IS NULL",
                rows,
            )

    def pending(self) -> list[Job]:
        """Return the jobs without a report, oldest first. One that this version can't read is left for the next."""
        with self._lock:
            rows = self._database.execute(
                "SELECT job_id, source, output, recipe, accepted, run_uid, stream, seq_num FROM jobs "
                "WHERE outcome IS NULL ORDER BY number"
            ).fetchall()
        jobs = []
        for job_id, source, output, recipe, *rest in rows:
            try:
                jobs.append(Job(job_id, Path(source), Path(output), Recipe.model_validate_json(recipe), *rest))
            except ValidationError as error:
                _log.error("job %s (%s) can't be read and waits for another version: %s", job_id, source, error)
        return jobs

    def reports(self, query: ReportsQuery) -> tuple[list[FrameReport], int]:
        """Return the reports asked for, oldest first, and how many of the jobs asked for have none yet.

        Raises
        ------
        UnknownIdError
            if a job id or the run uid was never seen.

        """
        if query.job_ids is not None:
            rows = self._rows_of_jobs(query.job_ids)
        else:
            rows = self._rows_of_run(query.run_uid or "")
        pending = sum(outcome is None for outcome, _ in rows)
        wanted = [text for outcome, text in rows if outcome is not None and query.outcome in {None, outcome}]
        return [FrameReport.model_validate_json(text) for text in wanted[: query.limit]], pending

    def run_statistics(self, run_uid: str) -> RunStatistics:
        """Return the counts and times of one run; raise `UnknownIdError` for a run that was never announced."""
        with self._lock:
            self._require_run(run_uid)
            rows = self._database.execute(
                "SELECT outcome, conversion_time, latency, bytes_in, bytes_out FROM jobs WHERE run_uid=?", (run_uid,)
            ).fetchall()
        counts = _count(row[0] for row in rows)
        converted = [row for row in rows if row[0] == "converted"]
        total = float(sum(row[1] for row in converted))
        latencies = sorted(row[2] for row in converted if row[2] is not None)
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
            bytes_in=sum(row[3] for row in converted),
            bytes_out=sum(row[4] for row in converted),
        )

    def keep(self, name: str, value: str) -> None:
        """Keep a text under a name over restarts."""
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (name, value))

    def kept(self, name: str) -> str | None:
        """Return the text that was kept under a name, None if there is none."""
        with self._lock:
            row = self._database.execute("SELECT value FROM kept WHERE name=?", (name,)).fetchone()
        return row[0] if row else None

    def _by_key(self, key: str | None) -> tuple[str, FrameReport | None] | None:
        if key is None:
            return None
        row = self._database.execute("SELECT job_id, report FROM jobs WHERE key=?", (key,)).fetchone()
        if row is None:
            return None
        return row[0], FrameReport.model_validate_json(row[1]) if row[1] else None

    def _drop_refusal(self, key: str | None) -> bool:
        """Forget a request that was refused at once, since it comes corrected; return whether there was one."""
        cursor = self._database.execute(
            "DELETE FROM jobs WHERE key=? AND outcome='failed' AND output=?", (key, str(NO_OUTPUT))
        )
        return cursor.rowcount > 0

    def _insert(self, entry: Entry) -> None:
        job = entry.job
        columns = _report_columns(entry.report) if entry.report else (None,) * 6
        self._database.execute(
            "INSERT INTO jobs (job_id, key, source, output, recipe, accepted, run_uid, stream, seq_num, metadata, "
            "outcome, report, conversion_time, latency, bytes_in, bytes_out) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                job.job_id, entry.key, str(job.source), str(job.output), job.recipe.model_dump_json(), job.accepted,
                job.run_uid, job.stream, job.seq_num, json.dumps(entry.metadata), *columns,
            ),
        )  # fmt: skip

    def _rows_of_jobs(self, job_ids: Sequence[str]) -> list[tuple[str | None, str]]:
        rows: dict[str, tuple[str | None, str]] = {}
        with self._lock:
            for start in range(0, len(job_ids), _VARIABLES):
                part = job_ids[start : start + _VARIABLES]
                marks = ",".join("?" * len(part))
                found = self._database.execute(
                    f"SELECT job_id, outcome, report FROM jobs WHERE job_id IN ({marks})",  # noqa: S608 - only marks
                    part,
                )
                rows.update({job_id: (outcome, report) for job_id, outcome, report in found})
        missing = [job_id for job_id in job_ids if job_id not in rows]
        if missing:
            raise UnknownIdError(
                f"unknown job id {missing[0]!r} ({len(missing)} of {len(job_ids)} are unknown): "
                "it was never accepted by this server, or its history was pruned"
            )
        return [rows[job_id] for job_id in job_ids]

    def _rows_of_run(self, run_uid: str) -> list[tuple[str | None, str]]:
        with self._lock:
            self._require_run(run_uid)
            return self._database.execute(
                "SELECT outcome, report FROM jobs WHERE run_uid=? ORDER BY number", (run_uid,)
            ).fetchall()

    def _require_run(self, run_uid: str) -> None:
        if self._database.execute("SELECT 1 FROM runs WHERE run_uid=?", (run_uid,)).fetchone() is None:
            raise UnknownIdError(f"unknown run {run_uid!r}: no frame of it was submitted and it was not announced")


def _open_for_this_server(path: Path) -> sqlite3.Connection:
    """Hold the file until it is closed or this process ends: two servers would convert every frame twice."""
    database = None
    try:
        database = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=1.0)
        database.execute("PRAGMA locking_mode=EXCLUSIVE")
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("BEGIN IMMEDIATE")
        database.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        if database is not None:
            database.close()
        raise OSError(
            f"{path}: the ledger can't be opened ({error}); expected one that no other server uses. "
            "End the other server if there is one, or give this one another state directory."
        ) from error
    return database


def _report_columns(report: FrameReport) -> tuple[object, ...]:
    return (
        report.outcome,
        report.model_dump_json(),
        report.conversion_time,
        report.latency,
        report.bytes_in,
        report.bytes_out,
    )


def _count(outcomes: Iterable[Outcome | None]) -> dict[Outcome, int]:
    counts: dict[Outcome, int] = {"converted": 0, "skipped": 0, "placeholder": 0, "failed": 0}
    for outcome in outcomes:
        if outcome is not None:
            counts[outcome] += 1
    return counts
