"""`petif subscribe`: the callback in a process of its own."""

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
            f"found {value!r}; expected HOST:PORT, the second port of `bluesky-0MQ-proxy IN OUT`, as localhost:5578"
        )
    return value


@click.command()
@click.option("--zmq", "zmq_address", required=True, metavar="HOST:PORT", callback=_host_and_port,
              help="Out port of bluesky's 0MQ proxy (`bluesky-0MQ-proxy IN OUT`).")  # fmt: skip
@server_option
@click.option("--spool", type=click.Path(path_type=Path, dir_okay=False),
              help="File in which requests wait for the server.  [default: one per server]")  # fmt: skip
@click.option("--prefix", default="", help="Take only documents of publishers with this prefix.")
@click.option("--any-pickle", is_flag=True,
              help="Take pickles of any objects. Whoever reaches the proxy may then run programs here.")  # fmt: skip
@click.option("--tiled", "tiled_uri", metavar="URI",
              help="Catalogue that gets each run's final statistics, as http://tiled.example:8000; its key is in "
              "TILED_API_KEY. The runs themselves are written by others.")  # fmt: skip
def subscribe(
    *, zmq_address: str, address: str, spool: Path | None, prefix: str, any_pickle: bool, tiled_uri: str | None
) -> None:
    """Convert the frames of runs whose documents come over bluesky's 0MQ proxy.

    In the bluesky session: RE.subscribe(Publisher("HOST:IN-PORT")), from bluesky.callbacks.zmq.

    0MQ LOSES DOCUMENTS, and tells nobody: those of runs that began before this process was connected, those that are
    sent while the proxy or this process is down or the network is cut, and those beyond 1000 that wait for a slow
    subscriber. Therefore each run's stop document is compared with what came, and what is missing is told. A frame
    whose documents came is on disk here and can't be lost any more, whether or not the server is up. Where none may be
    lost, subscribe the ConversionCallback in the session itself.

    Ctrl-C ends it; what waits for the server stays in the spool, and goes on its way at the next start.
    """
    from petif_bluesky.callback import ConversionCallback
    from petif_bluesky.remote.session import RemoteSession
    from petif_bluesky.remote.zmq_host import ZmqHost
    from petif_bluesky.spool import SpoolError
    from petif_bluesky.tiled.lazy_client import CatalogueAt
    from petif_bluesky.tiled.statistics import CatalogueStatistics
    from tango_server.client.client import Client

    if tiled_uri:
        import_module("tiled.client")  # which is to be missed now, and not by the thread that needs it
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        session = RemoteSession(Client(address))
        try:
            callback = stack.enter_context(closing(ConversionCallback(session, spool=spool)))
        except SpoolError as error:
            raise click.ClickException(str(error)) from error
        subscribers: list[Callable[[str, Mapping[str, Any]], None]] = [callback]
        if tiled_uri:
            catalogue = stack.enter_context(closing(CatalogueAt(tiled_uri)))
            subscribers.append(stack.enter_context(closing(CatalogueStatistics(catalogue, session))))
        say(f"listening to {zmq_address}; frames go to {address}")
        try:
            ZmqHost(zmq_address, subscribers, prefix=prefix, any_pickle=any_pickle).run()
        except KeyboardInterrupt:
            left = callback.waiting
            say(f"stopped; {left} frames wait for the server in the spool" if left else "stopped")
    sys.exit(INTERRUPTED)
