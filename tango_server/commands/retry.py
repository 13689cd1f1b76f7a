"""`petif retry`: have a running server retry failed frames."""

import json

import click

from tango_server.commands.output import say
from tango_server.commands.server_options import errors_in_words, server_options
from tango_server.text import counted


@click.command()
@click.option("--acknowledge", is_flag=True, help="Also clear the alarm about failed frames.")
@server_options
def retry(*, address: str, as_json: bool, acknowledge: bool) -> None:
    """Retry all frames that failed since the counters were last reset.

    They keep their job ids. Fix the cause first; petif reports --outcome failed shows it.
    """
    from tango_server.client.client import Client

    client = Client(address)
    with errors_in_words():
        if acknowledge:  # first, so that a frame that fails again raises the alarm
            client.acknowledge()
        count = client.retry_failed()
    if as_json:
        say(json.dumps({"retried": count}))
    else:
        say(f"retrying {counted(count, 'frame')}" if count else "no failed frames to retry")
