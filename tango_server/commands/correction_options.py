"""The command-line options for corrections: dark, flat, mask, saturation."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tango_server.recipe.corrections import FROM_RUN, MOST_DARKS, split_master

_DARK = click.option("--dark", multiple=True, metavar="FILE|FOLDER",
                     help="Dark frame to subtract, or a folder of them (repeatable).")  # fmt: skip
_DARK_OF_RUN = click.option("--dark", multiple=True, metavar="FILE|run",
                            help="Dark frame to subtract (repeatable); run: the dark of the run itself.")  # fmt: skip
_OPTIONS = (
    click.option("--dark-combine", type=click.Choice(["mean", "median"]),
                 help="How several darks become one.  [default: mean]"),
    click.option("--flat", metavar="FILE",
                 help="Flat field to divide by; its median must lie between 0.5 and 2."),
    click.option("--flat-normalize", is_flag=True, help="Divide the flat field by its mean first."),
    click.option("--mask", multiple=True, metavar="FILE",
                 help="Mask in the geometry of the raw frames, not 0 where a pixel is masked (repeatable)."),
    click.option("--repair", is_flag=True, help="Fill masked pixels with the median of their neighbours."),
    click.option("--saturation", type=click.FloatRange(min=0, min_open=True), metavar="COUNTS",
                 help="Count pixels at or above this value of one exposure as overexposed."),
    click.option("--masters-in", type=click.Choice(["raw", "output", "dioptas"]),
                 help="Geometry of darks, flat and masks; dioptas: as Dioptas saves masks.  [default: raw]"),
    click.option("--force-dark", is_flag=True,
                 help="Subtract the dark even if a frame says that it is already subtracted."),
)  # fmt: skip
_NAMES = ("dark", "dark_combine", "flat", "flat_normalize", "mask", "repair", "saturation", "masters_in", "force_dark")
_FLAGS = {"force": "force_dark"}
"""Options with another name than their field."""
_NEEDED = {"dark_combine": "dark", "force": "dark", "flat_normalize": "flat"}


def correction_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for corrections with files of this host. A master may be FILE.h5::/path."""
    return _with(_DARK, command)


def run_correction_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for corrections of the frames of a run, with files of the conversion host."""
    return _with(_DARK_OF_RUN, command)


def _with(dark: Callable[[Any], Any], command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed((dark, *_OPTIONS)):
        command = option(command)
    return command


def take_corrections(options: dict[str, Any]) -> dict[str, Any] | None:
    """Remove these options from `options`; return the recipe's field `corrections`, None if no option was given.

    Raises
    ------
    click.UsageError
        if a file does not exist, a folder has no frames, or an option lacks the one that it belongs to.
    """
    given = _given(options)
    for name, needed in _NEEDED.items():
        if name in given and needed not in given:
            raise click.UsageError(f"--{_FLAGS.get(name, name).replace('_', '-')} needs --{needed}.")
    fields = _with_paths(given, _on_this_host)
    if len(darks := fields.get("dark", ())) > MOST_DARKS:
        raise click.UsageError(
            f"--dark: {len(darks)} files (at most {MOST_DARKS}). Average them first with petif average."
        )
    return fields or None


def take_run_corrections(options: dict[str, Any], whole_path: Callable[[str], str]) -> dict[str, Any]:
    """Remove these options from `options`; return those that were given as fields of the recipe's `corrections`.

    `whole_path` makes a path of the conversion host absolute.

    Raises
    ------
    click.UsageError
        if both files and the dark of the run are given.
    """

    def there(kind: str, path: str) -> list[str]:
        file, inside = split_master(path)
        if not file or (kind == "dark" and path == FROM_RUN):
            return [path]
        return ["::".join(filter(None, [whole_path(file), inside]))]

    fields = _with_paths(_given(options), there)
    if FROM_RUN in (darks := fields.get("dark", ())) and len(darks) > 1:
        raise click.UsageError("--dark: give files, or run, not both.")
    return fields


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Remove the options from `options`; return those that were given, by the names of their fields."""
    names = {flag: field for field, flag in _FLAGS.items()}
    words = {"flat_normalize": "mean", "repair": "median"}
    options_given = {name: options.pop(name) for name in _NAMES}
    return {names.get(name, name): words.get(name, value) for name, value in options_given.items() if value}


def _with_paths(given: dict[str, Any], paths_of: Callable[[str, str], list[str]]) -> dict[str, Any]:
    """Return the fields with whole paths; `paths_of` returns them for a kind of master and a path as given."""
    fields = dict(given)
    for kind in ("dark", "mask"):
        if kind in given:
            fields[kind] = [path for each in given[kind] for path in paths_of(kind, each)]
    if "flat" in given:
        (fields["flat"],) = paths_of("flat", given["flat"])
    return fields


def _on_this_host(kind: str, path: str) -> list[str]:
    """Return the path of a master, or for a dark those in a folder; `::/path` is in the frame's own file."""
    if kind == "dark" and Path(path).is_dir():
        return _darks_in(path)
    file, inside = split_master(path)
    if inside and not file:
        return [path]
    if not Path(file).is_file():
        raise click.UsageError(f"--{kind}: {path}: no such file. Check the path.")
    return ["::".join(filter(None, [os.path.realpath(file), inside]))]


def _darks_in(folder: str) -> list[str]:
    from tango_server.jobs.frame_listing import EXPECTED, frames_in

    try:
        found = [os.path.realpath(frame) for frame in frames_in(Path(folder), skip_dark=False)]
    except OSError as error:
        raise click.UsageError(f"--dark: {folder}: cannot list the folder: {error.strerror}.") from error
    if not found:
        raise click.UsageError(f"--dark: {folder}: no frames in this folder. {EXPECTED}.")
    return found
