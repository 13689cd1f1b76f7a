r"""Calls to a running `PETifConverter` device, for every program that talks to one: each waits for the answer.

A call ends in an answer or in one of these errors::

    LinkError
    +-- LinkDownError          the server can't be reached, or does not answer in time: try again later
    |   +-- ServerFullError    it has no room at present: try again later
    |   \-- ServerUnfitError   it answers, but can't convert (FAULT): try again once somebody has mended that
    +-- RequestRejectedError   it has understood the call and rejects it: trying again changes nothing
    +-- ServerFaultError       it stumbled over this very call, or answers in words that this version does not know
    \-- UnknownRunError        it has never heard of this run, or of this job

"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import tango
from pydantic import BaseModel, ValidationError

from tango_server.client.attributes import ATTRIBUTES, AttributeReading, readings, require
from tango_server.client.connection import TIMEOUT, Connection
from tango_server.limits import MANY_REPORTS, MOST_REPORTS
from tango_server.messages import (
    FolderAnswer,
    FrameReport,
    MissingAnswer,
    RefusedRequest,
    ReportsAnswer,
    ReportsQuery,
    RunStatistics,
    SubmitAnswer,
)

_NO_ADDRESS = ("API_TangoHostNotSet", "API_WrongDeviceNameSyntax")

Answer = TypeVar("Answer", bound=BaseModel)


class LinkError(Exception):
    """Something between us and the server."""


class LinkDownError(LinkError, ConnectionError):
    """The server can't be reached, or does not answer in time: try again later."""


class ServerFullError(LinkDownError):
    """The server has no room at present (its queue, a disk): try again later."""


class ServerUnfitError(LinkDownError):
    """The server answers, but can't convert (FAULT): try again once somebody has mended that."""


class RequestRejectedError(LinkError, ValueError):
    """The server has understood the call and rejects it: trying again changes nothing."""


class ServerFaultError(LinkError, RuntimeError):
    """The server was reached and stumbled over this very call, or answers in words that this version does not know."""


class UnknownRunError(LinkError, LookupError):
    """The server has never heard of this run, or of this job."""


@dataclass(frozen=True, slots=True)
class ServerSnapshot:
    """What a server shows at one instant.

    `attributes` are those with a valid value. `trouble` tells why the server can't convert, and is empty if it can.
    """

    version: str
    attributes: Mapping[str, AttributeReading]
    trouble: str = ""

    @property
    def state(self) -> str:
        """The Tango state, as RUNNING; UNKNOWN if it could not be read."""
        return str(self.value("State", "UNKNOWN"))

    def require(self, name: str) -> Any:
        """Return the value of an attribute; raise `ServerUnfitError` if the server has none."""
        if name not in self.attributes:
            raise ServerUnfitError(f"the server can't convert: {self.trouble or f'it has no {name}'}")
        return self.attributes[name].value

    def value(self, name: str, default: Any = None) -> Any:
        """Return the value of an attribute, or `default` if it has none at present."""
        reading = self.attributes.get(name)
        return default if reading is None else reading.value


