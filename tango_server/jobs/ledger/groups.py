"""The groups on the ledger: a group is a row like that of a frame, made with the row of its first member.

All functions are parts of a transaction. As long as a member of a group is pending, its group is pending, too: what
makes a member pending again makes its group and the other members pending again.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from tango_server.jobs.job import NO_OUTPUT, Job
from tango_server.jobs.ledger.rows import AGAIN, ORIGIN, PENDING_COLUMNS, job_of
from tango_server.jobs.state_machine.events import Finish, MemberEntry
from tango_server.messages import GroupReport
from tango_server.recipe import Recipe

CANCELLED = "cancelled on request"
_PREFIX = "group-"

_GROUP = (
    "SELECT number, job_id, outcome, run_uid, recipe_id, json_extract(request, '$.members'), "
    "json_extract(request, '$.stream') FROM jobs WHERE group_id=? AND member IS NULL"
)
_MEMBERS = (
    f"SELECT {PENDING_COLUMNS}, outcome, json_extract(report, '$.reason') "  # noqa: S608 - our own constants
    "FROM jobs JOIN recipes ON recipes.id = recipe_id "
    "WHERE group_id=?1 AND member IS NOT NULL AND (outcome IS NOT 'superseded' OR NOT EXISTS ("
    "SELECT 1 FROM jobs AS other WHERE other.group_id=?1 AND other.member=jobs.member AND "
    "(other.outcome IS NOT 'superseded' OR other.number > jobs.number))) ORDER BY member"
)
_EARLIER = "SELECT number, job_id, outcome, group_id, member FROM jobs WHERE key=? AND outcome IS NOT 'superseded'"
_SUPERSEDED = (
    "SELECT job_id, NOT EXISTS (SELECT 1 FROM jobs AS later WHERE later.group_id=one.group_id AND "
    "later.member=one.member AND later.outcome IS NOT 'superseded'), member FROM jobs AS one "
    "WHERE group_id=? AND member IS NOT NULL AND outcome='superseded'"
)
_PENDING = "SELECT job_id FROM jobs WHERE group_id=? AND member IS NOT NULL AND outcome IS NULL"
_SET_NUMBER = "UPDATE jobs SET request=json_set(request, '$.members', ?) WHERE number=?"
_RIVALS = "SELECT number, job_id, outcome FROM jobs WHERE group_id=? AND member=? AND outcome IS NOT 'superseded'"
_SUPERSEDE = (
    "UPDATE jobs SET outcome='superseded', retryable=0, finished=?1, age=?2, conversion_time=0, bytes_in=0, "  # noqa: S608
    "bytes_out=0, synced=NULL, "
    "report=json_object('job_id', job_id, 'source', source, 'outcome', 'superseded', 'reason', "
    f"'a later frame took its place', 'accepted', accepted, 'finished', ?1, {ORIGIN}) WHERE number=?3"
)
_ENDED = (
    "SELECT number FROM jobs WHERE group_id=? AND outcome IS NOT NULL AND output != ? AND (member IS NULL OR "
    "outcome != 'superseded' AND json_extract(report, '$.reason') IS NOT ?) ORDER BY member"
)
_REOPEN = (  # the row of a group keeps the path of what it has written
    "UPDATE jobs SET output=iif(member IS NULL, ifnull(json_extract(report, '$.output'), output), output), "  # noqa: S608
    f"{AGAIN}, place=? WHERE number=? AND outcome IS NOT NULL"
)
_REQUEUE = "UPDATE jobs SET place=? WHERE job_id=? AND outcome IS NULL"
_KEEP_OUTPUT = "UPDATE jobs SET output=? WHERE job_id=? AND outcome IS NULL"
_IS_SUPERSEDED = "SELECT 1 FROM jobs WHERE job_id=? AND outcome='superseded'"
_OF_ROWS = "SELECT DISTINCT group_id FROM jobs WHERE number=? AND group_id IS NOT NULL"
_PENDING_GROUPS = "SELECT group_id FROM jobs WHERE outcome IS NULL AND group_id IS NOT NULL AND member IS NULL"
_EMPTY_GROUP = (
    "SELECT number, job_id FROM jobs AS whole WHERE group_id=? AND member IS NULL AND outcome IS NULL AND NOT EXISTS "
    "(SELECT 1 FROM jobs WHERE group_id=whole.group_id AND member IS NOT NULL AND outcome IS NOT 'superseded' "
    "AND (outcome IS NULL OR json_extract(report, '$.reason') IS NOT ?))"
)

NextPlace = Callable[[], int]


def is_group_id(job_id: str) -> bool:
    """Whether a job id is that of a whole group."""
    return job_id.startswith(_PREFIX)


def group_job(member: Job) -> Job:
    """Return the job of the group of a member, for a new row.

    Its id, which is recorded in the output, follows from that of the group: the output is always the same.
    """
    request = member.request.model_copy(update={"member": None, "key": None})
    digest = hashlib.sha256(member.group.encode("utf-8", "surrogatepass")).hexdigest()
    return replace(member, job_id=f"{_PREFIX}{digest[:16]}", request=request)


@dataclass(frozen=True, slots=True)
class GroupRow:
    """The row of a group; `members` is their number, 0 while that is unknown."""

    number: int
    job_id: str
    is_pending: bool
    run_uid: str | None
    recipe: int
    members: int
    stream: str | None

    def problem_with(self, job: Job, recipe: int, connection: sqlite3.Connection) -> str:
        """Return why a job cannot be a member, with its recipe by number; empty if it can.

        Members may have other files of the run's dark: each has the one that was taken before it.
        """
        if recipe != self.recipe and job.has_run_dark and _alike(job.recipe, _recipe_of(connection, self.recipe)):
            recipe = self.recipe
        others = [
            name
            for name, own, other in (
                ("recipe", self.recipe, recipe),
                ("run", self.run_uid, job.request.run_uid),
                ("stream", self.stream, job.request.stream),
            )
            if own != other
        ]
        if not others:
            return ""
        return (
            f"{job.source}: cannot accept: it has another {' and '.join(others)} than the frames of group "
            f"{job.group!r}. Give it another group and submit it again."
        )


def _recipe_of(connection: sqlite3.Connection, number: int) -> Recipe:
    return Recipe.model_validate_json(
        connection.execute("SELECT text FROM recipes WHERE id=?", (number,)).fetchone()[0]
    )


def _alike(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes differ in the files of their darks at most."""
    if one.corrections is None or other.corrections is None or None in {one.corrections.dark, other.corrections.dark}:
        return False
    darks = [each.model_copy(update={"corrections": each.corrections.with_dark(("dark",))}) for each in (one, other)]  # type: ignore[union-attr]
    return darks[0] == darks[1]


