"""`petif add`: submit frames to a running server."""

import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from tango_server.commands.frame_slice import FrameSlice, indices_of
from tango_server.commands.output import INTERRUPTED, SOME_FAILED, complain, say
from tango_server.commands.recipe_options import recipe_from, recipe_options
from tango_server.commands.server_options import RETRY_TIMEOUT, errors_in_words, server_options
from tango_server.commands.wait_notices import WaitNotices
from tango_server.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.progress import Progress

    from tango_server.client.client import Client
    from tango_server.messages import AcceptedJob, FrameReport, RefusedRequest
    from tango_server.recipe import Recipe


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@recipe_options
@click.option(
    "--run",
    "run_uid",
    metavar="NAME",
    help="Count the frames as a run: see petif statistics NAME. Unfinished files of a run are awaited for the setting "
    "run_timeout (300 s) instead of timeout (15 s).",
)
@click.option(
    "--frames",
    "chosen",
    type=FrameSlice(),
    metavar="INDICES",
    help="Of files of several frames only these, from 0: an index, or START:STOP:STEP with a STOP.",
)
@click.option("--wait", is_flag=True, help="Show the progress until every frame has a report.")
@server_options
def add(
    *,
    paths: tuple[str, ...],
    address: str,
    as_json: bool,
    wait: bool,
    run_uid: str | None,
    chosen: slice | None,
    **options: Any,
) -> None:
    r"""Submit frames, or all frames in a folder, to a running server.

    PATH is a path on the server's host, or one that its path_maps translate (Z:\raw\scan); a relative path starts in
    the working directory. The frames are converted with the server's recipe, changed by the options given here;
    --preset and --format replace it. Each call creates new jobs: of a file of several frames (PATH, or
    PATH::/data/set in an HDF5 file), one for each frame.

    Exit codes: 0: all frames were accepted (with --wait: converted or skipped); 1: some were not; 2: usage error;
    3: the server does not answer, or is full; 130: Ctrl-C (accepted frames stay with the server).
    """
    from rich.console import Console

    from tango_server.client.client import Client
    from tango_server.recipe import Recipe

    if not all(paths):
        raise click.UsageError("PATH is empty. Give a file or a folder, or . for the working directory.")
    indices = indices_of(chosen)
    client, errors = Client(address), Console(stderr=True)
    added = _Added(client, errors, as_json=as_json)
    with errors_in_words():
        try:
            own = Recipe.model_validate_json(client.snapshot().require("Recipe"))
            recipe = _recipe(own, options)
            shared = {"recipe": recipe and recipe.model_dump(mode="json"), "run_uid": run_uid}
            files = added.frames_at(paths)
            added.submit([{"source": file, **index, **shared} for file in files for index in indices])
            how = _in_words(recipe) if recipe else f"{_in_words(own)} (the server's recipe)"
            code = added.wait() if wait else added.sum_up(how, _elsewhere(address))
        except KeyboardInterrupt:
            added.interrupted()
            code = INTERRUPTED
    sys.exit(code)