class Client:
    """Calls to one device, from any thread. Construction succeeds with the server down.

    Parameters
    ----------
    address: the Tango resource locator, as `tango://127.0.0.1:45450/petif/converter/1#dbase=no`
    timeout: how long a call waits for its answer, s; more than 1, for which Tango refuses calls after a failure

    """

    def __init__(self, address: str, timeout: float = TIMEOUT) -> None:
        self.address = address
        self._connection = Connection(address, timeout)
        self._version = ""

    def snapshot(self) -> ServerSnapshot:
        """Read everything that the server shows, in two calls. Raises `LinkDownError`."""
        try:
            info = self._connection.call(lambda proxy: proxy.info())
            found = self._connection.call(lambda proxy: proxy.read_attributes(ATTRIBUTES))
        except tango.DevFailed as error:
            raise _silent(self.address, error) from error
        self._version = dict(info.version_info).get("petif-bluesky", "")
        trouble = ""
        try:
            require(found, "Recipe")  # which a device that can't convert does not have
        except tango.DevFailed as error:
            trouble = error.args[0].desc.strip()
        return ServerSnapshot(self._version, readings(found), trouble)

    def submit(self, requests: Sequence[Mapping[str, Any]], runs: Sequence[str] = ()) -> SubmitAnswer:
        """Hand requests to the server and announce runs; return when they are durable there."""
        return self._asked(SubmitAnswer, "Submit", json.dumps({"requests": list(requests), "runs": list(runs)}))

    def reports(self, query: ReportsQuery) -> ReportsAnswer:
        """Ask what became of jobs."""
        return self._asked(ReportsAnswer, "GetReports", query.model_dump_json(exclude_defaults=True))

    def reports_of_run(self, run_uid: str, after: str | None = None) -> Sequence[FrameReport]:
        """Ask for the reports of a run's frames, oldest first.

        With `after` only the first `MANY_REPORTS` that were finished after that of a job ("": of all), in that order. A
        server too old for that returns all of them.
        """
        if after is not None:
            try:
                return self.reports(ReportsQuery(run_uid=run_uid, after=after, limit=MANY_REPORTS)).reports
            except RequestRejectedError:
                pass
        return self.reports(ReportsQuery(run_uid=run_uid, limit=MOST_REPORTS)).reports

    def run_statistics(self, run_uid: str) -> RunStatistics:
        """Ask for the statistics of a run."""
        return self._asked(RunStatistics, "GetRunStatistics", run_uid)

    def frames_in(self, folder: str, after: str = "") -> FolderAnswer:
        """Ask for the frames in a folder of the server whose names come after one."""
        return self._asked(FolderAnswer, "ListFolder", json.dumps({"folder": folder, "after": after}))

    def missing(self, paths: Sequence[str]) -> Sequence[RefusedRequest]:
        """Ask which files the server does not see."""
        return self._asked(MissingAnswer, "FindMissing", json.dumps({"paths": list(paths)})).missing

    def retry_failed(self) -> int:
        """Have the frames tried again that have failed since the counters were reset; return how many they are."""
        return int(self._command("RetryFailed"))

    def acknowledge(self) -> None:
        """End the alarm about frames that failed so far."""
        self._command("Acknowledge")

    def _asked(self, answer: type[Answer], command: str, argument: str) -> Answer:
        text = self._command(command, argument)
        try:
            return answer.model_validate_json(text)
        except ValidationError as error:
            raise ServerFaultError(
                f"{self.address}: found an answer to {command} that can't be read here ({error}); expected the same "
                f"version on both sides, the server has {self._version or 'an unknown one'}. Update one of them."
            ) from error

    def _command(self, name: str, argument: str | None = None) -> Any:
        try:
            return self._connection.call(lambda proxy: proxy.command_inout(name, argument))
        except tango.DevFailed as error:
            raise _translated(self.address, name, error) from error


def _silent(address: str, error: tango.DevFailed, command: str = "") -> LinkDownError:
    """Return the error about a server that told nothing of itself: it may be down, or its address wrong.

    A wrong address is no rejection: frames wait until somebody has set it right.
    """
    reason, text = error.args[0].reason, error.args[0].desc.strip().partition("\n")[0].rstrip(".")
    if reason in _NO_ADDRESS:
        return LinkDownError(
            f"found the address {address!r}, which leads nowhere ({text}); expected one as "
            "tango://HOST:PORT/petif/converter/1#dbase=no, or the name of a device and the database in TANGO_HOST."
        )
    if any(each.reason == "API_CantConnectToDatabase" for each in error.args):
        return LinkDownError(
            f"{address}: found no Tango database there; expected one that runs. The address of a server without a "
            "database, as `petif serve` tells it, ends with #dbase=no."
        )
    if not command:
        return LinkDownError(f"no conversion server answers at {address} ({reason}). Start it with `petif serve`.")
    return LinkDownError(
        f"{address}: found no answer to {command} ({reason}: {text}); expected a running server. "
        "Start it with `petif serve`, or look at its Status."
    )


def _translated(address: str, command: str, error: tango.DevFailed) -> LinkError:
    reason, text = error.args[0].reason, error.args[0].desc.strip()
    match reason:
        case "PETIF_UnknownId":
            return UnknownRunError(text)
        case "PETIF_BadArgument" | "PETIF_BadPath" | "PETIF_TooMuch" | "PETIF_Refused":
            return RequestRejectedError(text)
        case "PETIF_BacklogFull" | "PETIF_DiskFull" | "PETIF_Busy":
            return ServerFullError(f"{address}: {text}")
        case "PETIF_Fault":
            return ServerUnfitError(f"{address} can't convert: {text}")
        case "PyDs_PythonError":
            return ServerFaultError(f"{address}: the server failed in {command}: {text} Its log tells more.")
        case _:
            return _silent(address, error, command)
