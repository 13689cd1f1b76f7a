"""`petif statistics`: the statistics of one run, from a running server."""

import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import click

from tango_server.commands.output import INTERRUPTED, NOT_KNOWN, say, show_table
from tango_server.commands.server_options import RETRY_TIMEOUT, errors_in_words, server_options
from tango_server.text import counted

if TYPE_CHECKING:
    from tango_server.messages import RunStatistics

_PAUSE = 0.5


@click.command()
@click.argument("run_uid")
@click.option("--wait", is_flag=True, help="Wait until every frame of the run has a report.")
@server_options
def statistics(*, run_uid: str, address: str, as_json: bool, wait: bool) -> None:
    """Show the statistics of a run.

    RUN_UID is the uid in its start document, or the NAME given to petif add --run NAME.
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
                    line.update(f"{found.pending} of {found.submitted} frames pending")
                    pause.wait(_PAUSE)
                    found = with_retries(partial(client.run_statistics, run_uid), time.monotonic() + RETRY_TIMEOUT)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
    if as_json:
        say(found.model_dump_json())
    else:
        show_table(("", ""), rows_of(found), title=f"run {run_uid}")


def rows_of(found: "RunStatistics") -> list[tuple[str, str]]:
    """Return the names of a run's statistics and their values with units, a dash where there is none yet."""
    frames: dict[str, int] = {
        "submitted": found.submitted,
        "converted": found.converted,
        "skipped": found.skipped,
        "placeholders": found.placeholders,
        "failed": found.failed,
        "pending": found.pending,
    }
    of_groups = {
        "combined": (found.grouped, "frame"),
        "combined to": (found.groups, "frame"),
        "not combined": (found.groups_failed, "group"),
        "superseded": (found.superseded, "frame"),
    }
    return [
        *((name, counted(count, "frame")) for name, count in frames.items()),
        *((name, counted(count, what)) for name, (count, what) in of_groups.items() if count),
        ("conversion time, mean", _measured("{:.3f} s", found.conversion_time_mean)),
        ("conversion time, total", _measured("{:.1f} s", found.conversion_time_total)),
        ("latency, median", _measured("{:.3f} s", found.latency_median)),
        ("latency, 95 %", _measured("{:.3f} s", found.latency_p95)),
        ("read", f"{found.bytes_in / 1e6:.1f} MB"),
        ("written", f"{found.bytes_out / 1e6:.1f} MB"),
        ("data rate", _measured("{:.1f} MB/s", found.bytes_per_second / 1e6)),
    ]


def _measured(form: str, value: float) -> str:
    """Return a value that is 0 until a frame was converted."""
    return form.format(value) if value else NOT_KNOWN
