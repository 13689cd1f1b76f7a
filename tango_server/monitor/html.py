"""Pure functions from values to text and HTML. All text from a server is escaped."""

import math
import time
from collections.abc import Sequence
from html import escape

from tango_server.client.client import ServerSnapshot
from tango_server.client.corrections import age_warning, corrections_in_use, master_words
from tango_server.messages import FrameReport, RunStatistics
from tango_server.monitor.state import MonitorState
from tango_server.recipe import Recipe
from tango_server.recipe.corrections import KINDS
from tango_server.recipe.words import recipe_words
from tango_server.text import cut_middle, local_time

_COLOURS = {
    "ON": ("#00c853", "#000"),
    "RUNNING": ("#1b7f3b", "#fff"),
    "STANDBY": ("#ffeb3b", "#000"),
    "ALARM": ("#ff8c00", "#000"),
    "FAULT": ("#d50000", "#fff"),
    "INIT": ("#cccc7a", "#000"),
    "DISABLE": ("#e000e0", "#000"),
}
_NO_COLOUR = ("#808080", "#fff")
_NOTHING = "–"
_LONGEST_RUN = 40  # characters: the uid of a run, which has 36, is whole


def clock(instant: float) -> str:
    """Return the local time of day of an instant (Unix s), with the date unless it is today."""
    then = local_time(instant)
    date, _, time_of_day = then.partition(" ")
    return time_of_day if local_time(time.time()).startswith(date) else then


