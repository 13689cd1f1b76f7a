"""`petif statistics`: the figures of one run, from a running server."""

import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import click

from tango_server.commands.output import INTERRUPTED, say, show_table
from tango_server.commands.server_options import PATIENCE, errors_in_words, server_options

if TYPE_CHECKING:
    from tango_server.messages import RunStatistics

_PAUSE = 0.5


@click.command()
@click.argument("run_uid")
@click.option("--wait", is_flag=True, help="Wait until every frame of the run has its report.")
@server_options
def statistics(*, run_uid: str, address: str, as_json: bool, wait: bool) -> None:
    """Tell how the frames of a run are doing.

    RUN_UID is the uid of its start document, or the NAME of petif add --run NAME.
    """
    from rich.console import Console

    from tango_server.client.client import Client
    from tango_server.client.paging import with_retries

    client, pause = Client(address), threading.Event()
    with errors_in_words():
        found = client.run_statistics(run_uid)
        try:
            with Console(stderr=True).status("") as line:
                while wait and found.pending:
                    line.update(f"{found.pending} of {found.submitted} frames to go")
                    pause.wait(_PAUSE)
                    found = with_retries(partial(client.run_statistics, run_uid), time.monotonic() + PATIENCE)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
    if as_json:
        say(found.model_dump_json())
    else:
        show_table(("", ""), rows_of(found), title=f"run {run_uid}")


def rows_of(found: "RunStatistics") -> list[tuple[str, str]]:
    """Return the statistics of a run for people: what they are called, and their values with units."""
    frames = {
        "submitted": found.submitted,
        "converted": found.converted,
        "skipped": found.skipped,
        "placeholders": found.placeholders,
        "failed": found.failed,
        "without a report yet": found.pending,
    }
    return [
        *((name, f"{count} frames") for name, count in frames.items()),
        ("conversion time, mean", f"{found.conversion_time_mean:.3f} s"),
        ("conversion time, total", f"{found.conversion_time_total:.1f} s"),
        ("latency, median", f"{found.latency_median:.3f} s"),
        ("latency, 95 %", f"{found.latency_p95:.3f} s"),
        ("read", f"{found.bytes_in / 1e6:.1f} MB"),
        ("written", f"{found.bytes_out / 1e6:.1f} MB"),
        ("data rate", f"{found.bytes_per_second / 1e6:.1f} MB/s"),
    ]
