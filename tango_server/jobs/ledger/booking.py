"""Writes requests to the ledger: each key once, and members with their groups."""

import sqlite3
from dataclasses import dataclass, field, replace

from tango_server.jobs.job import NO_OUTPUT, Job
from tango_server.jobs.ledger import groups
from tango_server.jobs.ledger.groups import NextPlace
from tango_server.jobs.ledger.rows import insert, recipe_id


@dataclass(frozen=True, slots=True)
class Booked:
    """The ledger entry of a request. `new`: it was not there before; `source` is that of the job.

    `refused`: why it does not fit into its group. `pending`: how many jobs became pending with it, which may be its
    group and other members, too. `superseded`: pending jobs whose place it took.
    """

    job_id: str
    source: str
    new: bool
    refused: str = ""
    pending: int = 0
    superseded: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Booking:
    """A transaction that accepts jobs; `recipes` are the numbers of those that it has met."""

    connection: sqlite3.Connection
    age: float
    next_place: NextPlace
    recipes: dict[int, int] = field(default_factory=dict)

    def book(self, job: Job) -> Booked:
        """Write a job, unless its key is known; return its entry."""
        key = job.request.key
        known = _by_key(self.connection, key)
        if known is not None and not job.refused and _drop_refusal(self.connection, key):
            known = None
        if known is not None:
            return known
        recipe = job.recipe
        if id(recipe) not in self.recipes:
            self.recipes[id(recipe)] = recipe_id(self.connection, recipe, self.age)
        if job.is_member and not job.refused:
            return self._book_member(job, self.recipes[id(recipe)])
        insert(self.connection, job, self.recipes[id(recipe)], self.next_place(), self.age)
        return Booked(job.job_id, str(job.source), new=True, pending=int(not job.refused))

    def _book_member(self, job: Job, recipe: int) -> Booked:
        """Write a member, and its group with the first one; a group that has ended is made anew."""
        age, pending = self.age, 1
        row = groups.group_row(self.connection, job.group)
        if row is not None and (problem := row.problem_with(job, recipe)):
            request = job.request.model_copy(update={"group": None, "member": None, "members": None})
            refused = replace(job, request=request, output=NO_OUTPUT, refused=problem)
            insert(self.connection, refused, recipe, self.next_place(), age)
            return Booked(job.job_id, str(job.source), new=True, refused=problem)
        superseded: frozenset[str] = frozenset()
        if row is None:
            insert(self.connection, groups.group_job(job), recipe, self.next_place(), age)
            pending += 1
        else:
            superseded = groups.supersede(self.connection, job, job.accepted or 0.0, age)
            grown = row.members and (job.request.member or 0) + 1
            groups.set_number(self.connection, row, max(job.request.members or 0, grown))
            if not row.is_pending:
                pending += groups.reopen(self.connection, job.group, self.next_place)
        insert(self.connection, job, recipe, self.next_place(), age)
        return Booked(job.job_id, str(job.source), new=True, pending=pending, superseded=superseded)


def _by_key(connection: sqlite3.Connection, key: str | None) -> Booked | None:
    if key is None:
        return None
    row = connection.execute("SELECT job_id, source FROM jobs WHERE key=?", (key,)).fetchone()
    return Booked(row[0], row[1], new=False) if row else None


def _drop_refusal(connection: sqlite3.Connection, key: str | None) -> bool:
    """Delete a request that was refused, since it comes again corrected; return whether there was one."""
    cursor = connection.execute("DELETE FROM jobs WHERE key=? AND outcome='failed' AND output=?", (key, str(NO_OUTPUT)))
    return cursor.rowcount > 0
