"""The command-line options that make a recipe, shared by the commands that take one."""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, get_args

import click
from pydantic import ValidationError

from tango_server.recipe import Compression, Format, OnExisting, PixelType, Recipe, Rotation, Rounding

if TYPE_CHECKING:
    _TextChoice = click.Choice[str]
else:
    _TextChoice = click.Choice


class _Choice(_TextChoice):
    """One of some words, in any case of letters; a wrong one is refused with what the words mean."""

    def __init__(self, meanings: Mapping[str, str]) -> None:
        super().__init__(list(meanings), case_sensitive=False)
        self._meanings = meanings

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return str(super().convert(value, param, ctx))
        except click.BadParameter:
            words = [f"{word} ({meaning})" if meaning else word for word, meaning in self._meanings.items()]
            self.fail(f"{value!r} is unknown. Choose {', '.join(words[:-1])} or {words[-1]}.", param, ctx)


def _one_of(words: Iterable[object]) -> _Choice:
    return _Choice({str(word): "" for word in words})


FLIPS = {
    "none": "no flip", "0": "up-down", "1": "left-right", "both": "up-down and left-right",
}  # fmt: skip
"""The values of --flip and what they mean."""
PRESET_USES = {"xdi": "int32, for XDI", "xdi-unsigned": "uint32, for XDI", "esperanto": "for CrysAlis Pro"}
"""The values of --preset and what they are for."""

_TURNING = (
    click.option("--preset", type=_Choice(PRESET_USES),
                 help="Purpose of the frames: xdi (int32), xdi-unsigned (uint32), esperanto (CrysAlis Pro). Other "
                 "options override it.  [default: that of the format, else xdi]"),
    click.option("--rotation", type=_one_of(get_args(Rotation)), help="Rotation in degrees, counter-clockwise."),
    click.option("--flip", type=_Choice(FLIPS),
                 help="Flip after the rotation: 0 is up-down, 1 is left-right."),
    click.option("--pixel-type", type=_one_of([*get_args(PixelType), "source"]),
                 help="Pixel type of the outputs; source keeps that of the frame."),
    click.option("--rounding", type=_one_of(get_args(Rounding)), help="How floats are converted to integers."),
    click.option("--invalid-value", type=int, help="Value that replaces NaN in an integer type.  [default: 0]"),
)  # fmt: skip
_OUTPUT = (
    click.option("--format", "format_", type=_one_of(get_args(Format)),
                 help="File format of the outputs.  [default: that of the preset]"),
    click.option("--compression", type=_one_of(get_args(Compression)),
                 help="Lossless compression. XDI cannot read compressed files."),
    click.option("--output-dir", type=click.Path(file_okay=False),
                 help="Folder for the outputs.  [default: the source's folder with 'raw' replaced by 'processed']"),
    click.option("--template",
                 help="Name of the outputs, as '{stem}_{index:05d}': the source's name without suffix, and its last "
                 "number."),
    click.option("--on-existing", type=_one_of(get_args(OnExisting)),
                 help="If the output exists: replace_own replaces a file that petif made from the same frame and fails "
                 "otherwise, skip keeps it, refuse fails, number writes NAME-00001."),
    click.option("--in-place", is_flag=True, help="Replace the sources."),
    click.option("--backup", is_flag=True, help="With --in-place: keep each source as NAME.orig."),
    click.option("--force", is_flag=True, help="Convert frames even if they were converted before."),
    click.option("--preserve-mtime", is_flag=True, help="Give outputs the modification time of the source."),
    click.option("--file-mode", metavar="MODE",
                 help="Permissions of new files, as 0640; source copies those and the group of the source."),
    click.option("--folder-mode", metavar="MODE",
                 help="Permissions of new folders, as 2750; source copies those of the source's folder."),
    click.option("--group", help="Group of new files and folders."),
)  # fmt: skip


def turning_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for the pixels."""
    for option in reversed(_TURNING):
        command = option(command)
    return command


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add all options of a recipe."""
    for option in reversed((*_TURNING, *_OUTPUT)):
        command = option(command)
    return command


def recipe_from(
    options: dict[str, Any],
    esperanto: dict[str, Any] | None = None,
    *,
    corrections: dict[str, Any] | None = None,
    combine: dict[str, Any] | None = None,
    base: Recipe | None = None,
    whole_path: Callable[[str], str] = os.path.realpath,
) -> Recipe:
    """Remove the options of a recipe from `options` and return the recipe.

    `esperanto`, `corrections` and `combine` hold the fields of these parts, if any were given. The options change
    `base`, or else a preset. `whole_path` makes the folder of the outputs absolute.

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
            raise click.UsageError(f"{flags}: only for ESPERANTO frames. Add --format esperanto.")
        changes["esperanto"] = esperanto
    changes |= {name: part for name, part in (("corrections", corrections), ("combine", combine)) if part}
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
    """Return the fields of the output that were given; the mode only if they determine it."""
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
        raise click.UsageError(
            f"--in-place cannot be combined with {', '.join(_flags(given))}: it replaces the sources."
        )
    if backup and not in_place:
        raise click.UsageError("--backup needs --in-place.")
    if in_place:
        return {"mode": "in_place", **common, **({"backup": True} if backup else {})}
    return {**({"mode": "new"} if given else {}), **common, **given}


def _flags(options: dict[str, Any]) -> list[str]:
    names = {"folder": "--output-dir"}
    return [names.get(name, f"--{name.replace('_', '-')}") for name, value in options.items() if value]