def size(count: float) -> str:
    """Return a number of bytes for people.

    >>> size(123_456_789_000), size(2048)
    ('123 GB', '2.05 kB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:  # noqa: PLR2004 - what k and M mean
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def seconds(value: float | None) -> str:
    """Return a duration for people.

    >>> seconds(0.0314), seconds(2.5), seconds(None)
    ('31 ms', '2.50 s', '–')
    """
    if value is None or math.isnan(value) or value <= 0:
        return _NOTHING
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def headline(observed: MonitorState) -> str:
    """Return state and status as HTML; without an answer, since when, from which address, and what to do."""
    if not observed.is_answering:
        return _no_answer(observed)
    snapshot = observed.snapshot
    assert snapshot is not None  # noqa: S101 - it answers
    status = snapshot.problem or str(snapshot.value("Status", ""))
    version = f", version {snapshot.version}" if snapshot.version else ""
    return (
        f"<div class='headline'>{_pill(snapshot.state)}<span class='status'>{escape(status)}</span></div>"
        f"<div class='small'>{escape(observed.address)}{escape(version)}, "
        f"last update {clock(observed.answered or 0)}</div>"
    )


def numbers(observed: MonitorState) -> str:
    """Return the numbers of the server as HTML, greyed out if they are old."""
    snapshot = observed.snapshot or ServerSnapshot("", {})
    tiles = [
        ("Backlog", _count(snapshot, "QueueLength"), "frames"),
        ("Rate", _rate(snapshot), "frames/s"),
        ("Median latency", seconds(snapshot.value("LatencyMedian")), ""),
        ("95 % latency", seconds(snapshot.value("LatencyP95")), ""),
        ("Converted", _count(snapshot, "StatisticsTotalFrames"), "frames"),
        ("Failed", _count(snapshot, "NumFailed"), "frames"),
        ("Skipped", _count(snapshot, "NumSkipped"), "frames"),
        ("Overexposed", _count(snapshot, "NumOverexposedFrames"), "frames"),
        ("Free space", _NOTHING if snapshot.value("FreeSpace") is None else size(snapshot.value("FreeSpace")), ""),
        ("Workers", _count(snapshot, "NumWorkers"), ""),
    ]
    boxes = "".join(
        f"<div class='tile{' bad' if name == 'Failed' and snapshot.value('FailedFiles') else ''}'>"
        f"<div class='name'>{name}</div><div class='value' data-number='{name}'>{escape(value)}</div>"
        f"<div class='unit'>{unit}</div></div>"
        for name, value, unit in tiles
    )
    old = "" if observed.is_answering else " old"
    recipe = escape(_default_recipe(str(snapshot.value("Recipe", ""))))
    return f"<div class='tiles{old}'>{boxes}</div><div class='recipe{old}'>{recipe}</div>"


def failures(reports: Sequence[FrameReport]) -> str:
    """Return the last failures as an HTML table."""
    rows = [
        (
            clock(each.finished),
            each.source,
            each.reason.removeprefix(f"{each.source}: "),
            cut_middle(each.run_uid or _NOTHING, _LONGEST_RUN),
        )
        for each in reports
    ]
    return _table("failures", ("Time", "File", "Reason", "Run"), rows, "No failed frames.")


def runs(statistics: Sequence[RunStatistics]) -> str:
    """Return the statistics of runs as an HTML table, with groups if there are any."""
    grouped = any(each.groups or each.groups_failed or each.grouped for each in statistics)
    rows = [
        (
            cut_middle(each.run_uid, _LONGEST_RUN),
            str(each.submitted),
            str(each.converted),
            str(each.skipped),
            str(each.placeholders),
            str(each.failed),
            str(each.pending),
            *([_groups(each)] if grouped else []),
            f"{seconds(each.latency_median)} / {seconds(each.latency_p95)}",
        )
        for each in statistics
    ]
    names = (
        "Run", "Submitted", "Converted", "Skipped", "Placeholders", "Failed", "Pending",
        *(["Groups"] if grouped else []), "Latency: median / 95 %",
    )  # fmt: skip
    return _table("runs", names, rows, "No runs yet. Frames added by hand do not belong to a run.")


def _groups(run: RunStatistics) -> str:
    """Return how many groups a run has, and of how many frames."""
    failed = f", {run.groups_failed} failed" if run.groups_failed else ""
    return f"{run.groups} of {run.grouped} frames{failed}"


def corrections(observed: MonitorState) -> str:
    """Return what corrects the frames of each detector now as an HTML table, with a warning for darks too old."""
    found = corrections_in_use(observed.snapshot) if observed.snapshot else ()
    rows = [
        (
            each.detector,
            *(master_words(each, kind) or _NOTHING for kind in KINDS),
            str(each.masked),
            _NOTHING if each.overexposed is None else str(each.overexposed),
            clock(each.finished),
        )
        for each in found
    ]
    names = ("Detector", "Dark", "Flat", "Mask", "Masked", "Overexposed", "Last frame")
    table = _table("corrections", names, rows, "No corrections.")
    warned = ((each.detector, age_warning(each)) for each in found)
    return table + "".join(f"<div class='warning'>{escape(f'{name}: {text}')}</div>" for name, text in warned if text)


def _default_recipe(text: str) -> str:
    """Describe the default recipe of the server, for frames without one, from its JSON."""
    if not text:
        return "Default recipe: unknown"
    try:
        recipe = Recipe.model_validate_json(text)
    except ValueError:
        return f"Default recipe, for frames without one: {text}"  # from a later version
    place = ", in place of the source" if recipe.output.mode == "in_place" else ""
    return f"Default recipe, for frames without one: {recipe_words(recipe)}{place}."


def _no_answer(observed: MonitorState) -> str:
    address = observed.address
    if not observed.silence:
        status = f"<span class='status'>Connecting to {escape(address)} ...</span>"
        return f"<div class='headline'>{_pill('UNKNOWN')}{status}</div>"
    return (
        f"<div class='headline'>{_pill('NO ANSWER')}<span class='status'>No answer since "
        f"{clock(observed.silent_since)} from {escape(address)}. Start it with <code>petif serve</code>; "
        "this page then reconnects.</span></div>"
        f"<div class='small'>{escape(observed.silence)}</div>"
    )


def _pill(word: str) -> str:
    back, front = _COLOURS.get(word, _NO_COLOUR)
    return f"<span class='state' style='background:{back};color:{front}'>{escape(word)}</span>"


def _count(snapshot: ServerSnapshot, name: str) -> str:
    value = snapshot.value(name)
    return _NOTHING if value is None else str(value)


def _rate(snapshot: ServerSnapshot) -> str:
    value = snapshot.value("FramesPerSecond")
    return _NOTHING if value is None else f"{value:.1f}"


def _table(name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> str:
    if not rows:
        return f"<div class='small'>{escape(empty)}</div>"
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{_cells(columns, row)}</tr>" for row in rows)
    return f"<table class='{name}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(columns: Sequence[str], row: Sequence[str]) -> str:
    """Return the cells of a row, each with its column's name, which a narrow page shows beside it."""
    named = zip(columns, row, strict=True)
    return "".join(f"<td data-name='{escape(column)}'>{escape(cell)}</td>" for column, cell in named)
