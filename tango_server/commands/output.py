"""What the commands of `petif` print, and how they end: 0 is all well, and click's own 2 a wrong call."""

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from tango_server.text import LONGEST_MESSAGE, printable

SOME_FAILED = 1
NO_SERVER = 3
INTERRUPTED = 130
"""What shells give a program that Ctrl-C has ended."""

if TYPE_CHECKING:
    from rich.console import Console

LONGEST_LINE = 2**20
"""Characters of a line on standard output: JSON has all of it."""
_WIDE = 10_000
"""Columns of a table that goes into a file or a pipe: no path is broken there."""


def say(text: str, *, err: bool = False) -> None:
    """Print lines; nothing that a name or a tag of a file holds reaches the terminal as a command."""
    click.echo("\n".join(printable(line, LONGEST_LINE) for line in text.split("\n")), err=err)


def silence_standard_output() -> None:
    """Have what is still to be written go nowhere: whoever flushes it next would fail as well."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    if nowhere != 1:
        os.close(nowhere)


def complain(errors: "Console", text: str, style: str = "red") -> None:
    """Tell a person of trouble, in colour and in one line."""
    errors.print(printable(text, LONGEST_MESSAGE), style=style, soft_wrap=True, highlight=False, markup=False)


def console() -> "Console":
    """Return the console of standard output; wide enough for paths if that is no terminal."""
    from rich.console import Console

    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=_WIDE)


def show_table(headings: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Show a table on standard output; nothing in it is cut off, and brackets in names are left alone."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell, LONGEST_MESSAGE)) for cell in row))
    console().print(table)
