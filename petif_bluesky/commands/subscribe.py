"""`petif subscribe`: the callback in a separate process."""

import logging
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from tango_server.commands.output import INTERRUPTED, say
from tango_server.commands.server_options import server_option

_HIGHEST_PORT = 65535


def _host_and_port(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    host, _, port = value.rpartition(":")
    if not (host and port.isdecimal() and int(port) <= _HIGHEST_PORT):
        raise click.BadParameter(
            f"{value!r} is not HOST:PORT. Give the second port of `bluesky-0MQ-proxy IN OUT`, such as localhost:5578."
        )
    return value


@click.command()
@click.option("--zmq", "zmq_address", required=True, metavar="HOST:PORT", callback=_host_and_port,
              help="Output port of bluesky's 0MQ proxy (`bluesky-0MQ-proxy IN OUT`).")  # fmt: skip
@server_option
@click.option("--spool", type=click.Path(path_type=Path, dir_okay=False),
              help="File that holds requests until the server accepts them.  [default: one per server]")  # fmt: skip
@click.option("--converter", "name", default="", metavar="NAME",
              help="Name of the converter in the session, unless it is the first one there.")  # fmt: skip
@click.option("--prefix", default="", help="Use only documents from publishers with this prefix.")
@click.option("--any-pickle", is_flag=True,
              help="Accept pickles of any objects. Anyone who can reach the proxy can then run code here.")  # fmt: skip
@click.option("--tiled", "tiled_uri", metavar="URI",
              help="Catalogue to add each run's final statistics to, such as http://tiled.example:8000; its key is "
              "read from TILED_API_KEY. The runs themselves must be written by another program.")  # fmt: skip
def subscribe(
    *,
    zmq_address: str,
    address: str,
    spool: Path | None,
    name: str,
    prefix: str,
    any_pickle: bool,
    tiled_uri: str | None,
) -> None:
    """Convert the frames of runs whose documents come over bluesky's 0MQ proxy.

    In the bluesky session: RE.subscribe(Publisher("HOST:IN-PORT")), from bluesky.callbacks.zmq.

    0MQ LOSES DOCUMENTS without notice: those sent before this process connected, while the proxy, this process or the
    network is down, and beyond the 1000 queued for a slow subscriber. Missing ones are logged at a run's stop document.
    If no frame may be lost, attach the converter in the session itself.

    Press Ctrl-C to stop; requests not yet accepted by the server stay in the spool and are sent at the next start.
    """
    from petif_bluesky.callback import ConversionCallback
    from petif_bluesky.remote.session import RemoteSession
    from petif_bluesky.remote.zmq_host import ZmqHost
    from petif_bluesky.spool import SpoolError
    from petif_bluesky.tiled.lazy_client import CatalogueAt
    from petif_bluesky.tiled.raw_frames import darks_of_run, find_run
    from petif_bluesky.tiled.statistics import CatalogueStatistics
    from tango_server.client.client import Client

    if tiled_uri:
        import_module("tiled.client")  # so that a missing package is noticed now, not later in a thread
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        session = RemoteSession(Client(address), name)
        try:
            callback = stack.enter_context(closing(ConversionCallback(session, spool=spool)))
        except SpoolError as error:
            raise click.ClickException(str(error)) from error
        subscribers: list[Callable[[str, Mapping[str, Any]], None]] = [callback]
        if tiled_uri:
            catalogue = stack.enter_context(closing(CatalogueAt(tiled_uri)))
            callback.darks.find = lambda uid: darks_of_run(find_run(catalogue, uid))
            subscribers.append(stack.enter_context(closing(CatalogueStatistics(catalogue, session))))
        say(f"Listening to {zmq_address}; sending frames to {address}.")
        try:
            ZmqHost(zmq_address, subscribers, prefix=prefix, any_pickle=any_pickle).run()
        except KeyboardInterrupt:
            left = callback.waiting
            say(f"Stopped; {left} frames are waiting for the server in the spool." if left else "Stopped.")
    sys.exit(INTERRUPTED)
