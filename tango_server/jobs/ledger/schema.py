"""The tables of the ledger, and the migrations from earlier versions."""

VERSION = 4

SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS recipes (
        id INTEGER PRIMARY KEY,
        text TEXT NOT NULL UNIQUE,
        used REAL NOT NULL
    )
    """,
    # `request` is the FrameRequest in JSON, without recipe and metadata; `key` and `run_uid` are repeated for lookup.
    # `source`, `output` and `mask` are resolved. `corrections`: those of the recipe with resolved paths, in JSON; NULL
    # where the paths are the same.
    # `place` orders the queue: a retried job goes to its end. `synced`: 0 the output may not be on disk yet, 1 it is,
    # 2 flushing it has failed. `retryable`: failed, and RetryFailed would retry it. `age`: age of the ledger (s) when
    # the job finished; `announced` of runs and `used` of recipes are such ages, too. `group_id` and `member` are those
    # of the request; a row with a group but no member is the group itself, and its request has the number of members.
    """
    CREATE TABLE IF NOT EXISTS jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        place INTEGER NOT NULL,
        job_id TEXT NOT NULL UNIQUE,
        key TEXT UNIQUE,
        run_uid TEXT,
        source TEXT NOT NULL,
        source_root TEXT,
        output TEXT NOT NULL,
        output_root TEXT,
        mask TEXT,
        recipe_id INTEGER NOT NULL,
        accepted REAL NOT NULL,
        request TEXT NOT NULL,
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
        age REAL,
        corrections TEXT,
        group_id TEXT,
        member INTEGER
    )
    """,
    "CREATE INDEX IF NOT EXISTS jobs_of_run ON jobs (run_uid) WHERE run_uid IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS jobs_finished_of_run ON jobs (run_uid, age) WHERE outcome IS NOT NULL",
    # Covers the statistics of a run, so that its rows, each with a whole report, need not be read.
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
    # `seen`: how many seq_nums and indices of the stream a client has read; `submitted`: its requests for them.
    """
    CREATE TABLE IF NOT EXISTS run_counts (
        run_uid TEXT NOT NULL,
        stream TEXT NOT NULL,
        seen INTEGER NOT NULL,
        submitted INTEGER NOT NULL,
        PRIMARY KEY (run_uid, stream)
    ) WITHOUT ROWID
    """,
    """
    CREATE TRIGGER IF NOT EXISTS run_counts_pruned AFTER DELETE ON runs
    BEGIN
        DELETE FROM run_counts WHERE run_uid = old.run_uid;
    END
    """,
    "CREATE TABLE IF NOT EXISTS gatherings (id TEXT PRIMARY KEY, paths TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
)

ADDED_COLUMNS = {"corrections": "TEXT", "group_id": "TEXT", "member": "INTEGER"}
"""Columns of `jobs`, and their types, that a ledger of this version may lack."""

INDEXES_OF_ADDED = (
    "CREATE INDEX IF NOT EXISTS jobs_of_group ON jobs (group_id, member) WHERE group_id IS NOT NULL",
    """
    CREATE INDEX IF NOT EXISTS jobs_groups
    ON jobs (run_uid, outcome) WHERE group_id IS NOT NULL AND member IS NULL
    """,
)

_INDEXES = (
    "jobs_of_run", "jobs_finished_of_run", "jobs_numbers", "jobs_pending", "jobs_finished", "jobs_of_outcome",
    "jobs_unsynced", "jobs_retryable", "jobs_of_recipe",
)  # fmt: skip

_COMMON = (
    "number, job_id, key, run_uid, source, output, accepted, metadata, outcome, report, conversion_time, latency, "
    "bytes_in, bytes_out"
)
_REQUEST = (
    "json_object('source', source, 'key', key, 'run_uid', run_uid, 'stream', stream, 'seq_num', seq_num) AS request"
)
"""The request of a job of an earlier version; its source is the resolved one."""


def _rewritten(columns: str, values: str) -> tuple[str, ...]:
    """Return the statements that rewrite the jobs of an earlier version, with these columns besides the common ones.

    `values` are SQL expressions for `columns` in the schema of the earlier version.
    """
    copied = f"INSERT INTO jobs ({_COMMON}, request, {columns}) "
    copied += f"SELECT {_COMMON}, {_REQUEST}, {values} FROM jobs_before"  # noqa: S608
    return (
        "ALTER TABLE jobs RENAME TO jobs_before",
        *(f"DROP INDEX IF EXISTS {index}" for index in _INDEXES),
        *SCHEMA,
        copied,
        "DROP TABLE jobs_before",
    )


_RECIPE_ID = "(SELECT id FROM recipes WHERE text = recipe)"
_FINISHED = "json_extract(report, '$.finished')"
_FINISHED_AT_AGE_0 = "CASE WHEN outcome IS NULL THEN NULL ELSE 0 END"
_SINCE_2 = "place, source_root, output_root, recipe_id, finished, source_size, source_mtime_ns, synced, retryable"
_FROM_1 = (
    "ALTER TABLE runs RENAME TO runs_before",
    SCHEMA[0],
    "INSERT INTO recipes (text, used) SELECT recipe, 0 FROM jobs GROUP BY recipe",
    *_rewritten(
        "place, recipe_id, finished, retryable, age",
        f"number, {_RECIPE_ID}, {_FINISHED}, 0, {_FINISHED_AT_AGE_0}",
    ),
    "INSERT INTO runs SELECT run_uid, 0 FROM runs_before",
    "DROP TABLE runs_before",
)
_FROM_2 = (
    *_rewritten(f"{_SINCE_2}, age", f"{_SINCE_2}, {_FINISHED_AT_AGE_0}"),
    "UPDATE runs SET announced=0",
    "UPDATE recipes SET used=0",
)
_FROM_3 = _rewritten(f"{_SINCE_2}, age", f"{_SINCE_2}, age")

MIGRATIONS = {1: _FROM_1, 2: _FROM_2, 3: _FROM_3}
"""The statements that migrate each version to this one. Jobs that finished before count as finished now.

A ledger of this version may lack an index, `run_counts` or a column of `ADDED_COLUMNS`, which were added later: the
schema is applied at each start.
Earlier programs are not affected, so the version stays the same; the trigger prunes `run_counts` for them, too.
"""
