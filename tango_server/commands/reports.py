"""`petif reports`: the reports of a running server about its frames."""

from typing import TYPE_CHECKING, Any, get_args

import click

from tango_server.commands.output import Cell, say, show_table
from tango_server.commands.server_options import errors_in_words, server_options
from tango_server.limits import MOST_REPORTS
from tango_server.messages import Outcome
from tango_server.text import counted, local_time

if TYPE_CHECKING:
    from tango_server.messages import FrameReport


@click.command()
@click.argument("job_ids", nargs=-1, metavar="[JOB_ID]...")
@click.option("--run", "run_uid", help="Only frames of this run.")
@click.option("--outcome", type=click.Choice(get_args(Outcome)), help="Only frames with this outcome.")
@click.option(
    "--limit", type=click.IntRange(1, MOST_REPORTS), help="Maximum number of reports.  [default: 20; with --run: all]"
)
@server_options
def reports(*, job_ids: tuple[str, ...], run_uid: str | None, address: str, as_json: bool, **options: Any) -> None:
    """Show the outcome of frames: of the given jobs, of a run, or the latest ones. Oldest first.

    To see why frames failed: petif reports --outcome failed
    """
    from pydantic import ValidationError

    from tango_server.client.client import Client
    from tango_server.messages import ReportsQuery
    from tango_server.text import explain

    if job_ids and run_uid:
        raise click.UsageError("Job ids and --run cannot be combined. Give one of them.")
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
        show_table(("finished", "outcome", "frame", "output or reason"), map(_row, answer.reports))
    pending = f"{counted(answer.pending, 'frame')} pending" if answer.pending else "no frames pending"
    say(f"{counted(len(answer.reports), 'report')}, {pending}. For job ids and times: --json")


def _row(report: "FrameReport") -> tuple[Cell | str, ...]:
    members = getattr(report, "members", ())
    source = f"{report.frame_name} (group of {len(members)})" if members else report.frame_name
    return local_time(report.finished), report.outcome, source, _details(report)


def _details(report: "FrameReport") -> Cell | str:
    if report.outcome not in {"converted", "grouped"} or not report.output:
        return Cell(report.reason.removeprefix(f"{report.frame_name}: "))
    overexposed = report.pixels.overexposed
    notes = [f"{counted(overexposed, 'overexposed pixel')}."] if overexposed else []
    notes += [report.reason] if report.reason else []
    return Cell(f"{report.output} ({' '.join(notes)})") if notes else report.output