class _Added:
    """The frames of one call: submitted, followed and reported."""

    def __init__(self, client: "Client", errors: "Console", *, as_json: bool) -> None:
        self._client = client
        self._errors = errors
        self._as_json = as_json
        self._jobs: list[AcceptedJob] = []
        self._refused: list[RefusedRequest] = []
        self._outcomes: Counter[str] = Counter()
        self._frames = 0
        """More jobs than were submitted: those of the frames of files, instead of the files' own."""

    def frames_at(self, paths: "Sequence[str]") -> list[str]:
        """Return the frames at these paths, including those in folders."""
        from tango_server.client.submission import frames_at, whole_path

        frames, refused = frames_at(self._client, [whole_path(path) for path in paths])
        self._refused += refused
        return frames

    def submit(self, requests: list[dict[str, Any]]) -> None:
        """Submit the frames, and print those that were refused."""
        from tango_server.client.client import LinkError
        from tango_server.client.submission import submit_all

        try:
            with _progress(self._errors) as progress:
                task = progress.add_task("accepted", total=len(requests))
                for answer in submit_all(self._client, requests):
                    self._jobs += answer.jobs
                    self._refused += answer.refused
                    progress.update(task, completed=len(self._jobs))
        except LinkError:
            if self._jobs:
                last = self._jobs[-1].source
                complain(
                    self._errors, f"{len(self._jobs)} of {len(requests)} frames were accepted, the last one was {last}"
                )
            raise
        for refused in self._refused:
            complain(self._errors, f"refused: {refused.reason}")

    def wait(self) -> int:
        """Show the progress until every frame has a report; return the exit code."""
        from tango_server.client.client import UnknownRunError
        from tango_server.client.submission import follow

        forgotten, notices = False, WaitNotices(self._errors)
        try:
            with _progress(self._errors) as progress:
                task = progress.add_task("done", total=len(self._jobs))
                job_ids = [job.job_id for job in self._jobs]
                for reports in follow(self._client, job_ids, RETRY_TIMEOUT, notices.show):
                    for report in reports:
                        self._log_report(report)
                    progress.update(task, completed=self._done, total=self._done + self._left)
        except UnknownRunError as error:
            forgotten = True
            complain(self._errors, f"The server no longer knows {counted(self._left, 'frame')}: {error}")
        counts = self._outcomes
        say(
            f"{counted(counts['converted'], 'frame')} converted, {counts['skipped']} skipped, {counts['placeholder']} "
            f"placeholders, {counts['failed']} failed, {len(self._refused)} refused",
            err=self._as_json,
        )
        return SOME_FAILED if forgotten or counts["failed"] or counts["placeholder"] or self._refused else 0

    def sum_up(self, how: str, elsewhere: str) -> int:
        """Print what was accepted; return the exit code."""
        if self._as_json:
            jobs, refused = ([each.model_dump() for each in listed] for listed in (self._jobs, self._refused))
            say(json.dumps({"jobs": jobs, "refused": refused}))
        else:
            accepted = f"{counted(len(self._jobs), 'frame')} accepted, {len(self._refused)} refused"
            more = f": {how}. To follow them: petif status --follow{elsewhere}" if self._jobs else ""
            say(accepted + more)
        return SOME_FAILED if self._refused else 0

    def interrupted(self) -> None:
        """Print what stays with the server."""
        complain(
            self._errors,
            f"{counted(self._left, 'frame')} accepted and not finished; the server continues with them. "
            "To cancel them, use its command Cancel.",
        )

    @property
    def _done(self) -> int:
        return sum(self._outcomes.values())

    @property
    def _left(self) -> int:
        return len(self._jobs) + self._frames - self._done

    def _log_report(self, report: "FrameReport") -> None:
        if report.frames:
            self._frames += report.frames - 1
        else:
            self._outcomes[report.outcome] += 1
        if report.outcome == "failed":
            complain(self._errors, f"failed: {report.reason}")
        if self._as_json:
            say(report.model_dump_json())


def _recipe(own: "Recipe", options: dict[str, Any]) -> "Recipe | None":
    """Return the recipe that the options ask for; None for the server's `own`, unchanged."""
    from tango_server.client.submission import whole_path

    if not any(value is not None and value is not False for value in options.values()):
        return None
    alone = options["preset"] is not None or options["format_"] is not None
    return recipe_from(options, base=None if alone else own, whole_path=whole_path)


def _in_words(recipe: "Recipe") -> str:
    return f"rotation {recipe.rotation}, flip {recipe.flip}, {recipe.pixel_type or 'pixel type unchanged'}"


def _progress(errors: "Console") -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)


def _elsewhere(address: str) -> str:
    """Return the option that selects a server other than the default one."""
    context = click.get_current_context()
    asked = context.get_parameter_source("address") is click.core.ParameterSource.COMMANDLINE
    return f" --device {address}" if asked else ""
