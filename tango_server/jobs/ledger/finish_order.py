"""The reports of all runs in the order of finishing, for clients that follow which runs change.

A client continues from the position of a report, not of its job: a job that is retried gets a new report, which comes
after all those before it.
"""

import sqlite3
from typing import Any, NamedTuple

from tango_server.jobs.ledger.database import Database
from tango_server.jobs.ledger.history import UnknownIdError
from tango_server.jobs.ledger.rows import report_of
from tango_server.messages import ReportsAnswer, ReportsQuery
from tango_server.sqlite.wal_file import sqlite_integer

_NOW = "now"
_NEWEST = (
    "SELECT age, finished, number FROM jobs WHERE outcome IS NOT NULL "
    "ORDER BY age DESC, finished DESC, number DESC LIMIT 1"
)
_AFTER = (
    "SELECT age, finished, number, report FROM jobs WHERE outcome IS NOT NULL AND (age, finished, number) > (?, ?, ?) "
    "ORDER BY age, finished, number LIMIT ?"
)
_AFTER_OF = (
    "SELECT age, finished, number, report FROM jobs WHERE (age, finished, number) > (?, ?, ?) AND outcome=? "
    "ORDER BY age, finished, number LIMIT ?"
)


class _Position(NamedTuple):
    """Where a report stands: the age of the ledger and the instant when its job finished, and the job's number."""

    age: float
    finished: float
    number: int


_BEFORE_ALL = _Position(-1.0, 0.0, 0)


class FinishOrder:
    """The reports of all runs in the order of finishing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reports_after(self, query: ReportsQuery) -> ReportsAnswer:
        """Return the reports after the position `query.after`, oldest first; the newest position only if it is "now".

        Raises
        ------
        UnknownIdError
            if the position is not one of this ledger.

        """
        after = query.after or ""
        with self._database.reading() as connection:
            pending = connection.execute("SELECT count(*) FROM jobs WHERE outcome IS NULL").fetchone()[0]
            if after == _NOW:
                newest = connection.execute(_NEWEST).fetchone()
                return ReportsAnswer(reports=[], pending=pending, position=_text(newest) if newest else "")
            rows = _rows(connection, self._position(after), query)
        reports = [report_of(text) for *_, text in rows]
        return ReportsAnswer(reports=reports, pending=pending, position=_text(rows[-1]) if rows else after)

    def _position(self, text: str) -> _Position:
        if not text:
            return _BEFORE_ALL
        try:
            age, finished, number = text.split(",")
            position = _Position(float(age), float(finished), sqlite_integer(int(number)))
        except ValueError:
            position = None
        if position is None or not position.age <= self._database.age:  # later than now: of another ledger
            raise UnknownIdError(
                f'after: {text!r} is not the position of an earlier answer of this server. Begin with "now".'
            )
        return position


def _rows(connection: sqlite3.Connection, position: _Position, query: ReportsQuery) -> list[tuple[Any, ...]]:
    if query.outcome is None:
        return connection.execute(_AFTER, (*position, query.limit)).fetchall()
    return connection.execute(_AFTER_OF, (*position, query.outcome, query.limit)).fetchall()


def _text(row: tuple[Any, ...]) -> str:
    age, finished, number, *_ = row
    return f"{age!r},{finished!r},{number}"
