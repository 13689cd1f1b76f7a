"""The durable queue: survives `kill -9` of the server.

Every call is one transaction on the `Database`; any thread may call.
"""

import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tango_server.jobs.job import Job
from tango_server.jobs.ledger import groups
from tango_server.jobs.ledger.booking import Booked, Booking
from tango_server.jobs.ledger.database import Database, LedgerBusyError
from tango_server.jobs.ledger.rows import (
    AGAIN,
    FINISHED_COLUMNS,
    ORIGIN,
    PENDING_COLUMNS,
    finished_row,
    job_of,
)
from tango_server.jobs.state_machine.events import Assembled, Fetched, Finish, Selection
from tango_server.messages import GroupReport, StreamCounts

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
    "SELECT number, job_id, group_id, run_uid, place FROM jobs WHERE outcome IS NULL AND place > ? AND place <= ? "
    "ORDER BY place LIMIT ?"
)
_OF_IDS = (  # of a file, also the jobs of its frames: '$' follows '#'; of a group, also its members
    "SELECT number, job_id, group_id FROM jobs WHERE outcome IS NULL AND job_id IN (SELECT value FROM json_each(?1)) "
    "UNION SELECT number, job_id, group_id FROM json_each(?1) AS named JOIN jobs "
    "ON jobs.key > named.value || '#' AND jobs.key < named.value || '$' WHERE outcome IS NULL UNION "
    "SELECT number, job_id, group_id FROM jobs WHERE outcome IS NULL AND group_id IN (SELECT group_id FROM jobs "
    "WHERE job_id IN (SELECT value FROM json_each(?1)) AND group_id IS NOT NULL AND member IS NULL)"
)
_END = (
    "UPDATE jobs SET outcome='{outcome}', finished=?, age=?, conversion_time=0, bytes_in=0, bytes_out=0, "
    "report=json_object('job_id', job_id, 'source', source, 'outcome', '{outcome}', 'reason', {reason}, "
    "'accepted', accepted, 'finished', ?, {origin}) "
    "WHERE {which}=? AND outcome IS NULL"
)
_CANCEL = _END.format(outcome="skipped", reason=f"'{groups.CANCELLED}'", which="number", origin=ORIGIN)
_SET_ASIDE = _END.format(outcome="failed", reason="?", which="job_id", origin=ORIGIN)
_GROUP_OF = "SELECT group_id FROM jobs WHERE job_id=? AND group_id IS NOT NULL AND member IS NULL"
_IS_FAILED_FRAME = "SELECT retryable AND (group_id IS NULL OR member IS NOT NULL) FROM jobs WHERE number=?"
_END_MEMBERS = _END.format(outcome="failed", reason="?", which="member IS NOT NULL AND group_id", origin=ORIGIN)
_RETRY = f"UPDATE jobs SET {AGAIN}, place=? WHERE number=? AND retryable=1"  # noqa: S608 - our own constant


@dataclass(frozen=True, slots=True)
class Closed:
    """Groups whose number of members was given: `pending` and `unknown` ones; `reopened` jobs are pending again."""

    pending: dict[str, int]
    unknown: list[str]
    reopened: int


