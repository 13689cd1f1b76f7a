"""Settings on a command line: `--set NAME=VALUE`."""

import click


def assignment(text: str) -> tuple[str, str]:
    """Return name and value of NAME=VALUE; the `type` of an option."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise click.BadParameter(f"found {text!r}; expected NAME=VALUE, as timeout=30")
    return name, value


def as_lines(assignments: tuple[tuple[str, str], ...]) -> dict[str, list[str]]:
    """Return the values of each name; a name that is given again adds a line, for settings that are lists.

    >>> as_lines((("read_roots", "/a"), ("timeout", "30"), ("read_roots", "/b")))
    {'read_roots': ['/a', '/b'], 'timeout': ['30']}
    """
    lines: dict[str, list[str]] = {}
    for name, value in assignments:
        lines.setdefault(name, []).append(value)
    return lines
