"""`petif map`: the map of a catalogued run, completed and listed."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from petif_bluesky.commands.catalogue_option import catalogue_errors, tiled_option
from tango_server.commands.output import SOME_FAILED, say, show_table
from tango_server.commands.server_options import errors_in_words, server_option
from tango_server.text import counted

if TYPE_CHECKING:
    from petif_bluesky.documents.bookings import Booking
    from petif_bluesky.maps.table import MapTable
    from tango_server.client.client import Client
    from tango_server.messages import FrameReport, RunStatistics

_PAUSE = 0.2  # s between queries for the frames that are left
_MOST_LISTED = 20

Wait = Callable[[str], None]


@click.command("map")
@click.argument("run_uid", metavar="RUN")
@tiled_option
@server_option
@click.option("--no-placeholders", is_flag=True, help="Only list the map, without frames of zeros for missing points.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Table to write.  [default: map.csv beside the frames, or here if this machine does not see them]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    metavar="S",
    help="Seconds to wait for the frames of the run, and then for its placeholders.",
)
def make_map(
    *, run_uid: str, tiled_uri: str, address: str, no_placeholders: bool, output: Path | None, timeout: float
) -> None:
    """Complete the map of a catalogued run: a frame for every point, and a table.

    RUN is the uid in its start document. Its recipe has a map, or combines frames by the positions of a grid scan.
    Points without a frame, or whose frames failed, get a frame of zeros. The table lists the positions of each point,
    its file, the outcome, the sum of all pixels and the number of overexposed ones.

    Exits with 1 if points have no frame.
    """
    from petif_bluesky.documents.bookings import bookings_of
    from petif_bluesky.tiled.lazy_client import CatalogueAt
    from tango_server.client.client import Client

    client, tables = Client(address), list["MapTable"]()
    with errors_in_words(), catalogue_errors(run_uid, tiled_uri), closing(CatalogueAt(tiled_uri)) as catalogue:
        start = catalogue[run_uid].metadata["start"]
        with _progress(client, timeout) as wait:
            for booking in bookings_of(start):
                tables += _completed(client, start, booking, wait, fill=not no_placeholders)
    if not tables:
        raise click.UsageError(_why_no_map(start))
    for table in tables:
        _show(table, _written(table, output if len(tables) == 1 or output is None else _named(output, table)))
    if any(table.missing for table in tables):
        sys.exit(SOME_FAILED)


def _completed(
    client: "Client", start: Mapping[str, Any], booking: "Booking", wait: Wait, *, fill: bool
) -> "list[MapTable]":
    """Return the maps of one converter of a run, after placeholders were requested for what is missing."""
    from petif_bluesky.maps.table import tables_of
    from tango_server.client.client import UnknownRunError

    try:
        wait(booking.run_uid)
        tables = tables_of(_reports(client, booking.run_uid))
    except UnknownRunError:
        if booking.name:  # a further converter may have another server
            return []
        raise
    requests = [request for table in tables for request in _requests(table, start, booking)] if fill else []
    if not requests:
        return tables
    for refused in _submit(client, requests):
        say(f"Error: {refused}", err=True)
    wait(booking.run_uid)
    return tables_of(_reports(client, booking.run_uid))


def _requests(table: "MapTable", start: Mapping[str, Any], booking: "Booking") -> list[dict[str, Any]]:
    """Return requests for placeholders at the points without an output."""
    from petif_bluesky.documents.run_recipe import recipe_of_run
    from petif_bluesky.maps.grid import NoGridError
    from petif_bluesky.maps.placeholders import Exemplar, placeholder
    from petif_bluesky.maps.points import MapOfImage, grid_of_run

    known = [report for report in table.reports if report is not None and report.map is not None]
    recipe = recipe_of_run(start.get(booking.key)).recipe
    shown = next((report for report in known if report.shape), known[0])
    metadata: dict[str, Any] = {key: value for key, value in start.items() if isinstance(value, str | int | float)}
    if shown.shape is not None:
        metadata["shape"] = list(shown.shape if recipe is None else recipe.output_shape(shown.shape))
    exemplar = Exemplar(
        booking.run_uid,
        shown.stream,
        shown.source,
        None if recipe is None else recipe.model_dump(mode="json"),
        metadata,
    )
    try:
        grid = None if recipe is None else grid_of_run(start, recipe)
    except NoGridError:
        grid = None  # the recipe of the server made the map
    if grid is not None and grid.shape == table.shape and known[0].map is not None:
        here, at = known[0].map, grid.point(known[0].map.point)
        begin = [first + real - ideal for first, real, ideal in zip(grid.point(0), here.positions, at, strict=True)]
        grid = grid.beginning_at(begin) if grid.is_relative else grid
    requests = []
    for number in table.missing:
        report = table.reports[number]
        if report is not None and report.map is not None:
            requests.append(placeholder(exemplar, report.map, report.source, report.reason))
        elif grid is not None and grid.shape == table.shape:
            requests.append(placeholder(exemplar, MapOfImage(grid, table.name).point(number, grid.point(number))))
    return requests


def _submit(client: "Client", requests: Sequence[dict[str, Any]]) -> list[str]:
    """Submit requests; return why some were refused."""
    from tango_server.limits import MOST_REQUESTS

    batch = min(MOST_REQUESTS, 1000)
    answers = (client.submit(requests[begin : begin + batch]) for begin in range(0, len(requests), batch))
    return [refused.reason for answer in answers for refused in answer.refused]


def _reports(client: "Client", run_uid: str) -> "Sequence[FrameReport]":
    from petif_bluesky.signals.run_reports import RunReports

    reports = RunReports(run_uid)
    reports.gather(client.reports_of_run, 0)
    return reports


@contextmanager
def _progress(client: "Client", timeout: float) -> Iterator[Wait]:
    """Provide a function that waits until no frame of a run is pending, with a progress bar."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:

        def wait(run_uid: str) -> None:
            task, deadline = progress.add_task(f"frames of {run_uid}", total=None), time.monotonic() + timeout
            while (numbers := client.run_statistics(run_uid)).pending:
                progress.update(task, total=numbers.submitted, completed=_done(numbers))
                if time.monotonic() > deadline:
                    raise click.ClickException(
                        f"run {run_uid}: cannot make its map: {counted(numbers.pending, 'frame')} still pending. "
                        "Wait longer with --timeout."
                    )
                time.sleep(_PAUSE)
            progress.update(task, total=numbers.submitted or 1, completed=numbers.submitted or 1)

        yield wait


