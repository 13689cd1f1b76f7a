r"""Synchronous calls to a running `PETifConverter` device.

A call returns the answer or raises one of these errors::

    LinkError
    +-- LinkDownError          the server can't be reached, or does not answer in time: try again later
    |   +-- ServerFullError    the queue or a disk is full, or the server is busy: try again later
    |   \-- ServerUnfitError   it answers, but can't convert (FAULT): try again once that is fixed
    +-- RequestRejectedError   the server rejects the call: trying again changes nothing
    +-- ServerFaultError       the call raised an unexpected server error, or its answer can't be parsed
    \-- UnknownRunError        the server doesn't know this run or job

"""

import json
import re
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
    RunCounts,
    RunStatistics,
    SubmitAnswer,
)

_COUNTS = "run_counts"
_COUNTS_UNKNOWN = re.compile(rf"\b{_COUNTS}: (unknown name|found .*; extra inputs are not permitted)")
"""How servers refuse `run_counts` that are too old to know them."""
_NO_ADDRESS = ("API_TangoHostNotSet", "API_WrongDeviceNameSyntax")

Answer = TypeVar("Answer", bound=BaseModel)


class LinkError(Exception):
    """A call to the server failed."""


class LinkDownError(LinkError, ConnectionError):
    """The server can't be reached, or does not answer in time: try again later."""


class ServerFullError(LinkDownError):
    """The queue or a disk is full, or the server is busy: try again later."""


class ServerUnfitError(LinkDownError):
    """The server answers, but can't convert (FAULT): try again once that is fixed."""


class RequestRejectedError(LinkError, ValueError):
    """The server rejects the call: trying again changes nothing."""


class ServerFaultError(LinkError, RuntimeError):
    """The call raised an unexpected server error, or its answer can't be parsed by this version."""


class UnknownRunError(LinkError, LookupError):
    """The server doesn't know this run or job."""


@dataclass(frozen=True, slots=True)
class ServerSnapshot:
    """The attributes of a server at one instant.

    `attributes` are those with a valid value. `problem` says why the server can't convert; empty if it can.
    """

    version: str
    attributes: Mapping[str, AttributeReading]
    problem: str = ""

    @property
    def state(self) -> str:
        """The Tango state, as RUNNING; UNKNOWN if it could not be read."""
        return str(self.value("State", "UNKNOWN"))

    def require(self, name: str) -> Any:
        """Return the value of an attribute; raise `ServerUnfitError` if the server has none."""
        if name not in self.attributes:
            raise ServerUnfitError(f"The server cannot convert: {self.problem or f'it has no {name}'}")
        return self.attributes[name].value

    def value(self, name: str, default: Any = None) -> Any:
        """Return the value of an attribute, or `default` if it has no valid one."""
        reading = self.attributes.get(name)
        return default if reading is None else reading.value


