"""How the subcommands tell things to people."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 200
"""Columns of a table that goes into a file or a pipe."""


def complain(errors: "Console", text: str) -> None:
    """Tell a person of trouble, in red and in one line."""
    errors.print(text, style="red", soft_wrap=True, highlight=False, markup=False)


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
        table.add_row(*map(Text, row))
    console().print(table)
