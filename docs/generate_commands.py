"""Writes docs/reference/commands.md from the commands themselves: `python docs/generate_commands.py`.

Subcommands are found as `petif` finds them, by their entry points: after a new one `pip install -e .` comes first.
"""

import inspect
from pathlib import Path
from typing import Any

import click

from tango_server.cli import petif

PAGE = Path(__file__).parent / "reference" / "commands.md"

_INTRODUCTION = """\
# Commands

<!-- Written by docs/generate_commands.py from the commands; change the texts in the folders `commands`. -->

`petif COMMAND --help` shows the same. Options marked "repeatable" may be given several times.

| command | does |
|---|---|
"""
_TANGO = """
## PETifConverter

```text
PETifConverter INSTANCE [Tango's own arguments]
```

Run the server with its devices and settings from the Tango database, as Astor and Starter do.
[How](../how-to/deploy.md#with-a-tango-database). Exit code 0: it was told to end; anything else: it can't serve.
"""


def page() -> str:
    """Return the whole page."""
    context = click.Context(petif, info_name="petif")
    commands = {name: petif.get_command(context, name) for name in petif.list_commands(context)}
    rows = [
        f"| [`petif {name}`](#petif-{name}) | {_paragraphs(command)[0]} |\n"
        for name, command in commands.items()
        if command is not None
    ]
    parts = [_command(name, command, context) for name, command in commands.items() if command is not None]
    return "".join([_INTRODUCTION, *rows, *parts, _TANGO])


def _command(name: str, command: click.Command, parent: click.Context) -> str:
    context = click.Context(command, info_name=name, parent=parent)
    usage = " ".join(["petif", name, *command.collect_usage_pieces(context)])
    text = "\n\n".join(_paragraphs(command))
    options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    table = "".join(f"| {_names(option)} | {_value(option)} | {_help(option)} |\n" for option in options)
    head = "\n| option | value | meaning |\n|---|---|---|\n" if table else ""
    return f"\n## petif {name}\n\n```text\n{usage}\n```\n\n{text}\n{head}{table}"


def _paragraphs(command: click.Command) -> list[str]:
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def _names(option: click.Option) -> str:
    return ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))


def _value(option: click.Option) -> str:
    if option.is_flag:
        return ""
    if isinstance(option.type, click.Choice):
        return _cell(", ".join(f"`{choice}`" for choice in option.type.choices))
    return _cell(f"`{option.metavar}`" if option.metavar else _kind(option.type))


def _kind(kind: click.ParamType) -> str:
    words = {"path": "path", "file": "path", "directory": "folder", "text": "text", "integer": "whole number",
             "integer range": "whole number", "float": "number", "float range": "number"}  # fmt: skip
    limits: dict[str, Any] = vars(kind) if isinstance(kind, click.IntRange | click.FloatRange) else {}
    low, high = limits.get("min"), limits.get("max")
    return (
        words.get(kind.name, kind.name)
        + (f" {'above' if limits['min_open'] else 'from'} {low}" if low is not None else "")
        + (f" up to {high}" if high is not None else "")
    )


def _help(option: click.Option) -> str:
    default = option.default
    shown = option.show_default and not callable(default) and not _is_nothing(default)
    return _cell(" ".join((option.help or "").split()) + (f" [default: {default}]" if shown else ""))


def _is_nothing(default: object) -> bool:
    return default is None or default is False or default in ((), "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("[default", "\\[default")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
