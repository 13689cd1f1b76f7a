"""`petif refresh`: the statistics of a catalogued run, written again by hand."""

import sys
from contextlib import closing

import click

from petif_bluesky.commands.catalogue_option import catalogue_errors, tiled_option
from tango_server.commands.output import SOME_FAILED, say, show_table
from tango_server.commands.server_options import errors_in_words, server_option
from tango_server.commands.statistics import rows_of


@click.command()
@click.argument("run_uid", metavar="RUN")
@tiled_option
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
    with errors_in_words(), catalogue_errors(run_uid, tiled_uri), closing(CatalogueAt(tiled_uri)) as catalogue:
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
