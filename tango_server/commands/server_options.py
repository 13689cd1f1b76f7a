"""What the commands for a running server share: its address, how they tell things, and how they end."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from tango_server.commands.serve import DEFAULT_DEVICE, DEFAULT_PORT

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_ADDRESS = f"tango://127.0.0.1:{DEFAULT_PORT}/{DEFAULT_DEVICE}#dbase=no"
"""Where `petif serve` is, unless told otherwise."""
SOME_FAILED = 1
NO_SERVER = 3
_WIDE = 200
"""Columns of a table that goes into a file or a pipe."""

server_option = click.option(
    "--device",
    "address",
    envvar="PETIF_DEVICE",
    show_envvar=True,
    default=DEFAULT_ADDRESS,
    show_default=True,
    metavar="ADDRESS",
    help="Tango address of the server, as `petif serve` tells it.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Tell it as JSON.")


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--device` and `--json`."""
    return server_option(json_option(command))


@contextmanager
def told_troubles() -> Iterator[None]:
    """End the command with the server's own words if it can't be asked (exit code 3) or rejects the call (2)."""
    from tango_server.client import LinkDownError, LinkError, RequestRejectedError, UnknownRunError

    try:
        yield
    except (RequestRejectedError, UnknownRunError) as error:
        raise click.UsageError(str(error)) from error
    except LinkError as error:
        hint = ""
        if type(error) is LinkDownError:
            hint = " Another address: --device TRL, or the environment variable PETIF_DEVICE."
        click.echo(f"Error: {error}{hint}", err=True)
        sys.exit(NO_SERVER)


def console() -> "Console":
    """Return the console of standard output; wide enough for paths if that is no terminal."""
    from rich.console import Console

    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=_WIDE)


def complain(errors: "Console", text: str) -> None:
    """Tell a person of trouble, in red and in one line."""
    errors.print(text, style="red", soft_wrap=True, highlight=False, markup=False)


def show_table(headings: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Show a table on standard output; nothing in it is cut off, and brackets in names are left alone."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console().print(table)