@dataclass(frozen=True, slots=True)
class Retried:
    """How many `frames` are retried, and how many `jobs` became pending with them: groups and their other members."""

    frames: int
    jobs: int


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
            booking = Booking(connection, self._database.age, self._next_place)
            return [booking.book(job) for job in jobs]

    def close_groups(self, members: Mapping[str, int]) -> Closed:
        """Keep the number of members of groups, durably; a larger one than before makes a finished group anew."""
        closed = Closed({}, [], 0)
        with self._database.transaction() as connection:
            for group, number in members.items():
                row = groups.group_row(connection, group)
                if row is None:
                    closed.unknown.append(group)
                    continue
                grown = groups.set_number(connection, row, number)
                if grown and not row.is_pending:
                    reopened = groups.reopen(connection, group, self._next_place)
                    closed = replace(closed, reopened=closed.reopened + reopened)
                if grown or row.is_pending:
                    closed.pending[group] = number
        return closed

    def members_of(self, job: Job) -> Assembled:
        """Return the members of a group, whose job this is."""
        with self._database.reading() as connection:
            return Assembled(job.job_id, groups.members_of(connection, job.group))

    def reopen_lost_groups(self) -> None:
        """Make the members of groups pending again whose outputs were lost."""
        with self._database.transaction() as connection:
            groups.reopen_pending(connection, self._next_place)

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

    def finish(self, finished: Sequence[Finish]) -> frozenset[str]:
        """Write the reports of jobs in one transaction.

        Return the jobs of groups that have changed since they were converted: these are at the end of the queue again.
        """
        if not finished:
            return frozenset()
        requeued: frozenset[str] = frozenset()
        with self._database.transaction() as connection:
            age = self._database.age  # within the transaction: ages increase in the order of commits
            for step in finished:
                if groups.has_changed(connection, step):
                    requeued |= groups.requeue(connection, step, self._next_place)
                    continue
                rows = [finished_row(one.report, one.identity) for one in (step, *step.members)]
                connection.executemany(_FINISH, [(age, *row) for row in rows])
                if isinstance(step.report, GroupReport) and not step.members:
                    _end_members(connection, step.report, age)
        return requeued

    def set_aside(self, job_id: str, reason: str, finished: float) -> frozenset[str]:
        """End a pending job whose report can't be written, with a report made only from data on the ledger."""
        with self._database.transaction() as connection:
            connection.execute(_SET_ASIDE, (finished, self._database.age, reason, finished, job_id))
            for (group,) in connection.execute(_GROUP_OF, (job_id,)).fetchall():
                connection.execute(_END_MEMBERS, (finished, self._database.age, reason, finished, group))
        return frozenset()

    def cancel(self, selection: Selection, spared: Iterable[str], finished: float) -> frozenset[str]:
        """Cancel the selected pending jobs, except `spared`; return their ids.

        In portions, so that others need not wait. If the ledger can't be written halfway, the rest stays pending.
        """
        kept, cancelled = set(spared), set[str]()
        for portion in self._selected(selection):
            selected = [(number, job_id) for number, job_id, _ in portion if job_id not in kept]
            touched = {group for _, job_id, group in portion if group is not None and job_id not in kept}
            try:
                with self._database.transaction() as connection:
                    age = self._database.age
                    connection.executemany(_CANCEL, [(finished, age, finished, number) for number, _ in selected])
                    empty = [row for row in groups.emptied(connection, touched) if row[1] not in kept]
                    connection.executemany(_CANCEL, [(finished, age, finished, number) for number, _ in empty])
            except LedgerBusyError as error:
                if not cancelled:
                    raise
                _log.error("Cancelled only %d jobs; the others stay pending: %s", len(cancelled), error)
                break
            cancelled.update(job_id for _, job_id in (*selected, *empty))
        return frozenset(cancelled)

    def _selected(self, selection: Selection) -> Iterator[list[tuple[int, str, str | None]]]:
        """Yield number, job id and group of the selected jobs, in portions; without those that arrive meanwhile."""
        if selection.job_ids is not None:
            yield from self._pending_of(selection.job_ids)
            return
        after, last = 0, self._last_place
        while after < last:
            with self._database.reading() as connection:
                rows = connection.execute(_IN_ORDER, (after, last, _PORTION)).fetchall()
            yield [(*row, group) for *row, group, run, _ in rows if selection.run_uid in {None, run}]
            after = rows[-1][4] if rows else last

    def _pending_of(self, job_ids: Sequence[str]) -> Iterator[list[tuple[int, str, str | None]]]:
        for start in range(0, len(job_ids), _PORTION):
            portion = json.dumps(job_ids[start : start + _PORTION])
            with self._database.reading() as connection:
                found = connection.execute(_OF_IDS, (portion,)).fetchall()
            yield found

    def retry_failed(self) -> Retried:
        """Put the failed jobs at the end of the queue again, with the groups that they are members of."""
        retried = Retried(0, 0)
        for portion in self._failed():
            try:
                with self._database.transaction() as connection:
                    frames = sum(
                        row[0] for number in portion for row in connection.execute(_IS_FAILED_FRAME, (number,))
                    )
                    jobs = groups.reopen_groups_of(connection, portion, self._next_place)
                    again = [(self._next_place(), number) for number in portion]
                    jobs += connection.executemany(_RETRY, again).rowcount
            except LedgerBusyError as error:
                if not retried.jobs:
                    raise
                _log.error("Retrying only %d failed frames; the others stay failed: %s", retried.frames, error)
                break
            retried = Retried(retried.frames + frames, retried.jobs + jobs)
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

    def replace_submission(self, submission: str, paths: Sequence[str]) -> None:
        """Store what was found in the folders of a submission instead of these."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE gatherings SET paths=? WHERE id=?", (json.dumps(list(paths)), submission))

    def submissions(self) -> list[tuple[str, list[str]]]:
        """Return the stored submissions, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT id, paths FROM gatherings ORDER BY rowid").fetchall()
        return [(name, json.loads(paths)) for name, paths in rows]

    def remove_submission(self, submission: str) -> None:
        """Delete a submission, all of whose files are jobs now."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM gatherings WHERE id=?", (submission,))


def _end_members(connection: sqlite3.Connection, report: GroupReport, age: float) -> None:
    """End the pending members of a group that failed before they were read."""
    connection.execute(_END_MEMBERS, (report.finished, age, report.reason, report.finished, report.group))
