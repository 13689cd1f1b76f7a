"""`petif monitor`: a browser page that shows a running server."""

import sys
import webbrowser

import click

from tango_server.commands.output import cannot_listen, say
from tango_server.commands.server_options import server_option

_DEFAULT_PAGE_PORT = 5007


@click.command()
@server_option
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="IPv4 address to listen on; 127.0.0.1: this machine only, 0.0.0.0: all its networks.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=_DEFAULT_PAGE_PORT, show_default=True,
              help="Port of the page; 0 chooses a free one.")  # fmt: skip
@click.option("--read-only", is_flag=True, help="Leave out the buttons that change something.")
@click.option("--show/--no-show", default=False, show_default=True, help="Open the page in a browser on this machine.")
def monitor(*, address: str, host: str, port: int, read_only: bool, show: bool) -> None:
    """Show a running server in the browser: state, rates, frames before and after, failures.

    The page waits for a server that is down. Stop it with Ctrl-C.
    """
    from tango_server.monitor.allowed_origins import is_loopback, shown_name
    from tango_server.monitor.web import serve

    def show_address(taken: int) -> None:
        page = f"http://{shown_name(host)}:{taken}"
        say(f"ready: {page}")
        if not is_loopback(host):
            may = "see this page" if read_only else "see this page and retry frames (prevent that with --read-only)"
            say(f"Anyone who can reach {host}:{taken} can {may}: there is no login.", err=True)
        sys.stdout.flush()
        if show:
            webbrowser.open(page)

    try:
        serve(address, host=host, port=port, read_only=read_only, ready=show_address)
    except OSError as error:
        raise click.ClickException(cannot_listen(host, port, error)) from error
