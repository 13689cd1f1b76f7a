"""Buttons that act on the server, with a confirmation and a message with the result."""

import asyncio
import time
from collections.abc import Callable
from html import escape
from typing import Any

import panel as pn

from tango_server.client.client import Client, LinkError
from tango_server.monitor.html import clock
from tango_server.monitor.poller import Watch
from tango_server.monitor.state import MonitorState
from tango_server.text import counted


class ConfirmedButton:
    """A button with a confirmation.

    Parameters
    ----------
    name: label of the button
    question: returns the label of the confirming button
    act: performs the action; returns the message to show

    """

    def __init__(self, watch: Watch, name: str, question: Callable[[], str], act: Callable[[Client], str]) -> None:
        self._watch = watch
        self._question = question
        self._act = act
        self._ask = pn.widgets.Button(name=name, button_type="default")
        self._yes = pn.widgets.Button(name="Yes", button_type="danger", visible=False)
        self._no = pn.widgets.Button(name="No", button_type="default", visible=False)
        self._result = pn.pane.HTML("")
        self._ask.on_click(self._confirm)
        self._yes.on_click(self._confirmed)
        self._no.on_click(lambda _: self._show(asking=False))
        self.layout: Any = pn.Row(self._ask, self._yes, self._no, self._result)

    def _confirm(self, _: Any) -> None:
        self._yes.name = self._question()
        self._result.object = ""
        self._show(asking=True)

    async def _confirmed(self, _: Any) -> None:
        self._show(asking=False)
        self._result.object = "Calling the server ..."
        text = "Failed: unexpected error. Check the log of the monitor."
        try:
            text = await asyncio.to_thread(self._watch.act, self._act)
        except LinkError as error:
            text = f"Failed: {error}"
        finally:
            self._result.object = f"{clock(time.time())}: {escape(text)}"

    def _show(self, *, asking: bool) -> None:
        self._ask.visible = not asking
        self._yes.visible = self._no.visible = asking


def buttons(watch: Watch) -> Any:
    """Return the buttons that handle failed frames."""
    retry = ConfirmedButton(watch, "Retry failed frames", lambda: f"Yes, retry {_failed(watch.observed)}", _retry)
    acknowledge = ConfirmedButton(watch, "Acknowledge", lambda: "Yes, clear the alarm", _acknowledge)
    return pn.FlexBox(retry.layout, acknowledge.layout)


def _failed(observed: MonitorState) -> str:
    known = [] if observed.snapshot is None else observed.snapshot.value("FailedFiles", [])
    if not known:
        return "failed frames"  # from before a restart of the server, which retries but does not list them
    return counted(len(known), "frame")


def _retry(client: Client) -> str:
    count = client.retry_failed()
    return f"Retrying {counted(count, 'frame')}."


def _acknowledge(client: Client) -> str:
    client.acknowledge()
    return "The alarm about failed frames was cleared."