class Client:
    """Calls to one device, from any thread. The server need not be running yet at construction.

    Parameters
    ----------
    address: the Tango resource locator, for example `tango://127.0.0.1:45450/petif/converter/1#dbase=no`
    timeout: of each call, s; must be more than 1, since Tango refuses calls for 1 s after a failure

    """

    def __init__(self, address: str, timeout: float = TIMEOUT) -> None:
        self.address = address
        self._connection = Connection(address, timeout)
        self._version = ""
        self._counts_refused_at: int | None = None
        """The connection's `failures` when the server refused `run_counts`; None if it has not."""

    def snapshot(self) -> ServerSnapshot:
        """Read all attributes, in two calls. Raises `LinkDownError`."""
        try:
            info = self._connection.call(lambda proxy: proxy.info())
            found = self._connection.call(lambda proxy: proxy.read_attributes(ATTRIBUTES))
        except tango.DevFailed as error:
            raise _no_answer(self.address, error) from error
        self._version = dict(info.version_info).get("petif-bluesky", "")
        problem = ""
        try:
            require(found, "Recipe")  # not readable while the device can't convert
        except tango.DevFailed as error:
            problem = error.args[0].desc.strip()
        return ServerSnapshot(self._version, readings(found), problem)

    def submit(
        self,
        requests: Sequence[Mapping[str, Any]],
        runs: Sequence[str] = (),
        run_counts: RunCounts | None = None,
        close_groups: Mapping[str, int] | None = None,
    ) -> SubmitAnswer:
        """Submit requests and announce runs and their counts; return once the server has stored them.

        `close_groups` are the numbers of members of groups, by their ids. A server too old for `run_counts` gets the
        call without them, as do all later calls until it has been away.
        """
        query: dict[str, Any] = {"requests": list(requests), "runs": list(runs)}
        if close_groups:
            query["close_groups"] = dict(close_groups)
        if run_counts and self._connection.failures != self._counts_refused_at:
            try:
                return self._query(SubmitAnswer, "Submit", json.dumps({**query, _COUNTS: run_counts}))
            except RequestRejectedError as error:
                if not _COUNTS_UNKNOWN.search(str(error)):
                    raise
        failures = self._connection.failures
        answer = self._query(SubmitAnswer, "Submit", json.dumps(query))
        if run_counts:  # the rest of the call is valid, so the counts were the reason
            self._counts_refused_at = failures
        return answer

    def reports(self, query: ReportsQuery) -> ReportsAnswer:
        """Return the reports of jobs."""
        return self._query(ReportsAnswer, "GetReports", query.model_dump_json(exclude_defaults=True))

    def reports_of_run(self, run_uid: str, after: str | None = None) -> Sequence[FrameReport]:
        """Return the reports of a run's frames, oldest first.

        With `after`, only the first `MANY_REPORTS` that finished after that job ("": from the start), in that order. A
        server too old for that returns all of them.
        """
        if after is not None:
            try:
                return self.reports(ReportsQuery(run_uid=run_uid, after=after, limit=MANY_REPORTS)).reports
            except RequestRejectedError:
                pass
        return self.reports(ReportsQuery(run_uid=run_uid, limit=MOST_REPORTS)).reports

    def reports_after(self, position: str = "now") -> ReportsAnswer:
        """Return reports of all runs in the order of finishing, at most `MANY_REPORTS`, to follow which runs change.

        `position` is that of the previous answer; "now" gives only the newest position, "" begins with the oldest
        report. Raises `RequestRejectedError` if the server is too old for this.
        """
        return self.reports(ReportsQuery(latest=True, after=position, limit=MANY_REPORTS))

    def run_statistics(self, run_uid: str) -> RunStatistics:
        """Return the statistics of a run."""
        return self._query(RunStatistics, "GetRunStatistics", run_uid)

    def frames_in(self, folder: str, after: str = "") -> FolderAnswer:
        """Return the frames in a folder as the server sees it, from the first name after `after`."""
        return self._query(FolderAnswer, "ListFolder", json.dumps({"folder": folder, "after": after}))

    def missing(self, paths: Sequence[str]) -> Sequence[RefusedRequest]:
        """Return the files that the server cannot see, and why."""
        return self._query(MissingAnswer, "FindMissing", json.dumps({"paths": list(paths)})).missing

    def retry_failed(self) -> int:
        """Retry the frames that have failed since the counters were reset; return their number."""
        return int(self._command("RetryFailed"))

    def acknowledge(self) -> None:
        """Clear the alarm about frames that have failed so far."""
        self._command("Acknowledge")

    def _query(self, answer: type[Answer], command: str, argument: str) -> Answer:
        text = self._command(command, argument)
        try:
            return answer.model_validate_json(text)
        except ValidationError as error:
            raise ServerFaultError(
                f"{self.address}: cannot parse the answer to {command} ({error}). The server has version "
                f"{self._version or 'unknown'}; install the same version on both sides."
            ) from error

    def _command(self, name: str, argument: str | None = None) -> Any:
        try:
            return self._connection.call(lambda proxy: proxy.command_inout(name, argument))
        except tango.DevFailed as error:
            raise _translated(self.address, name, error) from error


def _no_answer(address: str, error: tango.DevFailed, command: str = "") -> LinkDownError:
    """Return the error for a server that did not answer: it may be down, or its address wrong.

    A wrong address is not a rejection: frames wait until it is corrected.
    """
    reason, text = error.args[0].reason, error.args[0].desc.strip().partition("\n")[0].rstrip(".")
    if reason in _NO_ADDRESS:
        return LinkDownError(
            f"Invalid address {address!r}: {text}. Use tango://HOST:PORT/petif/converter/1#dbase=no, or a device name "
            "with the database in TANGO_HOST."
        )
    if any(each.reason == "API_CantConnectToDatabase" for each in error.args):
        return LinkDownError(
            f"{address}: cannot connect to the Tango database. If the server runs without one, as `petif serve` does, "
            "its address ends with #dbase=no."
        )
    if not command:
        return LinkDownError(f"No conversion server answers at {address} ({reason}). Start it with `petif serve`.")
    return LinkDownError(
        f"{address}: no answer to {command} ({reason}: {text}). "
        "Start the server with `petif serve`, or check its Status."
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
            return ServerUnfitError(f"{address} cannot convert: {text}")
        case "PyDs_PythonError":
            return ServerFaultError(
                f"{address}: {command} raised an unexpected server error: {text} Check the server log."
            )
        case _:
            return _no_answer(address, error, command)
