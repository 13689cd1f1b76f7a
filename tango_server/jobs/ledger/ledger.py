"""The durable queue: survives `kill -9` of the server.

Every call is one transaction on the `Database`; any thread may call.
"""

import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tango_server.jobs.job import NO_OUTPUT, Job
from tango_server.jobs.ledger.database import Database, LedgerBusyError
from tango_server.jobs.ledger.rows import (
    FINISHED_COLUMNS,
    ORIGIN,
    PENDING_COLUMNS,
    finished_row,
    insert,
    job_of,
    recipe_id,
)
from tango_server.jobs.state_machine.events import Fetched, Finish, Selection
from tango_server.messages import StreamCounts

_log = logging.getLogger(__name__)

_NO_COUNTS: Mapping[str, StreamCounts] = {}
_PORTION = 2000  # rows changed at a time: the ledger is locked meanwhile
_PENDING = (
    f"SELECT {PENDING_COLUMNS} FROM jobs JOIN recipes ON recipes.id = recipe_id "  # noqa: S608 - our own constants
    "WHERE outcome IS NULL AND place > ? ORDER BY place LIMIT ?"
)
_FINISH = (
    f"UPDATE jobs SET (age, {FINISHED_COLUMNS}) = (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608
    "WHERE job_id=? AND outcome IS NULL"
)
_COUNT = (
    "INSERT INTO run_counts VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "seen=max(seen, excluded.seen), submitted=max(submitted, excluded.submitted)"
)
_IN_ORDER = (
    "SELECT number, job_id, run_uid, place FROM jobs WHERE outcome IS NULL AND place > ? AND place <= ? "
    "ORDER BY place LIMIT ?"
)
_OF_IDS = (  # of a file, also the jobs of its frames: '$' follows '#'
    "SELECT number, job_id FROM jobs WHERE outcome IS NULL AND job_id IN (SELECT value FROM json_each(?1)) UNION "
    "SELECT number, job_id FROM json_each(?1) AS named JOIN jobs "
    "ON jobs.key > named.value || '#' AND jobs.key < named.value || '$' WHERE outcome IS NULL"
)
_END = (
    "UPDATE jobs SET outcome='{outcome}', finished=?, age=?, conversion_time=0, bytes_in=0, bytes_out=0, "
    "report=json_object('job_id', job_id, 'source', source, 'outcome', '{outcome}', 'reason', {reason}, "
    "'accepted', accepted, 'finished', ?, {origin}) "
    "WHERE {which}=? AND outcome IS NULL"
)
_CANCEL = _END.format(outcome="skipped", reason="'cancelled on request'", which="number", origin=ORIGIN)
_SET_ASIDE = _END.format(outcome="failed", reason="?", which="job_id", origin=ORIGIN)
_RETRY = (
    "UPDATE jobs SET outcome=NULL, report=NULL, finished=NULL, conversion_time=NULL, latency=NULL, bytes_in=NULL, "
    "bytes_out=NULL, synced=NULL, age=NULL, retryable=0, place=? WHERE number=? AND retryable=1"
)


@dataclass(frozen=True, slots=True)
class Booked:
    """The ledger entry of a request. `new`: it was not there before; `source` is that of the job."""

    job_id: str
    source: str
    new: bool


