"""What commands for a run in a catalogue share: the catalogue's address, and what they do when it does not answer."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import click

from tango_server.commands.output import NO_SERVER, say

tiled_option = click.option(
    "--tiled",
    "tiled_uri",
    required=True,
    metavar="URI",
    help="Catalogue with the run, such as http://tiled.example:8000; its key is read from TILED_API_KEY.",
)


@contextmanager
def catalogue_errors(run_uid: str, uri: str) -> Iterator[None]:
    """End the command if the catalogue cannot be reached (exit code 3), rejects a call or lacks the run (2)."""
    import_module("tiled.client")  # so that a missing package is reported by the name of its extra
    import httpx

    place = uri.partition("?")[0]  # the rest may contain a key
    try:
        yield
    except KeyError as error:
        raise click.UsageError(f"{place}: the catalogue has no run {run_uid!r}. Give the uid of its start.") from error
    except PermissionError as error:
        raise click.UsageError(str(error)) from error
    except httpx.HTTPStatusError as error:
        raise click.UsageError(
            f"{place}: the catalogue rejected the call: {str(error).partition('?')[0].strip()}. Check the address and "
            "TILED_API_KEY."
        ) from error
    except httpx.HTTPError as error:
        why = str(error).rstrip(".")
        say(f"Error: {place}: cannot reach the catalogue: {why}. Start Tiled, or check --tiled.", err=True)
        sys.exit(NO_SERVER)
