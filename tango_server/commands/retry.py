"""`petif retry`: failed frames tried again by a running server."""

import json

import click

from tango_server.commands.output import say
from tango_server.commands.server_options import errors_in_words, server_options
from tango_server.text import counted


@click.command()
@click.option("--acknowledge", is_flag=True, help="End the alarm about frames that failed so far, too.")
@server_options
def retry(*, address: str, as_json: bool, acknowledge: bool) -> None:
    """Try every frame again that has failed since the counters were reset.

    They stay the same jobs. Mend the cause first: petif reports --outcome failed tells it.
    """
    from tango_server.client.client import Client

    client = Client(address)
    with errors_in_words():
        if acknowledge:  # first, so that the alarm of a frame that fails again stays
            client.acknowledge()
        count = client.retry_failed()
    if as_json:
        say(json.dumps({"retried": count}))
    else:
        tried = f"{counted(count, 'frame')} {'is' if count == 1 else 'are'} tried again"
        say(tried if count else "there is no failed frame to try again")
