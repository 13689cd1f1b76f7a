"""`petif acknowledge`: clear the alarm of a running server."""

import json

import click

from tango_server.commands.output import say
from tango_server.commands.server_options import errors_in_words, server_options


@click.command()
@server_options
def acknowledge(*, address: str, as_json: bool) -> None:
    """Clear the alarm about failed frames.

    The frames can still be retried with petif retry.
    """
    from tango_server.client.client import Client

    with errors_in_words():
        Client(address).acknowledge()
    say(json.dumps({"acknowledged": True}) if as_json else "alarm cleared")
