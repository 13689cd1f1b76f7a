"""`petif add`: frames handed to a running server."""

import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from tango_server.commands.recipe_options import recipe_from, recipe_options
from tango_server.commands.server_options import SOME_FAILED, complain, server_options, told_troubles

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from tango_server.adding import Added
    from tango_server.client import Client

_INTERRUPTED = 130
_PATIENCE = 60.0


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@recipe_options
@click.option("--run", "run_uid", metavar="NAME", help="Book the frames under this run: petif statistics NAME.")
@click.option("--wait", is_flag=True, help="Show how it goes until every frame has its report.")
@server_options
def add(
    *, paths: tuple[str, ...], address: str, as_json: bool, wait: bool, run_uid: str | None, **options: Any
) -> None:
    r"""Have a running server convert frames, or the frames of folders.

    PATH is as the server's host sees it, or as its path_maps know it (Z:\raw\scan); a relative one begins in the
    working folder. Without options of a recipe the server's own holds. Each call makes new jobs.

    Exit code 0: all were accepted (with --wait: converted or skipped); 1: some were not; 2: the call is wrong;
    3: the server does not answer, or has no room; 130: Ctrl-C (the frames stay with the server).
    """
    from rich.console import Console

    from tango_server.adding import Added, frames_at, whole_path
    from tango_server.client import Client

    given = [name for name, value in options.items() if value not in (None, False)]
    recipe = recipe_from(options).model_dump(mode="json", exclude_unset=True) if given else None
    shared = {"recipe": recipe, "run_uid": run_uid}
    request = {name: value for name, value in shared.items() if value is not None}
    client, errors, added = Client(address), Console(stderr=True), Added()
    with told_troubles():
        frames, added.refused = frames_at(client, [whole_path(path) for path in paths])
        _submit(client, [{"source": frame, **request} for frame in frames], added, errors)
    for refused in added.refused:
        complain(errors, f"refused: {refused.reason}")
    if wait:
        with told_troubles():
            sys.exit(_wait(client, added, errors, as_json=as_json))
    if as_json:
        click.echo(json.dumps({"jobs": [job.model_dump() for job in added.jobs],
                               "refused": [refused.model_dump() for refused in added.refused]}))  # fmt: skip
    else:
        click.echo(f"{len(added.jobs)} frames accepted, {len(added.refused)} refused. "
                   f"How it goes: petif status --follow{_elsewhere(address)}")  # fmt: skip
    sys.exit(SOME_FAILED if added.refused else 0)


def _submit(client: "Client", requests: list[dict[str, Any]], added: "Added", errors: "Console") -> None:
    from tango_server.adding import add as portions
    from tango_server.client import LinkError

    try:
        with _progress(errors) as progress:
            task = progress.add_task("accepted", total=len(requests))
            for count in portions(client, requests, added):
                progress.advance(task, count)
    except LinkError:
        if added.jobs:
            complain(errors, f"{len(added.jobs)} of {len(requests)} frames were accepted, "
                         f"the last one is {added.jobs[-1].source}")  # fmt: skip
        raise


def _wait(client: "Client", added: "Added", errors: "Console", *, as_json: bool) -> int:
    from tango_server.adding import follow

    outcomes: Counter[str] = Counter()
    try:
        with _progress(errors) as progress:
            task = progress.add_task("done", total=len(added.jobs))
            for reports in follow(client, [job.job_id for job in added.jobs], _PATIENCE):
                progress.advance(task, len(reports))
                for report in reports:
                    outcomes[report.outcome] += 1
                    if report.outcome == "failed":
                        complain(errors, f"failed: {report.reason}")
                    if as_json:
                        click.echo(report.model_dump_json())
    except KeyboardInterrupt:
        left = len(added.jobs) - sum(outcomes.values())
        complain(errors, f"{left} frames are not done yet; the server goes on with them. Give them up: Cancel")
        return _INTERRUPTED
    click.echo(
        f"{outcomes['converted']} frames converted, {outcomes['skipped']} skipped, "
        f"{outcomes['placeholder']} placeholders, {outcomes['failed']} failed, {len(added.refused)} refused",
        err=as_json,
    )
    return SOME_FAILED if outcomes["failed"] or outcomes["placeholder"] or added.refused else 0


def _progress(errors: "Console") -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=errors, transient=True)


def _elsewhere(address: str) -> str:
    """Return the option that names another server than the default one."""
    context = click.get_current_context()
    asked = context.get_parameter_source("address") is click.core.ParameterSource.COMMANDLINE
    return f" --device {address}" if asked else ""