def group_row(connection: sqlite3.Connection, group: str) -> GroupRow | None:
    """Return the row of a group, None if there is none."""
    row = connection.execute(_GROUP, (group,)).fetchone()
    if row is None:
        return None
    number, job_id, outcome, run_uid, recipe, members, stream = row
    return GroupRow(number, job_id, outcome is None, run_uid, recipe, members or 0, stream)


def set_number(connection: sqlite3.Connection, row: GroupRow, members: int) -> bool:
    """Keep the number of members of a group, unless it is known and not smaller; return whether that changed it."""
    if members <= row.members:
        return False
    connection.execute(_SET_NUMBER, (members, row.number))
    return True


def supersede(connection: sqlite3.Connection, job: Job, finished: float, age: float) -> frozenset[str]:
    """End the members whose place `job` takes; return the ids of those that were pending."""
    rivals = connection.execute(_RIVALS, (job.group, job.request.member)).fetchall()
    connection.executemany(_SUPERSEDE, [(finished, age, number) for number, _, _ in rivals])
    return frozenset(job_id for _, job_id, outcome in rivals if outcome is None)


def supersede_earlier(
    connection: sqlite3.Connection, job: Job, age: float, next_place: NextPlace
) -> tuple[frozenset[str], int]:
    """End the frame whose point `job` is, if it has another place; a group that had it is made anew without it.

    Return its id if it was pending, and how many jobs became pending.
    """
    earlier = connection.execute(_EARLIER, (job.request.supersedes,)).fetchone()
    if earlier is None:
        return frozenset(), 0
    number, job_id, outcome, group, member = earlier
    if group is not None and (group, member) == (job.request.group, job.request.member):
        return frozenset(), 0
    connection.execute(_SUPERSEDE, (job.accepted or 0.0, age, number))
    row = None if group is None else group_row(connection, group)
    pending = 0 if row is None or row.is_pending else reopen(connection, group, next_place)
    return frozenset() if outcome is not None else frozenset({job_id}), pending


