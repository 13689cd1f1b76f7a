"""What commands for a running server share: its address, and what they do when it does not answer."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from tango_server.addresses import DEFAULT_ADDRESS
from tango_server.commands.output import NO_SERVER, say

RETRY_TIMEOUT = 60.0
"""How long a waiting command tolerates a server that is down, s: it may be restarting."""

server_option = click.option(
    "--device",
    "address",
    envvar="PETIF_DEVICE",
    show_envvar=True,
    default=DEFAULT_ADDRESS,
    show_default=True,
    metavar="ADDRESS",
    help="Tango address of the server, as printed by petif serve.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--device` and `--json`."""
    return server_option(json_option(command))


@contextmanager
def errors_in_words() -> Iterator[None]:
    """End the command with the server's message if it cannot be reached (exit code 3) or rejects the call (2)."""
    from tango_server.client.client import LinkDownError, LinkError, RequestRejectedError, UnknownRunError

    try:
        yield
    except (RequestRejectedError, UnknownRunError) as error:
        raise click.UsageError(str(error)) from error
    except LinkError as error:
        hint = ""
        if type(error) is LinkDownError:
            hint = " To use another address: --device ADDRESS, or the environment variable PETIF_DEVICE."
        say(f"Error: {error}{hint}", err=True)
        sys.exit(NO_SERVER)
