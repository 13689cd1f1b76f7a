"""`petif reports`: what became of frames, from a running server."""

from typing import TYPE_CHECKING, Any, get_args

import click

from tango_server.commands.output import say, show_table
from tango_server.commands.server_options import errors_in_words, server_options
from tango_server.limits import MOST_REPORTS
from tango_server.messages import Outcome
from tango_server.text import counted, local_time

if TYPE_CHECKING:
    from tango_server.messages import FrameReport


@click.command()
@click.argument("job_ids", nargs=-1, metavar="[JOB_ID]...")
@click.option("--run", "run_uid", help="The frames of this run.")
@click.option("--outcome", type=click.Choice(get_args(Outcome)), help="Those that ended so.")
@click.option("--limit", type=click.IntRange(1, MOST_REPORTS), help="So many at the most.  [default: 20, all of a run]")
@server_options
def reports(*, job_ids: tuple[str, ...], run_uid: str | None, address: str, as_json: bool, **options: Any) -> None:
    """Tell what became of frames: of these jobs, of a run, or of those that were done last.

    Oldest first. Why frames failed: petif reports --outcome failed
    """
    from pydantic import ValidationError

    from tango_server.client.client import Client
    from tango_server.messages import ReportsQuery
    from tango_server.text import explain

    if job_ids and run_uid:
        raise click.UsageError("found job ids and --run; expected one of them")
    of_what = {"job_ids": list(job_ids)} if job_ids else {"run_uid": run_uid} if run_uid else {"latest": True}
    limit = options["limit"] or (MOST_REPORTS if run_uid else max(20, len(job_ids)))
    try:
        query = ReportsQuery.model_validate({**of_what, "outcome": options["outcome"], "limit": limit})
    except ValidationError as error:
        raise click.UsageError(explain(error)) from error
    with errors_in_words():
        answer = Client(address).reports(query)
    if as_json:
        say(answer.model_dump_json())
        return
    if answer.reports:
        show_table(("done", "outcome", "frame", "output, or why there is none"), map(_row, answer.reports))
    pending = f"{counted(answer.pending, 'frame')} without a report yet" if answer.pending else "every frame has one"
    say(f"{counted(len(answer.reports), 'report')}; {pending}. With job ids and times: --json")


def _row(report: "FrameReport") -> tuple[str, str, str, str]:
    return local_time(report.finished), report.outcome, report.source, _details(report)


def _details(report: "FrameReport") -> str:
    if report.outcome == "converted" and report.output:
        return f"{report.output} ({report.reason})" if report.reason else report.output
    return report.reason