def reopen(connection: sqlite3.Connection, group: str, next_place: NextPlace) -> int:
    """Make a group and its members pending again, at the end of the queue; return how many jobs that are.

    Those that were refused, cancelled or superseded stay as they are.
    """
    found = connection.execute(_ENDED, (group, str(NO_OUTPUT), CANCELLED)).fetchall()
    connection.executemany(_REOPEN, [(next_place(), number) for (number,) in found])
    return len(found)


def reopen_groups_of(connection: sqlite3.Connection, rows: Iterable[int], next_place: NextPlace) -> int:
    """Make the groups of these rows pending again that have ended; return how many jobs that are."""
    groups = {group: None for row in rows for (group,) in connection.execute(_OF_ROWS, (row,))}
    ended = [group for group in groups if (row := group_row(connection, group)) is not None and not row.is_pending]
    return sum(reopen(connection, group, next_place) for group in ended)


def reopen_pending(connection: sqlite3.Connection, next_place: NextPlace) -> None:
    """Make the members of all pending groups pending again: their outputs are lost."""
    for (group,) in connection.execute(_PENDING_GROUPS).fetchall():
        reopen(connection, group, next_place)


def members_of(connection: sqlite3.Connection, group: str) -> tuple[MemberEntry, ...]:
    """Return the members of a group in their order; superseded ones only where nothing took their place."""
    rows = connection.execute(_MEMBERS, (group,)).fetchall()
    return tuple(MemberEntry(job_of(row, 0), outcome, reason or "") for *row, outcome, reason in rows)


def has_changed(connection: sqlite3.Connection, step: Finish) -> bool:
    """Return whether members of a group have come, or were superseded, since it was converted."""
    if not isinstance(step.report, GroupReport) or not step.members or step.report.group is None:
        return False
    row = group_row(connection, step.report.group)
    known = {one.report.job_id for one in step.members}
    pending = {job_id for (job_id,) in connection.execute(_PENDING, (step.report.group,))}
    superseded = connection.execute(_SUPERSEDED, (step.report.group,)).fetchall()
    if not pending <= known or any(job_id in known for job_id, _, _ in superseded):
        return True
    places = len(step.report.members) + len({place for _, is_vacant, place in superseded if is_vacant})
    return row is not None and row.members > places


def requeue(connection: sqlite3.Connection, step: Finish, next_place: NextPlace) -> frozenset[str]:
    """Put a group and its members at the end of the queue; return those that are pending or superseded."""
    job_ids = [str(one.report.job_id) for one in (step, *step.members)]
    if step.report.output is not None:
        connection.execute(_KEEP_OUTPUT, (step.report.output, step.report.job_id))
    return frozenset(
        job_id
        for job_id in job_ids
        if connection.execute(_REQUEUE, (next_place(), job_id)).rowcount == 1
        or connection.execute(_IS_SUPERSEDED, (job_id,)).fetchone()  # its report was not written either
    )


def emptied(connection: sqlite3.Connection, groups: Iterable[str]) -> list[tuple[int, str]]:
    """Return number and job id of those of these groups all of whose members were cancelled."""
    return [row for group in groups for row in connection.execute(_EMPTY_GROUP, (group, CANCELLED))]
