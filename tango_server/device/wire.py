"""What crosses Tango's boundary: JSON messages, texts and errors.

Tango's strings are Latin-1, and file names need not be.
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
    BacklogFullError: "PETIF_BacklogFull",  # this and the next two may go well later
    DiskFullError: "PETIF_DiskFull",
    LedgerBusyError: "PETIF_Busy",
    NoTurnError: "PETIF_Busy",
    TimeoutError: "PETIF_Busy",
    UnknownIdError: "PETIF_UnknownId",
    ConversionError: "PETIF_BadPath",
}


def to_latin(text: str) -> str:
    """Return a text that Tango can carry, for people: characters beyond Latin-1 are escaped."""
    return text.encode("latin-1", "backslashreplace").decode("latin-1")


def to_wire(message: BaseModel) -> str:
    """Return a message as JSON in ASCII, which loses nothing on its way through Tango."""
    if isinstance(message, ReportsAnswer):  # one by one, so that other threads get their turn between them
        reports, awaited = (", ".join(map(to_wire, each)) for each in (message.reports, message.awaited))
        more = f', "awaited": [{awaited}]' if awaited else ""
        return f'{{"reports": [{reports}], "pending": {message.pending}{more}}}'
    return json.dumps(message.model_dump(mode="json"))


def from_wire(model: type[Message], text: str, origin: str) -> Message:
    """Return the message in `text`; throw a `DevFailed` that names the wrong fields."""
    require_at_most(LONGEST_TEXT, len(text), "bytes of JSON", origin)
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        _throw_bad_argument(explain(error), origin)


def recipe_from_wire(text: str, origin: str) -> Recipe:
    """Return the recipe in `text`, in whatever form; throw a `DevFailed` that names the wrong fields."""
    require_at_most(LONGEST_TEXT, len(text), "bytes of JSON", origin)
    try:
        return Recipe.parse(text)
    except ValueError as error:
        _throw_bad_argument(str(error), origin)


def _throw_bad_argument(found: str, origin: str) -> NoReturn:
    if "recursion" in found:  # the parser's own limit, which is far above ours
        found = f"found JSON that is nested too deeply to be read; expected at most {DEEPEST} levels"
    throw("PETIF_BadArgument", f"{origin}: {found}. Correct it and call again.", origin)


def require_at_most(cap: int, found: int, what: str, origin: str) -> None:
    """Throw a `DevFailed` that names the cap if more than `cap` was `found`, as of "paths"."""
    if found > cap:
        throw("PETIF_TooMuch", f"{origin}: found {found} {what}; expected at most {cap}. Send them in parts.", origin)


@contextmanager
def translated(origin: str) -> Iterator[None]:
    """Throw what the service raises as a `DevFailed` that a client can tell from others."""
    try:
        yield
    except tuple(_REASONS) as error:
        reason = next(reason for kind, reason in _REASONS.items() if isinstance(error, kind))
        throw(reason, str(error) or "it takes long; look at the queue", origin)


def throw(reason: str, text: str, origin: str) -> NoReturn:
    """Throw a `DevFailed`."""
    tango.Except.throw_exception(reason, to_latin(text), origin)
    raise AssertionError(reason)  # throw_exception never returns, but does not say so
