"""`petif reprocess`: the frames of a catalogued run, converted again in a new run."""

import sys
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from petif_bluesky.commands.catalogue_option import catalogue_errors, tiled_option
from tango_server.commands.correction_options import run_correction_options, take_run_corrections
from tango_server.commands.output import INTERRUPTED, SOME_FAILED, say, show_table
from tango_server.commands.recipe_options import recipe_from, recipe_options
from tango_server.commands.server_options import errors_in_words, server_option
from tango_server.commands.statistics import rows_of
from tango_server.text import counted

if TYPE_CHECKING:
    from rich.progress import Progress

    from petif_bluesky.tiled.lazy_client import CatalogueAt
    from tango_server.messages import RunStatistics
    from tango_server.recipe import Recipe


@click.command()
@click.argument("run_uid", metavar="RUN")
@tiled_option
@server_option
@click.option(
    "--recipe",
    "recipe_text",
    metavar="JSON",
    help="Recipe, as JSON or the name of a preset.  [default: that of the run, else the preset xdi]",
)
@run_correction_options
@recipe_options
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=3600.0,
    show_default=True,
    metavar="S",
    help="Seconds to wait for the frames; those without a report by then are still converted later.",
)
def reprocess(
    *, run_uid: str, tiled_uri: str, address: str, recipe_text: str | None, timeout: float, **options: Any
) -> None:
    """Convert the frames of a catalogued run again, in a new run of the same catalogue.

    RUN is the uid in its start document. Options change the recipe of the run; paths are those of the conversion host.
    The outputs get a number (-00001) if they exist, unless --on-existing says otherwise. Nothing of the old run is
    changed.

    Exits with 1 if frames failed.
    """
    from bluesky.utils import RunEngineInterrupted

    from petif_bluesky.documents.errors import FramesNotFoundError
    from petif_bluesky.tiled.lazy_client import CatalogueAt

    with errors_in_words(), catalogue_errors(run_uid, tiled_uri), closing(CatalogueAt(tiled_uri)) as catalogue:
        recipe = _recipe(options, recipe_text, catalogue[run_uid].metadata["start"])
        try:
            statistics = _reprocessed(run_uid, catalogue, address, recipe, timeout)
        except FramesNotFoundError as error:
            raise click.UsageError(str(error)) from error
        except RunEngineInterrupted:
            say("Stopped; the server still converts the frames that it has accepted.", err=True)
            sys.exit(INTERRUPTED)
    show_table(("", ""), rows_of(statistics), title=f"run {statistics.run_uid}")
    if statistics.failed or statistics.groups_failed or statistics.pending:
        failed = statistics.failed or statistics.groups_failed
        left = f"{counted(failed, 'frame')} failed, {statistics.pending} pending"
        say(f"Error: {left}. For the reasons: petif reports --run {statistics.run_uid}", err=True)
        sys.exit(SOME_FAILED)


def _reprocessed(
    run_uid: str, catalogue: "CatalogueAt", address: str, recipe: "Recipe", timeout: float
) -> "RunStatistics":
    """Make the new run; return its statistics."""
    from bluesky import RunEngine
    from bluesky.utils import RunEngineInterrupted
    from rich.console import Console
    from rich.progress import Progress

    from petif_bluesky.attachment import attach
    from petif_bluesky.callback import default_spool_path
    from petif_bluesky.interrupt_aborts import InterruptAborts
    from petif_bluesky.plans import reprocess_run

    run_engine = RunEngine({}, context_managers=[InterruptAborts])
    spool = default_spool_path(address, "reprocess")  # not that of a session
    with (
        attach(run_engine, address, tiled=catalogue.client, spool=spool) as attached,
        Progress(console=Console(stderr=True)) as progress,
    ):
        run_engine.waiting_hook = _Bar(progress)
        plan = reprocess_run(
            attached.converter, run_uid, recipe=recipe, catalogue=catalogue, timeout=timeout, spool=str(spool)
        )
        try:
            (new_uid,) = run_engine(plan)
        except RunEngineInterrupted:
            run_engine.abort("interrupted from the keyboard")
            raise
        attached.wait(timeout=10.0)
        return attached.converter.client.run_statistics(new_uid)


class _Bar:
    """The progress of what the RunEngine waits for: the frames of the run."""

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._task = progress.add_task("converted", total=None)

    def __call__(self, statuses: Any) -> None:
        for status in statuses or ():
            if hasattr(status, "watch"):
                status.watch(self._show)

    def _show(self, *, current: Any = None, target: Any = None, **_: Any) -> None:
        self._progress.update(self._task, completed=current, total=target)


def _recipe(options: dict[str, Any], text: str | None, start: Mapping[str, Any]) -> "Recipe":
    """Return the recipe: that of the run, or the given one, with what the options change."""
    from tango_server.client.submission import whole_path
    from tango_server.recipe import NewFile, Recipe

    if text is not None and options["preset"] is not None:
        raise click.UsageError("--recipe and --preset cannot be combined. Give one of them.")
    masters, chosen = take_run_corrections(options, whole_path), bool(options["on_existing"])
    try:
        base = Recipe.parse(text) if text is not None else None if options["preset"] else _recipe_of(start)
        recipe = recipe_from(options, base=base).fit_for_run()
        if masters:
            known = recipe.corrections.model_dump() if recipe.corrections else {}
            recipe = Recipe.parse({**recipe.model_dump(), "corrections": {**known, **masters}})
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    given = base is not None and text is not None and "on_existing" in base.output.model_fields_set
    if isinstance(recipe.output, NewFile) and not (chosen or given):
        recipe = recipe.model_copy(update={"output": recipe.output.model_copy(update={"on_existing": "number"})})
    return recipe


def _recipe_of(start: Mapping[str, Any]) -> "Recipe | None":
    """Return the recipe with which the frames of a run were converted, None if its start document has none."""
    from petif_bluesky.documents.run_recipe import recipe_of_run

    return recipe_of_run(start.get("conversion")).recipe
