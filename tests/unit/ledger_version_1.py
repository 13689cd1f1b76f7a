"""Writes a ledger as the program of version 1 did, by its own statements."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from tango_server.jobs.job import Job
from tango_server.messages import FrameReport

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


def write_version_1(
    path: Path, jobs: Sequence[Job], reports: Sequence[FrameReport], runs: Sequence[str], kept: dict[str, str]
) -> None:
    """Write a ledger with these jobs, reports, announced runs and kept texts."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA locking_mode=EXCLUSIVE")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.executescript(_SCHEMA)
    database.execute("PRAGMA user_version=1")
    database.execute("BEGIN IMMEDIATE")
    uids = {job.request.run_uid for job in jobs if job.request.run_uid} | set(runs)
    database.executemany("INSERT OR IGNORE INTO runs VALUES (?)", [(uid,) for uid in uids])
    for job in jobs:
        _insert(database, job)
    database.executemany(
        "UPDATE jobs SET outcome=?, report=?, conversion_time=?, latency=?, bytes_in=?, bytes_out=? "
        "WHERE job_id=? AND outcome IS NULL",
        [(*_report_columns(report), report.job_id) for report in reports],
    )
    database.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?)", kept.items())
    database.execute("COMMIT")
    database.close()


def _insert(database: sqlite3.Connection, job: Job) -> None:
    request, report = job.request, job.refusal
    columns = _report_columns(report) if report else (None,) * 6
    database.execute(
        "INSERT INTO jobs (job_id, key, source, output, recipe, accepted, run_uid, stream, seq_num, metadata, "
        "outcome, report, conversion_time, latency, bytes_in, bytes_out) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            job.job_id, request.key, str(job.source), str(job.output), job.recipe.model_dump_json(), job.accepted,
            request.run_uid, request.stream, request.seq_num, json.dumps(request.metadata), *columns,
        ),
    )  # fmt: skip


def _report_columns(report: FrameReport) -> tuple[object, ...]:
    return (
        report.outcome, report.model_dump_json(), report.conversion_time, report.latency, report.bytes_in,
        report.bytes_out,
    )  # fmt: skip
