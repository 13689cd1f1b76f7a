"""`petif refresh`: the statistics of a catalogued run, written again by hand."""

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module

import click

from tango_server.commands.output import NO_SERVER, SOME_FAILED, say, show_table
from tango_server.commands.server_options import errors_in_words, server_option
from tango_server.commands.statistics import rows_of


@click.command()
@click.argument("run_uid", metavar="RUN")
@click.option(
    "--tiled",
    "tiled_uri",
    required=True,
    metavar="URI",
    help="Catalogue with the run, such as http://tiled.example:8000; its key is read from TILED_API_KEY.",
)
@server_option
def refresh(*, run_uid: str, tiled_uri: str, address: str) -> None:
    """Write a server's statistics of a run to its metadata in a catalogue.

    RUN is the uid in its start document. Needed when frames were converted, retried or cancelled after the session
    ended.
    """
    from petif_bluesky.documents.bookings import bookings_of
    from petif_bluesky.tiled.lazy_client import CatalogueAt
    from petif_bluesky.tiled.statistics import refresh_statistics
    from tango_server.client.client import Client, UnknownRunError

    client, unknown = Client(address), dict[str, UnknownRunError]()
    with errors_in_words(), _catalogue_errors(run_uid, tiled_uri), closing(CatalogueAt(tiled_uri)) as catalogue:
        start = catalogue[run_uid].metadata["start"]
        bookings = bookings_of(start)
        for booking in bookings:
            try:
                written = refresh_statistics(catalogue, client, booking.run_uid)
            except UnknownRunError as error:
                unknown[booking.key] = error
                continue
            show_table(("", ""), rows_of(written), title=f"run {run_uid}, {booking.key}")
        if len(unknown) == len(bookings):
            raise unknown.popitem()[1]
    for key, reason in unknown.items():
        device = start.get(key, {}).get("device")
        hint = f" To use the server that converted them: --device {device}" if device else ""
        say(f"Error: {key} not written: {reason}{hint}", err=True)
    if unknown:
        sys.exit(SOME_FAILED)


@contextmanager
def _catalogue_errors(run_uid: str, uri: str) -> Iterator[None]:
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
