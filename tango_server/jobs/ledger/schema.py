"""The tables of the ledger, and the ways from earlier versions to this one."""

VERSION = 3

SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS recipes (
        id INTEGER PRIMARY KEY,
        text TEXT NOT NULL UNIQUE,
        used REAL NOT NULL
    )
    """,
    # `place` orders the queue: a retried job goes to its end. `synced`: 0 the output is not on disk for sure, 1 it is,
    # 2 flushing it has failed. `retryable`: failed, and RetryFailed would try it again. `age`: how long the ledger had
    # been in use when the job was finished, s; `announced` of runs and `used` of recipes are such ages, too.
    """
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
        retryable INTEGER NOT NULL DEFAULT 0,
        age REAL
    )
    """,
    "CREATE INDEX IF NOT EXISTS jobs_of_run ON jobs (run_uid) WHERE run_uid IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS jobs_finished_of_run ON jobs (run_uid, age) WHERE outcome IS NOT NULL",
    # Holds all that the statistics of a run need: its rows, each with a whole report, stay unread.
    """
    CREATE INDEX IF NOT EXISTS jobs_numbers
    ON jobs (run_uid, outcome, latency, conversion_time, bytes_in, bytes_out, accepted, finished)
    WHERE run_uid IS NOT NULL
    """,
    "CREATE INDEX IF NOT EXISTS jobs_pending ON jobs (place) WHERE outcome IS NULL",
    "CREATE INDEX IF NOT EXISTS jobs_finished ON jobs (age, finished) WHERE outcome IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS jobs_of_outcome ON jobs (outcome, age, finished) WHERE outcome IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS jobs_unsynced ON jobs (place) WHERE synced = 0",
    "CREATE INDEX IF NOT EXISTS jobs_retryable ON jobs (number) WHERE retryable = 1",
    "CREATE INDEX IF NOT EXISTS jobs_of_recipe ON jobs (recipe_id)",
    "CREATE TABLE IF NOT EXISTS runs (run_uid TEXT PRIMARY KEY, announced REAL NOT NULL)",
    "CREATE TABLE IF NOT EXISTS gatherings (id TEXT PRIMARY KEY, paths TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
)

_FROM_1 = (
    "ALTER TABLE jobs RENAME TO jobs_1",
    "ALTER TABLE runs RENAME TO runs_1",
    "DROP INDEX IF EXISTS jobs_of_run",
    "DROP INDEX IF EXISTS jobs_pending",
    *SCHEMA,
    """
    INSERT INTO recipes (text, used)
    SELECT recipe, 0 FROM jobs_1 GROUP BY recipe
    """,
    """
    INSERT INTO jobs (number, place, job_id, key, source, output, recipe_id, accepted, run_uid, stream, seq_num,
        metadata, outcome, report, finished, conversion_time, latency, bytes_in, bytes_out, retryable, age)
    SELECT number, number, job_id, key, source, output,
        (SELECT id FROM recipes WHERE text = recipe), accepted, run_uid, stream, seq_num, metadata,
        outcome, report, json_extract(report, '$.finished'), conversion_time, latency, bytes_in, bytes_out, 0,
        CASE WHEN outcome IS NULL THEN NULL ELSE 0 END
    FROM jobs_1
    """,
    "INSERT INTO runs SELECT run_uid, 0 FROM runs_1",
    "DROP TABLE jobs_1",
    "DROP TABLE runs_1",
)

_FROM_2 = (
    "ALTER TABLE jobs ADD COLUMN age REAL",
    "UPDATE jobs SET age=0 WHERE outcome IS NOT NULL",
    "UPDATE runs SET announced=0",
    "UPDATE recipes SET used=0",
    "DROP INDEX IF EXISTS jobs_finished",
    *SCHEMA,
)

MIGRATIONS = {1: _FROM_1, 2: _FROM_2}
"""The statements that bring a version to this one. What was finished before counts as if it were now.

A ledger of this version may lack an index that was thought of later: the schema is gone through at each start. It
disturbs no earlier program, so the version stays.
"""