class Ledger:
    """The jobs: accepting, reading in order, finishing, cancelling, retrying."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.reading() as connection:
            last = connection.execute(
                "SELECT (SELECT max(number) FROM jobs), (SELECT max(place) FROM jobs WHERE outcome IS NULL), "
                "(SELECT max(place) FROM jobs WHERE synced=0)"
            ).fetchone()
        self._last_place = max(place or 0 for place in last)
        self._earlier = self._last_place  # jobs up to here are from an earlier server

    def accept(
        self, jobs: Sequence[Job], runs: Iterable[str] = (), run_counts: Mapping[str, StreamCounts] = _NO_COUNTS
    ) -> list[Booked]:
        """Write jobs, announced runs and their counts in one transaction; return the entry of each job."""
        uids = {job.request.run_uid for job in jobs if job.request.run_uid}.union(runs, run_counts)
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO runs VALUES (?, ?)", [(uid, self._database.age) for uid in uids]
            )
            for uid, streams in run_counts.items():
                connection.executemany(_COUNT, [(uid, stream, *counts) for stream, counts in streams.items()])
            recipes: dict[int, int] = {}
            return [self._book(connection, job, recipes) for job in jobs]

    def pending(self) -> int:
        """Return the number of jobs without a report."""
        with self._database.reading() as connection:
            row: tuple[int] = connection.execute("SELECT count(*) FROM jobs WHERE outcome IS NULL").fetchone()
        return row[0]

    def fetch(self, after: int, limit: int) -> Fetched:
        """Return the next jobs without a report. One that this version can't read is left to another version."""
        with self._database.reading() as connection:
            rows = connection.execute(_PENDING, (after, limit)).fetchall()
        jobs, unreadable = [], set[str]()
        for row in rows:
            try:
                jobs.append(job_of(row, self._earlier))
            except Exception as error:  # noqa: BLE001 - an invalid row must not block the others
                unreadable.add(row[1])
                _log.error(
                    "Cannot read job %s (%s) from the ledger; left for another version: %s", row[1], row[2], error
                )
        return Fetched(tuple(jobs), frozenset(unreadable), rows[-1][0] if rows else after)

    def finish(self, finished: Sequence[Finish]) -> None:
        """Write the reports of jobs in one transaction."""
        if not finished:
            return
        rows = [finished_row(one.report, one.identity) for one in finished]
        with self._database.transaction() as connection:
            age = self._database.age  # within the transaction: ages increase in the order of commits
            connection.executemany(_FINISH, [(age, *row) for row in rows])

    def set_aside(self, job_id: str, reason: str, finished: float) -> None:
        """End a pending job whose report can't be written, with a report made only from data on the ledger."""
        with self._database.transaction() as connection:
            connection.execute(_SET_ASIDE, (finished, self._database.age, reason, finished, job_id))

    def cancel(self, selection: Selection, spared: Iterable[str], finished: float) -> frozenset[str]:
        """Cancel the selected pending jobs, except `spared`; return their ids.

        In portions, so that others need not wait. If the ledger can't be written halfway, the rest stays pending.
        """
        kept, cancelled = set(spared), set[str]()
        for portion in self._selected(selection):
            selected = [(number, job_id) for number, job_id in portion if job_id not in kept]
            try:
                with self._database.transaction() as connection:
                    connection.executemany(
                        _CANCEL, [(finished, self._database.age, finished, number) for number, _ in selected]
                    )
            except LedgerBusyError as error:
                if not cancelled:
                    raise
                _log.error("Cancelled only %d jobs; the others stay pending: %s", len(cancelled), error)
                break
            cancelled.update(job_id for _, job_id in selected)
        return frozenset(cancelled)

    def _selected(self, selection: Selection) -> Iterator[list[tuple[int, str]]]:
        """Yield number and job id of the selected pending jobs, in portions; without those that arrive meanwhile."""
        if selection.job_ids is not None:
            yield from self._pending_of(selection.job_ids)
            return
        after, last = 0, self._last_place
        while after < last:
            with self._database.reading() as connection:
                rows = connection.execute(_IN_ORDER, (after, last, _PORTION)).fetchall()
            yield [(number, job_id) for number, job_id, run, _ in rows if selection.run_uid in {None, run}]
            after = rows[-1][3] if rows else last

    def _pending_of(self, job_ids: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
        for start in range(0, len(job_ids), _PORTION):
            portion = json.dumps(job_ids[start : start + _PORTION])
            with self._database.reading() as connection:
                found = connection.execute(_OF_IDS, (portion,)).fetchall()
            yield found

    def retry_failed(self) -> int:
        """Put the failed jobs at the end of the queue again; return their number."""
        retried = 0
        for portion in self._failed():
            try:
                with self._database.transaction() as connection:
                    again = [(self._next_place(), number) for number in portion]
                    count = connection.executemany(_RETRY, again).rowcount
            except LedgerBusyError as error:
                if not retried:
                    raise
                _log.error("Retrying only %d failed jobs; the others stay failed: %s", retried, error)
                break
            retried += count
        return retried

    def dismiss_failed(self) -> None:
        """Exclude the jobs that have failed so far from `retry_failed`."""
        for portion in self._failed():
            with self._database.transaction() as connection:
                connection.executemany("UPDATE jobs SET retryable=0 WHERE number=?", [(number,) for number in portion])

    def _failed(self) -> Iterator[list[int]]:
        """Yield the numbers of the failed jobs in portions, each once, even if one fails again meanwhile."""
        last = 0
        while True:
            with self._database.reading() as connection:
                found = connection.execute(
                    "SELECT number FROM jobs WHERE retryable=1 AND number > ? ORDER BY number LIMIT ?", (last, _PORTION)
                ).fetchall()
            if not found:
                return
            last = found[-1][0]
            yield [number for (number,) in found]

    def _next_place(self) -> int:
        self._last_place += 1
        return self._last_place

    def keep(self, name: str, value: str) -> None:
        """Store a text under a name; survives a restart."""
        with self._database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (name, value))

    def kept(self, name: str) -> str | None:
        """Return the text stored under a name, None if there is none."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT value FROM kept WHERE name=?", (name,)).fetchone()
        return row[0] if row else None

    def add_submission(self, submission: str, paths: Sequence[str]) -> None:
        """Store folders and files that are to become jobs, under a name."""
        with self._database.transaction() as connection:
            connection.execute("INSERT INTO gatherings VALUES (?, ?)", (submission, json.dumps(list(paths))))

    def submissions(self) -> list[tuple[str, list[str]]]:
        """Return the stored submissions, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT id, paths FROM gatherings ORDER BY rowid").fetchall()
        return [(name, json.loads(paths)) for name, paths in rows]

    def remove_submission(self, submission: str) -> None:
        """Delete a submission, all of whose files are jobs now."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM gatherings WHERE id=?", (submission,))

    def _book(self, connection: sqlite3.Connection, job: Job, recipes: dict[int, int]) -> Booked:
        key = job.request.key
        known = _by_key(connection, key)
        if known is not None and not job.refused and _drop_refusal(connection, key):
            known = None
        if known is not None:
            return known
        recipe = job.recipe
        if id(recipe) not in recipes:
            recipes[id(recipe)] = recipe_id(connection, recipe, self._database.age)
        insert(connection, job, recipes[id(recipe)], self._next_place(), self._database.age)
        return Booked(job.job_id, str(job.source), new=True)


def _by_key(connection: sqlite3.Connection, key: str | None) -> Booked | None:
    if key is None:
        return None
    row = connection.execute("SELECT job_id, source FROM jobs WHERE key=?", (key,)).fetchone()
    return Booked(row[0], row[1], new=False) if row else None


def _drop_refusal(connection: sqlite3.Connection, key: str | None) -> bool:
    """Delete a request that was refused, since it comes again corrected; return whether there was one."""
    cursor = connection.execute("DELETE FROM jobs WHERE key=? AND outcome='failed' AND output=?", (key, str(NO_OUTPUT)))
    return cursor.rowcount > 0
