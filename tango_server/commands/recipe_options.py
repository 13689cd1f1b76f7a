"""The options of the command line that make a recipe, shared by the commands that take one."""

import os
from collections.abc import Callable
from typing import Any, get_args

import click
from pydantic import ValidationError

from tango_server.recipe import PRESETS, Compression, Flip, Format, OnExisting, PixelType, Recipe, Rotation, Rounding

_TURNING = (
    click.option("--preset", type=click.Choice(list(PRESETS)),
                 help="What the frames are for: xdi (int32), xdi-unsigned (uint32), esperanto (CrysAlis Pro); other "
                 "options go over it.  [default: that of the format, else xdi]"),
    click.option("--rotation", type=click.Choice([str(angle) for angle in get_args(Rotation)]),
                 help="Degrees, counter-clockwise, first."),
    click.option("--flip", type=click.Choice(get_args(Flip)),
                 help="After the rotation: 0 up-down, 1 left-right, both, none."),
    click.option("--pixel-type", type=click.Choice([*get_args(PixelType), "source"]), help="Type of the pixels."),
    click.option("--rounding", type=click.Choice(get_args(Rounding)), help="How floats become integers."),
    click.option("--invalid-value", type=int, help="What NaN becomes in an integer type.  [default: 0]"),
)  # fmt: skip
_OUTPUT = (
    click.option("--format", "format_", type=click.Choice(get_args(Format)),
                 help="File format of the outputs.  [default: that of the preset]"),
    click.option("--compression", type=click.Choice(get_args(Compression)), help="Lossless; XDI reads none of them."),
    click.option("--output-dir", type=click.Path(file_okay=False),
                 help="Folder of the outputs.  [default: the path with 'raw' replaced by 'processed']"),
    click.option("--template",
                 help="Name of the outputs, as '{stem}_{index:05d}': stem and last number of the source's name."),
    click.option("--on-existing", type=click.Choice(get_args(OnExisting)),
                 help="If there is a file: replace_own replaces what petif made from the same frame (and fails else), "
                 "skip, refuse (fails), number (NAME-00001)."),
    click.option("--in-place", is_flag=True, help="Replace the sources."),
    click.option("--backup", is_flag=True, help="With --in-place: keep each source as NAME.orig."),
    click.option("--force", is_flag=True, help="Convert also what was converted already."),
    click.option("--preserve-mtime", is_flag=True, help="Give the output the source's modification time."),
    click.option("--file-mode", metavar="MODE",
                 help="Permissions of new files, as 0640; source: those of the source, with its group."),
    click.option("--folder-mode", metavar="MODE",
                 help="Permissions of new folders, as 2750; source: those of the source's folder."),
    click.option("--group", help="Group of new files and folders."),
)  # fmt: skip


def turning_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what to do to the pixels."""
    for option in reversed(_TURNING):
        command = option(command)
    return command


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add all options that a recipe is made of."""
    for option in reversed((*_TURNING, *_OUTPUT)):
        command = option(command)
    return command


def recipe_from(
    options: dict[str, Any],
    esperanto: dict[str, Any] | None = None,
    *,
    base: Recipe | None = None,
    whole_path: Callable[[str], str] = os.path.realpath,
) -> Recipe:
    """Take the options of a recipe out of `options` and return the recipe.

    `esperanto` is what it says of ESPERANTO frames, if that was asked for. The options change `base`, if there is one,
    and a preset else. `whole_path` makes the folder of the outputs absolute.

    Raises
    ------
    click.UsageError
        if they contradict each other.
    """
    preset = options.pop("preset") or ("esperanto" if options.get("format_") == "esperanto" else "xdi")
    fields = {name: options.pop(name, None) for name in ("flip", "rounding", "invalid_value", "compression")}
    rotation, pixel_type = options.pop("rotation"), options.pop("pixel_type")
    fields["format"] = options.pop("format_", None)
    fields["rotation"] = int(rotation) if rotation else None
    changes = {name: value for name, value in fields.items() if value is not None}
    if pixel_type:
        changes["pixel_type"] = None if pixel_type == "source" else pixel_type
    output = _output(options, whole_path)
    if esperanto:
        if "esperanto" not in {preset, changes.get("format")}:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in esperanto)
            raise click.UsageError(f"{flags}: these are for ESPERANTO frames; expected --format esperanto with them")
        changes["esperanto"] = esperanto
    from tango_server.text import explain

    try:
        if base is None:
            return Recipe.preset(preset, **changes, output={"mode": "new", **output})
        known = base.model_dump()
        kept = known["output"] if output.get("mode", base.output.mode) == base.output.mode else {}
        return Recipe.model_validate({**known, **changes, "output": {**kept, **output}})
    except ValidationError as error:
        raise click.UsageError(explain(error)) from error


def _output(options: dict[str, Any], whole_path: Callable[[str], str]) -> dict[str, Any]:
    """Return what was asked for of the place of the output; the mode only if that settles it."""
    in_place = options.pop("in_place", False)
    common = {name: True for name in ("preserve_mtime", "force") if options.pop(name, False)}
    backup = options.pop("backup", False)
    folder = options.pop("output_dir", None)
    placing = {
        "folder": None if folder is None else whole_path(folder),
        "template": options.pop("template", None),
        **{name: options.pop(name, None) for name in ("on_existing", "file_mode", "folder_mode", "group")},
    }
    given = {name: value for name, value in placing.items() if value is not None}
    if in_place and given:
        raise click.UsageError(f"--in-place replaces the sources; it does not go with {', '.join(_flags(given))}")
    if backup and not in_place:
        raise click.UsageError("--backup needs --in-place")
    if in_place:
        return {"mode": "in_place", **common, **({"backup": True} if backup else {})}
    return {**({"mode": "new"} if given else {}), **common, **given}


def _flags(options: dict[str, Any]) -> list[str]:
    names = {"folder": "--output-dir"}
    return [names.get(name, f"--{name.replace('_', '-')}") for name, value in options.items() if value]
