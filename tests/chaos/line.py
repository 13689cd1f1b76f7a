"""A line to the server, as a client has one: made once, and kept whatever happens to the other end."""

import json
from collections.abc import Sequence
from typing import Any

import tango

from tango_server.messages import RunStatistics

_QUERY = 500


class NoAnswerError(Exception):
    """The server gave no answer, or one that asks to come again; the message is Tango's reason."""


class UnknownIdError(Exception):
    """The server says that it has never heard of a job or a run."""


class Line:
    """One proxy for one thread. It is made while the server is well: making one holds up every other thread.

    `timeout` is in s.
    """

    def __init__(self, address: str, timeout: float = 3.0) -> None:
        try:
            self._proxy = tango.DeviceProxy(address)
            self._proxy.set_timeout_millis(int(timeout * 1000))
        except tango.DevFailed as error:
            raise NoAnswerError(error.args[0].reason) from error

    def ask(self, command: str, argument: str) -> dict[str, Any]:
        """Call a command whose answer is JSON.

        Raises
        ------
        NoAnswerError
            for what passes.
        UnknownIdError, tango.DevFailed
            for what does not.

        """
        try:
            answer: dict[str, Any] = json.loads(self._proxy.command_inout(command, argument))
        except tango.DevFailed as error:
            match error.args[0].reason:
                case "PETIF_UnknownId":
                    raise UnknownIdError(error.args[0].desc) from error
                case "PETIF_BadArgument":
                    raise
                case reason:
                    raise NoAnswerError(reason) from error
        return answer

    def reports(self, job_ids: Sequence[str]) -> tuple[dict[str, dict[str, Any]], set[str]]:
        """Return the reports that there are, by job id, and the ids that are unknown; raise `NoAnswerError`."""
        if len(job_ids) > _QUERY:
            return self._reports_of_halves(job_ids)
        try:
            answer = self.ask("GetReports", json.dumps({"job_ids": list(job_ids)}))
        except UnknownIdError:  # one of them: the error of all
            return ({}, set(job_ids)) if len(job_ids) == 1 else self._reports_of_halves(job_ids)
        return {report["job_id"]: report for report in answer["reports"]}, set()

    def _reports_of_halves(self, job_ids: Sequence[str]) -> tuple[dict[str, dict[str, Any]], set[str]]:
        middle = len(job_ids) // 2
        first, unknown = self.reports(job_ids[:middle])
        second, more_unknown = self.reports(job_ids[middle:])
        return first | second, unknown | more_unknown

    def frames_of(self, run_uid: str) -> int:
        """Return how many jobs a run has, 0 for an unknown one; raise `NoAnswerError`."""
        try:
            return int(self.ask("GetRunStatistics", run_uid)["submitted"])
        except UnknownIdError:
            return 0

    def statistics(self, run_uid: str) -> RunStatistics:
        """Return the statistics of a run; raise `NoAnswerError`."""
        return RunStatistics.model_validate(self.ask("GetRunStatistics", run_uid))

    def fault(self) -> str:
        """Return the status of a device in FAULT, an empty text for any other; raise `NoAnswerError`."""
        try:
            return str(self._proxy.status()) if self._proxy.state() == tango.DevState.FAULT else ""
        except tango.DevFailed as error:
            raise NoAnswerError(error.args[0].reason) from error

    def initialise(self) -> None:
        """Call Init; raise `NoAnswerError`."""
        try:
            self._proxy.command_inout("Init")
        except tango.DevFailed as error:
            raise NoAnswerError(error.args[0].reason) from error
