"""Writes a ledger as the program of version 2 did, by its own statements."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from tango_server.jobs.job import Job
from tango_server.messages import FrameReport

_SCHEMA = """
CREATE TABLE IF NOT EXISTS recipes (
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE,
    used REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    place INTEGER NOT NULL,
    job_id TEXT NOT NULL UNIQUE,
    key TEXT UNIQUE,
    source TEXT NOT NULL,
    source_root TEXT,
    output TEXT NOT NULL,
    output_root TEXT,
    recipe_id INTEGER NOT NULL,
    accepted REAL NOT NULL,
    run_uid TEXT,
    stream TEXT,
    seq_num INTEGER,
    metadata TEXT NOT NULL,
    outcome TEXT,
    report TEXT,
    finished REAL,
    conversion_time REAL,
    latency REAL,
    bytes_in INTEGER,
    bytes_out INTEGER,
    source_size INTEGER,
    source_mtime_ns INTEGER,
    synced INTEGER,
    retryable INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS jobs_of_run ON jobs (run_uid) WHERE run_uid IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_pending ON jobs (place) WHERE outcome IS NULL;
CREATE INDEX IF NOT EXISTS jobs_finished ON jobs (finished) WHERE outcome IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_unsynced ON jobs (place) WHERE synced = 0;
CREATE INDEX IF NOT EXISTS jobs_retryable ON jobs (number) WHERE retryable = 1;
CREATE INDEX IF NOT EXISTS jobs_of_recipe ON jobs (recipe_id);
CREATE TABLE IF NOT EXISTS runs (run_uid TEXT PRIMARY KEY, announced REAL NOT NULL);
CREATE TABLE IF NOT EXISTS gatherings (id TEXT PRIMARY KEY, paths TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_JOB = (
    "INSERT INTO jobs (number, place, job_id, key, source, output, recipe_id, accepted, run_uid, stream, seq_num, "
    "metadata, outcome, report, finished) "
    "VALUES (?, ?, ?, ?, ?, ?, (SELECT id FROM recipes WHERE text=?), ?, ?, ?, ?, ?, ?, ?, ?)"
)
_REPORT = (
    "UPDATE jobs SET outcome=?, report=?, finished=?, conversion_time=?, latency=?, bytes_in=?, bytes_out=?, "
    "retryable=? WHERE job_id=?"
)


def write_version_2(
    path: Path, jobs: Sequence[Job], reports: Sequence[FrameReport], runs: Sequence[str], kept: dict[str, str]
) -> None:
    """Write a ledger with these jobs (their roots unknown), reports, announced runs and kept texts."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA locking_mode=EXCLUSIVE")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.executescript(_SCHEMA)
    database.execute("PRAGMA user_version=2")
    database.execute("BEGIN IMMEDIATE")
    uids = {job.request.run_uid for job in jobs if job.request.run_uid} | set(runs)
    database.executemany("INSERT INTO runs VALUES (?, 1.7e9)", [(uid,) for uid in uids])
    recipes = {job.recipe.model_dump_json() for job in jobs}
    database.executemany("INSERT INTO recipes (text, used) VALUES (?, 1.7e9)", [(text,) for text in recipes])
    database.executemany(_JOB, [_job_row(place, job) for place, job in enumerate(jobs, 1)])
    database.executemany(_REPORT, [_report_row(report) for report in reports])
    database.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?)", kept.items())
    database.execute("COMMIT")
    database.close()


def _job_row(place: int, job: Job) -> tuple[object, ...]:
    request, report = job.request, job.refusal
    return (
        place, place, job.job_id, request.key, str(job.source), str(job.output), job.recipe.model_dump_json(),
        job.accepted, request.run_uid, request.stream, request.seq_num, json.dumps(request.metadata),
        report and report.outcome, report and report.model_dump_json(exclude_defaults=True), report and report.finished,
    )  # fmt: skip


def _report_row(report: FrameReport) -> tuple[object, ...]:
    return (
        report.outcome, report.model_dump_json(exclude_defaults=True), report.finished, report.conversion_time,
        report.latency, report.bytes_in, report.bytes_out, int(report.outcome == "failed"), report.job_id,
    )  # fmt: skip
