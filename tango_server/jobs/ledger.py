"""The durable queue: what stands here survives `kill -9` of the server.

Every call is one transaction on the `Database`; any thread may call.
"""

import json
import logging
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tango_server.jobs.database import Database
from tango_server.jobs.vocabulary import Fetched, Job, Selection
from tango_server.messages import FrameReport
from tango_server.recipe import Recipe

_log = logging.getLogger(__name__)

NO_OUTPUT = Path()
"""The output of a request that was refused at once."""

_LARGEST_SIDE = 65_536  # pixels

_COLUMNS = (
    "number, place, job_id, key, source, source_root, output, output_root, recipe_id, accepted, run_uid, stream, "
    "seq_num, metadata, outcome, report, finished"
)
_PENDING = (
    "SELECT place, job_id, source, output, text, accepted, run_uid, stream, seq_num, source_root, output_root, "
    "metadata FROM jobs JOIN recipes ON recipes.id = recipe_id "
    "WHERE outcome IS NULL AND place > ? ORDER BY place LIMIT ?"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """What is written for one request: its job, its key and metadata, and its report if it was refused at once."""

    job: Job
    key: str | None
    metadata: dict[str, object]
    report: FrameReport | None = None


@dataclass(frozen=True, slots=True)
class Booked:
    """What stands on the ledger for an entry. `new`: it was not there before; `source` is that of the job."""

    job_id: str
    source: str
    report: FrameReport | None
    new: bool


class Ledger:
    """The jobs: accepted, read in their order, finished, cancelled, tried again."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.reading() as connection:
            row = connection.execute("SELECT max(place), max(number) FROM jobs").fetchone()
        self._last_place = max(row[0] or 0, row[1] or 0)
        self._earlier = self._last_place  # jobs up to here were begun by an earlier server

    def accept(self, entries: Sequence[Entry], runs: Iterable[str] = (), *, now: float = 0.0) -> list[Booked]:
        """Write jobs and announced runs in one transaction; return what stands there for each entry.

        `now` is in Unix seconds.
        """
        uids = {entry.job.run_uid for entry in entries if entry.job.run_uid}.union(runs)
        with self._database.transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO runs VALUES (?, ?)", [(uid, now) for uid in uids])
            recipes: dict[int, int] = {}
            return [self._book(connection, entry, recipes) for entry in entries]

    def pending(self) -> int:
        """Return how many jobs have no report."""
        with self._database.reading() as connection:
            row: tuple[int] = connection.execute("SELECT count(*) FROM jobs WHERE outcome IS NULL").fetchone()
        return row[0]

    def fetch(self, after: int, limit: int) -> Fetched:
        """Return the next jobs without a report. One that this version can't read is left for the next."""
        with self._database.reading() as connection:
            rows = connection.execute(_PENDING, (after, limit)).fetchall()
        jobs, unreadable = [], 0
        for row in rows:
            try:
                jobs.append(self._job(row))
            except (ValidationError, ValueError) as error:
                unreadable += 1
                _log.error("job %s (%s) can't be read and waits for another version: %s", row[1], row[2], error)
        return Fetched(tuple(jobs), unreadable, rows[-1][0] if rows else after)

    def finish(self, finished: Sequence[tuple[FrameReport, tuple[int, int] | None]]) -> None:
        """Write the reports of jobs in one transaction, each with size and modification time (ns) of its source."""
        if not finished:
            return
        rows = [_finished_row(report, identity) for report, identity in finished]
        with self._database.transaction() as connection:
            connection.executemany(
                "UPDATE jobs SET outcome=?, report=?, finished=?, conversion_time=?, latency=?, bytes_in=?, "
                "bytes_out=?, source_size=?, source_mtime_ns=?, synced=?, retryable=? "
                "WHERE job_id=? AND outcome IS NULL",
                rows,
            )

    def cancel(self, selection: Selection, spared: Iterable[str], finished: float) -> frozenset[str]:
        """Give the pending jobs that are meant, but none of `spared`, a report that says so; return their ids."""
        condition, values = _condition(selection)
        kept = set(spared)
        with self._database.transaction() as connection:
            found = connection.execute(
                f"SELECT number, job_id FROM jobs WHERE outcome IS NULL AND {condition}",  # noqa: S608 - our own words
                values,
            ).fetchall()
            meant = [(finished, finished, number) for number, job_id in found if job_id not in kept]
            connection.executemany(
                "UPDATE jobs SET outcome='skipped', finished=?, conversion_time=0, bytes_in=0, bytes_out=0, "
                "report=json_object('job_id', job_id, 'source', source, 'outcome', 'skipped', 'reason', "
                "'it was cancelled on request', 'accepted', accepted, 'finished', ?, 'run_uid', run_uid, "
                "'stream', stream, 'seq_num', seq_num) WHERE number=?",
                meant,
            )
        return frozenset(job_id for _, job_id in found) - kept

    def retry_failed(self) -> int:
        """Put the failed jobs at the end of the queue again; return how many they are."""
        with self._database.transaction() as connection:
            row = connection.execute("SELECT min(number), max(number) FROM jobs WHERE retryable=1").fetchone()
            if row[0] is None:
                return 0
            cursor = connection.execute(
                "UPDATE jobs SET outcome=NULL, report=NULL, finished=NULL, conversion_time=NULL, latency=NULL, "
                "bytes_in=NULL, bytes_out=NULL, synced=NULL, retryable=0, place=? + number WHERE retryable=1",
                (self._last_place + 1 - row[0],),
            )
            self._last_place += 1 + row[1] - row[0]
            return cursor.rowcount

    def dismiss_failed(self) -> None:
        """Leave the jobs that have failed so far as they are."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE jobs SET retryable=0 WHERE retryable=1")

    def keep(self, name: str, value: str) -> None:
        """Keep a text under a name over restarts."""
        with self._database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (name, value))

    def kept(self, name: str) -> str | None:
        """Return the text that was kept under a name, None if there is none."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT value FROM kept WHERE name=?", (name,)).fetchone()
        return row[0] if row else None

    def gather(self, gathering: str, paths: Sequence[str]) -> None:
        """Keep folders and files that are to become jobs, under a name."""
        with self._database.transaction() as connection:
            connection.execute("INSERT INTO gatherings VALUES (?, ?)", (gathering, json.dumps(list(paths))))

    def gatherings(self) -> list[tuple[str, list[str]]]:
        """Return what is to become jobs, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT id, paths FROM gatherings ORDER BY rowid").fetchall()
        return [(name, json.loads(paths)) for name, paths in rows]

    def gathered(self, gathering: str) -> None:
        """All of it has become jobs."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM gatherings WHERE id=?", (gathering,))

    def _job(self, row: tuple[Any, ...]) -> Job:
        place, job_id, source, output, recipe, accepted, run_uid, stream, seq_num, source_root, output_root, data = row
        return Job(
            job_id,
            Path(source),
            Path(output),
            _recipe(recipe),
            accepted,
            run_uid,
            stream,
            seq_num,
            Path(source_root) if source_root else None,
            Path(output_root) if output_root else None,
            _shape(data),
            place,
            resumed=place <= self._earlier,
        )

    def _book(self, connection: sqlite3.Connection, entry: Entry, recipes: dict[int, int]) -> Booked:
        known = _by_key(connection, entry.key)
        if known is not None and entry.report is None and _drop_refusal(connection, entry.key):
            known = None
        if known is not None:
            return known
        recipe = entry.job.recipe
        if id(recipe) not in recipes:
            recipes[id(recipe)] = _recipe_id(connection, recipe, entry.job.accepted)
        self._last_place += 1
        _insert(connection, entry, recipes[id(recipe)], self._last_place)
        return Booked(entry.job.job_id, str(entry.job.source), entry.report, new=True)