def _done(numbers: "RunStatistics") -> int:
    from petif_bluesky.signals.drain_status import reported

    return reported(numbers)


def _why_no_map(start: Mapping[str, Any]) -> str:
    """Return why the run has no map."""
    from petif_bluesky.documents.run_recipe import recipe_of_run
    from petif_bluesky.maps.grid import NoGridError
    from petif_bluesky.maps.points import grid_of_run
    from tango_server.recipe import Recipe
    from tango_server.recipe.map import Map

    uid = start["uid"]
    try:
        recipe = recipe_of_run(start.get("conversion")).recipe
        grid_of_run(start, recipe if recipe is not None and recipe.map is not None else Recipe(map=Map()))
    except (NoGridError, ValueError) as error:
        return f"run {uid}: {error}"
    recipe_text = '{"preset": "xdi", "map": {}}'
    return (
        f"run {uid}: its frames were not converted to a map. Convert them again, such as with petif reprocess {uid} "
        f"--recipe '{recipe_text}'."
    )


def _written(table: "MapTable", output: Path | None) -> Path:
    folder = table.folder
    if output is None:
        output = folder / table.file_name if folder and folder.is_dir() else Path(f"map_{table.run_uid[:8]}.csv")
    try:
        table.write(output)
    except OSError as error:
        raise click.ClickException(f"{output}: cannot write the table: {error.strerror or error}.") from error
    return output


def _named(output: Path, table: "MapTable") -> Path:
    return output.with_name(f"{output.stem}_{table.name}{output.suffix}")


def _show(table: "MapTable", path: Path) -> None:
    rows = [
        ("points", str(len(table.reports))),
        *((outcome, str(table.count(outcome))) for outcome in ("converted", "skipped", "placeholder", "failed")),
        ("table", str(path)),
    ]
    show_table(("", ""), rows, title=f"map {table.name} of run {table.run_uid}")
    empty = [
        number for number, report in enumerate(table.reports) if report is None or report.outcome not in _FROM_FRAMES
    ]
    for number in empty[:_MOST_LISTED]:
        report = table.reports[number]
        if report is not None and report.outcome == "placeholder":
            say(report.reason)  # which names the point
        else:
            say(f"point {number}: {'no frame came' if report is None else report.reason}")
    if len(empty) > _MOST_LISTED:
        say(f"and {len(empty) - _MOST_LISTED} more; see the table")


_FROM_FRAMES = {"converted", "skipped"}
