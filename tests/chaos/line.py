"""A line to the server, as a client has one: made once, and kept whatever happens to the other end."""

import json
from typing import Any

import tango

_OUR_FAULT = {"PETIF_BadArgument", "PETIF_UnknownId"}


class NoAnswerError(Exception):
    """The server gave no answer, or one that asks to come again; the message is Tango's reason."""


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
        """Call a command whose answer is JSON; raise `NoAnswerError` for what passes, `DevFailed` for what does not."""
        try:
            answer: dict[str, Any] = json.loads(self._proxy.command_inout(command, argument))
        except tango.DevFailed as error:
            if error.args[0].reason in _OUR_FAULT:
                raise
            raise NoAnswerError(error.args[0].reason) from error
        return answer

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