def _by_key(connection: sqlite3.Connection, key: str | None) -> Booked | None:
    if key is None:
        return None
    row = connection.execute("SELECT job_id, source, report FROM jobs WHERE key=?", (key,)).fetchone()
    if row is None:
        return None
    return Booked(row[0], row[1], FrameReport.model_validate_json(row[2]) if row[2] else None, new=False)


def _drop_refusal(connection: sqlite3.Connection, key: str | None) -> bool:
    """Forget a request that was refused at once, since it comes corrected; return whether there was one."""
    cursor = connection.execute("DELETE FROM jobs WHERE key=? AND outcome='failed' AND output=?", (key, str(NO_OUTPUT)))
    return cursor.rowcount > 0


def _recipe_id(connection: sqlite3.Connection, recipe: Recipe, used: float) -> int:
    text = recipe.model_dump_json()
    connection.execute(
        "INSERT INTO recipes (text, used) VALUES (?, ?) ON CONFLICT (text) DO UPDATE SET used=excluded.used",
        (text, used),
    )
    return int(connection.execute("SELECT id FROM recipes WHERE text=?", (text,)).fetchone()[0])


def _insert(connection: sqlite3.Connection, entry: Entry, recipe: int, place: int) -> None:
    job, report = entry.job, entry.report
    connection.execute(
        f"INSERT INTO jobs ({_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (
            place, job.job_id, entry.key, str(job.source), _text(job.source_root), str(job.output),
            _text(job.output_root), recipe, job.accepted, job.run_uid, job.stream, job.seq_num,
            json.dumps(entry.metadata), report and report.outcome, report and _report_text(report),
            report and report.finished,
        ),
    )  # fmt: skip


def _finished_row(report: FrameReport, identity: tuple[int, int] | None) -> tuple[object, ...]:
    written = report.outcome in {"converted", "placeholder"} and report.output != report.source
    size, mtime_ns = identity or (None, None)
    return (
        report.outcome, _report_text(report), report.finished, report.conversion_time, report.latency,
        report.bytes_in, report.bytes_out, size, mtime_ns, 0 if written else None, int(report.outcome == "failed"),
        report.job_id,
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
        case [*_, int(rows), int(columns)] if 0 < rows <= _LARGEST_SIDE and 0 < columns <= _LARGEST_SIDE:
            return rows, columns
    return None


def _condition(selection: Selection) -> tuple[str, tuple[str, ...]]:
    if selection.job_ids is not None:
        return "job_id IN (SELECT value FROM json_each(?))", (json.dumps(list(selection.job_ids)),)
    if selection.run_uid is not None:
        return "run_uid = ?", (selection.run_uid,)
    return "1", ()
