"""Writes docs/reference/commands.md from the commands themselves: `python docs/generate_commands.py`.

Subcommands are found as `petif` finds them, by their entry points: after a new one `pip install -e .` comes first.
Options that several commands share are described once.
"""

import inspect
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from tango_server.cli import petif

PAGE = Path(__file__).parent / "reference" / "commands.md"

_INTRODUCTION = """\
# Commands

<!-- Written by docs/generate_commands.py from the commands; change the texts in the folders `commands`. -->

`petif COMMAND --help` shows the same; "repeatable" options may be given several times. Options of several commands are
[shared](#shared-options).
"""
_SHARED = """
## Shared options
"""
_TANGO = """
## PETifConverter

`PETifConverter INSTANCE [Tango's own arguments]`

Runs the server with devices and settings from the Tango database, as Astor and Starter do
([how](../how-to/deploy.md#with-a-tango-database)). Exit code 0: stopped on request; any other: the server cannot run.
"""

_FORMAT = "ESPERANTO: "

Row = tuple[str, str]
"""An option with its values, and its meaning."""


def page() -> str:
    """Return the whole page."""
    context = click.Context(petif, info_name="petif")
    found = {name: petif.get_command(context, name) for name in petif.list_commands(context)}
    commands = {name: command for name, command in found.items() if command is not None}
    users: dict[Row, list[str]] = defaultdict(list)
    for name, command in commands.items():
        for row in _rows(command):
            users[row].append(name)
    shared = {row: names for row, names in users.items() if len(names) > 1}
    parts = [_command(name, command, context, shared) for name, command in commands.items()]
    return "".join([_INTRODUCTION, *parts, _TANGO, _SHARED, *_shared(shared)])


def _command(name: str, command: click.Command, parent: click.Context, shared: Iterable[Row]) -> str:
    context = click.Context(command, info_name=name, parent=parent)
    arguments = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    usage = [f"`{' '.join(['petif', name, *arguments])}`"] if arguments else []
    text = "\n\n".join([*usage, *_paragraphs(command)])
    own = [row for row in _rows(command) if row not in shared]
    return f"\n## petif {name}\n\n{text}\n{_list(own)}"


def _shared(shared: dict[Row, list[str]]) -> list[str]:
    """Return a list of options for each set of commands that have them."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row, users in shared.items():
        groups[", ".join(users)].append(row)
    return [f"\nOf {users}:\n{_list(rows)}" for users, rows in groups.items()]


def _list(rows: list[Row]) -> str:
    """Return the options; those whose texts begin with one format's name come under that name."""
    groups: dict[str, list[str]] = defaultdict(list)
    for names, meaning in rows:
        of_format = meaning.startswith(_FORMAT)
        groups[_FORMAT if of_format else ""].append(f"- {names}: {meaning.removeprefix(_FORMAT)}\n")
    parts = ["\n", *groups[""]] if groups[""] else []
    if groups[_FORMAT]:
        parts += [f"\nOnly for {_FORMAT.rstrip(': ')} frames:\n\n", *groups[_FORMAT]]
    return "".join(parts)


def _paragraphs(command: click.Command) -> list[str]:
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def _rows(command: click.Command) -> list[Row]:
    """Return a row for each option; one for all whose texts differ only in the word that begins their names."""
    options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    alike: dict[Row, list[click.Option]] = defaultdict(list)
    for option in options:
        word = option.opts[0].strip("-").partition("-")[0]
        alike[_value(option), re.sub(rf"\b{word}\b", "that circle", _help(option))].append(option)
    return [
        (f"{', '.join(map(_names, same))} {value}".strip(), meaning if len(same) > 1 else _help(same[0]))
        for (value, meaning), same in alike.items()
    ]


def _names(option: click.Option) -> str:
    return ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))


def _value(option: click.Option) -> str:
    if option.is_flag:
        return ""
    if isinstance(option.type, click.Choice):
        return ", ".join(f"`{choice}`" for choice in option.type.choices)
    return f"`{option.metavar}`" if option.metavar else _kind(option.type)


def _kind(kind: click.ParamType) -> str:
    words = {"path": "path", "file": "path", "directory": "folder", "text": "text", "integer": "integer",
             "integer range": "integer", "float": "number", "float range": "number"}  # fmt: skip
    limits: dict[str, Any] = vars(kind) if isinstance(kind, click.IntRange | click.FloatRange) else {}
    low, high = limits.get("min"), limits.get("max")
    return (
        words.get(kind.name, kind.name)
        + (f" {'above' if limits['min_open'] else 'from'} {low}" if low is not None else "")
        + (f" to {high}" if high is not None else "")
    )


def _help(option: click.Option) -> str:
    default = option.default
    shown = option.show_default and not callable(default) and not _is_nothing(default)
    text = " ".join((option.help or "").split()) + (f" [default: {default}]" if shown else "")
    return text.replace("[default", "\\[default")


def _is_nothing(default: object) -> bool:
    return default is None or default is False or default in ((), "")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
