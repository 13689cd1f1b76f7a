"""What the `petif` commands print, and their exit codes; 0 is success, and click's own 2 a wrong command line."""

import errno
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from tango_server.text import LONGEST_MESSAGE, cut_middle, printable

SOME_FAILED = 1
NO_SERVER = 3
INTERRUPTED = 130
"""The exit code that shells give a program ended by Ctrl-C."""

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.text import Text

LONGEST_LINE = 2**20
"""Characters of a line on standard output: JSON is printed whole."""
_WIDE = 10_000
"""Columns of a table in a file or a pipe, where every path is whole."""
_NARROWEST = 8
NOT_KNOWN = "–"


def say(text: str, *, err: bool = False) -> None:
    """Print lines; control characters in file names and tags are escaped."""
    click.echo("\n".join(printable(line, LONGEST_LINE) for line in text.split("\n")), err=err)


def silence_standard_output() -> None:
    """Discard what is still buffered for standard output: the next flush would fail as well."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    if nowhere != 1:
        os.close(nowhere)


def complain(errors: "Console", text: str, style: str = "red") -> None:
    """Print one line in colour to standard error."""
    errors.print(printable(text, LONGEST_MESSAGE), style=style, soft_wrap=True, highlight=False, markup=False)


def console() -> "Console":
    """Return the console of standard output; a file or a pipe gets lines of any length."""
    from rich.console import Console

    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=_WIDE)


def cannot_listen(host: str, port: int, error: OSError) -> str:
    """Return why a command cannot listen on an address, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return f"Cannot listen on {host}:{port}: the port is in use. Choose another with --port, or --port 0."
    why = error.strerror or str(error)
    return f"Cannot listen on {host}:{port}: {why}. Choose an address of this machine with --host, or another --port."


class Cell:
    """Text in a table. Lines wrap between words; a word that is too long, as a path, loses its middle.

    With `whole` the text is one name or path: it stays on one line, and loses its middle if that is too short.
    """

    def __init__(self, text: str, *, whole: bool = False) -> None:
        self._text = printable(text, LONGEST_MESSAGE)
        self._words = [self._text] if whole else self._text.split(" ")

    def __rich_console__(self, _: "Console", options: "ConsoleOptions") -> "Iterable[Text]":
        """Yield the text as it fits."""
        from rich.text import Text

        yield Text(" ".join(_fitted(word, options.max_width) for word in self._words), no_wrap=len(self._words) == 1)

    def __rich_measure__(self, _: "Console", options: "ConsoleOptions") -> "Measurement":
        """Return the narrowest and the widest form."""
        from rich.cells import cell_len
        from rich.measure import Measurement

        widest = min(cell_len(self._text), options.max_width)
        return Measurement(min(_NARROWEST, widest), widest)


def show_table(headings: Sequence[str], rows: Iterable[Sequence[Cell | str]], title: str = "") -> None:
    """Print a table on standard output; a `str` is one name or path, which is never broken."""
    from rich.table import Table

    table = Table(show_header=any(headings))
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Cell) else Cell(cell, whole=True) for cell in row))
    screen = console()
    if title:
        screen.print(Cell(title, whole=True))
    screen.print(table)


def _fitted(word: str, width: int) -> str:
    """Return a word in at most `width` columns of the terminal; some characters take two."""
    from rich.cells import cell_len

    longest, fitted = width, word
    while cell_len(fitted) > width and longest > 1:
        fitted = cut_middle(word, longest)
        longest -= 1
    return fitted
