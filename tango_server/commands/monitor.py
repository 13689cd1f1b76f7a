"""`petif monitor`: a page in the browser that shows what a running server does."""

import sys
import webbrowser

import click

from tango_server.commands.output import say
from tango_server.commands.server_options import server_option

_DEFAULT_PAGE_PORT = 5007


@click.command()
@server_option
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="IPv4 address to listen at; 127.0.0.1 is this machine only, 0.0.0.0 every network of it.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=_DEFAULT_PAGE_PORT, show_default=True,
              help="Port of the page; 0 takes a free one.")  # fmt: skip
@click.option("--read-only", is_flag=True, help="Show, and let nobody change anything.")
@click.option("--show/--no-show", default=False, show_default=True, help="Open a browser here.")
def monitor(*, address: str, host: str, port: int, read_only: bool, show: bool) -> None:
    """Show a running server in the browser: state, rates, frames before and after, failures.

    The page needs no bluesky, and waits for a server that is down. Ctrl-C ends it.
    """
    from tango_server.monitor.allowed_origins import is_loopback, shown_name
    from tango_server.monitor.web import serve

    def show_address(taken: int) -> None:
        page = f"http://{shown_name(host)}:{taken}"
        say(f"ready: {page}")
        if not is_loopback(host):
            may = "see this page" if read_only else "see this page and retry frames (--read-only prevents that)"
            say(f"Everybody who reaches {host}:{taken} over the network may {may}: it has no login.", err=True)
        sys.stdout.flush()
        if show:
            webbrowser.open(page)

    try:
        serve(address, host=host, port=port, read_only=read_only, ready=show_address)
    except OSError as error:
        raise click.ClickException(
            f"found that {host}:{port} can't be listened at ({error.strerror or error}); expected an address of this "
            "machine and a free port. Is another monitor running there? Choose another --port, or 0 for a free one."
        ) from error
