"""Settings on a command line: `--set NAME=VALUE`."""

from collections.abc import Callable
from typing import Any

import click


def set_option(meaning: str) -> Callable[[Any], Any]:
    """Return the option `--set NAME=VALUE` of a command; `meaning` begins its help."""
    how_often = "(repeatable: adds a line to a list, replaces any other value)."
    return click.option(
        "--set", "assignments", multiple=True, type=assignment, metavar="NAME=VALUE", help=f"{meaning} {how_often}"
    )


def assignment(text: str) -> tuple[str, str]:
    """Return name and value of NAME=VALUE; the `type` of an option."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise click.BadParameter(f"{text!r} is not NAME=VALUE, as timeout=30.")
    return name, value


def as_lines(assignments: tuple[tuple[str, str], ...]) -> dict[str, list[str]]:
    """Return the lines of each name. A repeated name adds a line to a list, and replaces any other value.

    >>> as_lines((("read_roots", "/a"), ("timeout", "30"), ("read_roots", "/b"), ("timeout", "60")))
    {'read_roots': ['/a', '/b'], 'timeout': ['60']}
    """
    from tango_server.device.property_lines import is_list
    from tango_server.settings import Settings

    lines: dict[str, list[str]] = {}
    for name, value in assignments:
        before = lines.get(name, []) if name in Settings.model_fields and is_list(name) else []
        lines[name] = [*before, value]
    return lines
