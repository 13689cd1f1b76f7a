"""`petif status`: the state of a running server."""

import json
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import click

from tango_server.commands.output import NOT_KNOWN, SOME_FAILED, Cell, console, say
from tango_server.commands.server_options import errors_in_words, server_options
from tango_server.text import counted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tango_server.client.client import Client, ServerSnapshot

_COLOURS = {"ON": "green", "RUNNING": "blue", "STANDBY": "yellow", "ALARM": "dark_orange", "FAULT": "red"}
_REFRESH = 1.0
_PATHS = {"last output"}
_SHOWN_IN_A_LINE = {"QueueLength", "FramesPerSecond", "StatisticsTotalFrames", "NumFailed"}


@click.command()
@click.option("--follow", is_flag=True, help="Keep updating until Ctrl-C, also across a restart of the server.")
@server_options
def status(*, address: str, as_json: bool, follow: bool) -> None:
    """Show the state of a running server.

    Exit codes: 0: it can convert; 1: it is in ALARM or FAULT; 3: it does not answer.
    """
    from tango_server.client.client import Client

    client = Client(address)
    if follow:
        _follow(client, as_json=as_json)
        return
    with errors_in_words():
        snapshot = client.snapshot()
    if as_json:
        say(json.dumps(_fields(address, snapshot)))
    else:
        console().print(_picture(address, snapshot))
    sys.exit(SOME_FAILED if snapshot.state in {"ALARM", "FAULT"} else 0)


def _follow(client: "Client", *, as_json: bool) -> None:
    from rich.live import Live

    screen, pause = console(), threading.Event()
    try:
        if as_json or not screen.is_terminal:
            while True:
                say(json.dumps(_seen(client)) if as_json else _line(_seen(client)))
                pause.wait(_REFRESH)
        with Live(_current_picture(client), console=screen, auto_refresh=False) as live:
            while True:
                pause.wait(_REFRESH)
                live.update(_current_picture(client), refresh=True)
    except KeyboardInterrupt:
        return
    except BrokenPipeError:  # as head, or a pager that was closed
        sys.exit(0)


def _seen(client: "Client") -> dict[str, Any]:
    from tango_server.client.client import LinkDownError

    try:
        return _fields(client.address, client.snapshot())
    except LinkDownError as error:
        return {"address": client.address, "time": time.time(), "State": "UNKNOWN", "Status": str(error)}


def _line(fields: dict[str, Any]) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(fields["time"]))
    if not fields.keys() >= _SHOWN_IN_A_LINE:
        return f"{clock}  {fields['State']}  {fields.get('Status', '')}"
    return (
        f"{clock}  {fields['State']}  {fields['QueueLength']} in the queue  "
        f"{fields['FramesPerSecond']:.1f} frames/s  {fields['StatisticsTotalFrames']} converted  "
        f"{fields['NumFailed']} failed"
    )


def _current_picture(client: "Client") -> "RenderableType":
    from rich.text import Text

    from tango_server.client.client import LinkDownError

    try:
        return _picture(client.address, client.snapshot())
    except LinkDownError as error:
        return Text(f"{time.strftime('%H:%M:%S')}  {error}", style="red")


def _fields(address: str, snapshot: "ServerSnapshot") -> dict[str, Any]:
    values = {name: reading.value for name, reading in snapshot.attributes.items()}
    if "Recipe" in values:
        values["Recipe"] = json.loads(values["Recipe"])
    return {"address": address, "time": time.time(), "version": snapshot.version, **values}


def _picture(address: str, snapshot: "ServerSnapshot") -> "RenderableType":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False)
    table.add_row("state", Text(snapshot.state, style=f"bold {_COLOURS.get(snapshot.state, 'magenta')}"))
    for name, value in _rows(snapshot):
        table.add_row(name, Cell(value, whole=name in _PATHS))
    return Group(Cell(address, whole=True), table)


def _rows(snapshot: "ServerSnapshot") -> list[tuple[str, str]]:
    if snapshot.problem:
        return [("status", snapshot.problem)]

    def formatted(form: str, *names: str, scale: float = 1.0) -> str:
        """Return the values of attributes as text, a dash if the server does not have them."""
        values = [snapshot.value(name) for name in names]
        return NOT_KNOWN if None in values else form.format(*(v / scale if scale != 1 else v for v in values))

    def frames(name: str) -> str:
        number = snapshot.value(name)
        return NOT_KNOWN if number is None else counted(number, "frame")

    def measured(form: str, *names: str) -> str:
        """Return times, which are 0 until a frame was converted."""
        return formatted(form, *names) if snapshot.value(names[0]) else NOT_KNOWN

    rows = [
        ("status", formatted("{}", "Status")),
        ("queue", frames("QueueLength")),
        (
            "rate",
            formatted("{:.1f} frames/s, ", "FramesPerSecond") + formatted("{:.0f} MB/s", "BytesPerSecond", scale=1e6),
        ),
        ("latency", measured("{:.3f} s median, {:.3f} s for 95 %", "LatencyMedian", "LatencyP95")),
        ("converted", frames("StatisticsTotalFrames")),
        ("conversion", measured("{:.3f} s per frame", "StatisticsAverageTime")),
        ("skipped", frames("NumSkipped")),
        ("placeholders", frames("NumPlaceholders")),
        ("failed", formatted("{} so far", "NumFailed") + _to_retry(snapshot)),
        ("overexposed", frames("NumOverexposedFrames")),
        ("recipe", formatted("rotation {}, flip {}, pixels {}", "ConfRotation", "ConfFlip", "ConfType")),
        *_corrections(snapshot),
        ("workers", formatted("{}", "NumWorkers")),
        ("free space", formatted("{:.1f} GB", "FreeSpace", scale=1e9)),
        ("last output", snapshot.value("LastOutput") or NOT_KNOWN),
    ]
    return rows + ([("last error", formatted("{}", "LastError"))] if snapshot.value("FailedFiles") else [])


def _corrections(snapshot: "ServerSnapshot") -> list[tuple[str, str]]:
    """Return what corrects the frames of each detector now, and a warning for a dark that is too old."""
    from tango_server.client.corrections import age_warning, corrections_in_use, in_words

    rows = []
    for found in corrections_in_use(snapshot):
        rows.append(("corrections", f"{found.detector}: {in_words(found)}"))
        if warning := age_warning(found):
            rows.append(("warning", f"{found.detector}: {warning}"))
    return rows


def _to_retry(snapshot: "ServerSnapshot") -> str:
    left = len(snapshot.value("FailedFiles", []))
    if not snapshot.value("NumFailed", 0):
        return ""
    return f", {counted(left, 'frame')} to retry" if left else ", none left to retry"
