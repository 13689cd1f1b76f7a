"""`petif acknowledge`: the alarm of a running server ended."""

import json

import click

from tango_server.commands.output import say
from tango_server.commands.server_options import errors_in_words, server_options


@click.command()
@server_options
def acknowledge(*, address: str, as_json: bool) -> None:
    """End the alarm about frames that failed so far.

    It changes nothing else: petif retry still tries them again.
    """
    from tango_server.client.client import Client

    with errors_in_words():
        Client(address).acknowledge()
    say(json.dumps({"acknowledged": True}) if as_json else "the alarm about failed frames is ended")
