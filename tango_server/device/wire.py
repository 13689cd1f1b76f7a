"""Conversion to and from Tango: JSON messages, texts and errors.

Tango strings are Latin-1, file names need not be.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

import tango
from pydantic import BaseModel, ValidationError

from tango_server.application import NotServingError, NoTurnError
from tango_server.conversion.errors import ConversionError
from tango_server.jobs.capacity import BacklogFullError, DiskFullError
from tango_server.jobs.ledger.database import LedgerBusyError, LedgerDamagedError
from tango_server.jobs.ledger.history import UnknownIdError
from tango_server.limits import DEEPEST, LONGEST_TEXT
from tango_server.messages import ReportsAnswer
from tango_server.recipe import Recipe
from tango_server.text import explain

Message = TypeVar("Message", bound=BaseModel)

_REASONS: dict[type[Exception], str] = {
    NotServingError: "PETIF_Fault",
    LedgerDamagedError: "PETIF_Fault",
    BacklogFullError: "PETIF_BacklogFull",  # this and the next four may succeed later
    DiskFullError: "PETIF_DiskFull",
    LedgerBusyError: "PETIF_Busy",
    NoTurnError: "PETIF_Busy",
    TimeoutError: "PETIF_Busy",
    UnknownIdError: "PETIF_UnknownId",
    ConversionError: "PETIF_BadPath",
}


def to_latin(text: str) -> str:
    """Return a text for people that Tango can carry: characters outside Latin-1 are escaped."""
    return text.encode("latin-1", "backslashreplace").decode("latin-1")


def to_wire(message: BaseModel) -> str:
    """Return a message as ASCII JSON, which Tango transfers unchanged."""
    if isinstance(message, ReportsAnswer):  # one by one, so that other threads can run in between
        reports, awaited = (", ".join(map(to_wire, each)) for each in (message.reports, message.awaited))
        more = f', "awaited": [{awaited}]' if awaited else ""
        more += f', "position": {json.dumps(message.position)}' if message.position else ""
        return f'{{"reports": [{reports}], "pending": {message.pending}{more}}}'
    return json.dumps(message.model_dump(mode="json"))


def from_wire(model: type[Message], text: str, origin: str) -> Message:
    """Parse a message; throw a `DevFailed` that names the invalid fields."""
    require_at_most(LONGEST_TEXT, len(text), "bytes of JSON", origin)
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        _throw_bad_argument(explain(error), origin)


def recipe_from_wire(text: str, origin: str) -> Recipe:
    """Parse a recipe in any of its forms; throw a `DevFailed` that names the invalid fields."""
    require_at_most(LONGEST_TEXT, len(text), "bytes of JSON", origin)
    try:
        return Recipe.parse(text)
    except ValueError as error:
        _throw_bad_argument(str(error), origin)


def _throw_bad_argument(problem: str, origin: str) -> NoReturn:
    if "recursion" in problem:  # the parser's own limit, which is far above ours
        problem = f"the JSON is nested too deeply (at most {DEEPEST} levels)"
    throw("PETIF_BadArgument", f"{origin}: {problem}. Correct the argument and call again.", origin)


def require_at_most(cap: int, found: int, what: str, origin: str) -> None:
    """Throw a `DevFailed` that names the limit `cap` if `found` exceeds it; `what` is counted, for example "paths"."""
    if found > cap:
        throw("PETIF_TooMuch", f"{origin}: {found} {what} are too many (at most {cap}). Split the call.", origin)


@contextmanager
def translated(origin: str) -> Iterator[None]:
    """Throw errors of the service as `DevFailed`, with a reason that clients can distinguish."""
    try:
        yield
    except tuple(_REASONS) as error:
        reason = next(reason for kind, reason in _REASONS.items() if isinstance(error, kind))
        throw(reason, str(error) or "Timed out: the server is still working on it. Check QueueLength.", origin)


def throw(reason: str, text: str, origin: str) -> NoReturn:
    """Throw a `DevFailed`."""
    tango.Except.throw_exception(reason, to_latin(text), origin)
    raise AssertionError(reason)  # not reached: throw_exception always raises
