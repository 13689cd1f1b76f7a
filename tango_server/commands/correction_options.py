"""The command-line options for corrections: dark, flat, mask, saturation."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tango_server.recipe.corrections import MOST_DARKS, split_master

_OPTIONS = (
    click.option("--dark", multiple=True, metavar="FILE|FOLDER",
                 help="Dark frame to subtract, or a folder of them (repeatable)."),
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
_NEEDED = {"dark_combine": "dark", "force_dark": "dark", "flat_normalize": "flat"}


def correction_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for corrections. A master is a TIFF, EDF, CBF or .npy file, or FILE.h5::/path."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_corrections(options: dict[str, Any]) -> dict[str, Any] | None:
    """Remove these options from `options`; return the recipe's field `corrections`, None if no option was given.

    Raises
    ------
    click.UsageError
        if a file does not exist, a folder has no frames, or an option lacks the one that it belongs to.
    """
    given = {name: options.pop(name) for name in ("dark", "dark_combine", "flat", "flat_normalize", "mask", "repair",
                                                  "saturation", "masters_in", "force_dark")}  # fmt: skip
    given = {name: value for name, value in given.items() if value}
    for name, needed in _NEEDED.items():
        if name in given and needed not in given:
            raise click.UsageError(f"--{name.replace('_', '-')} needs --{needed}.")
    files: dict[str, Any] = {
        "dark": [path for each in given.pop("dark", ()) for path in _darks(each)],
        "mask": [_whole_path("mask", each) for each in given.pop("mask", ())],
        "flat": _whole_path("flat", given.pop("flat")) if "flat" in given else None,
    }
    if len(files["dark"]) > MOST_DARKS:
        raise click.UsageError(
            f"--dark: {len(files['dark'])} files (at most {MOST_DARKS}). Average them first with petif average."
        )
    words = {"flat_normalize": "mean", "repair": "median"}
    fields = {name: words.get(name, value) for name, value in given.items()}
    if fields.pop("force_dark", False):
        fields["force"] = True
    return {**{name: value for name, value in files.items() if value}, **fields} or None


def _darks(path: str) -> list[str]:
    """Return the frames in a folder, or the file at `path`."""
    if not Path(path).is_dir():
        return [_whole_path("dark", path)]
    from tango_server.jobs.frame_listing import frames_in

    try:
        found = [os.path.realpath(frame) for frame in frames_in(Path(path), skip_dark=False)]
    except OSError as error:
        raise click.UsageError(f"--dark: {path}: cannot list the folder: {error.strerror}.") from error
    if not found:
        raise click.UsageError(f"--dark: {path}: no frames in this folder. Expected .tif or .tiff files.")
    return found


def _whole_path(kind: str, path: str) -> str:
    """Return the absolute path of a master; `::/path`, a data set in the frame's own file, as it is."""
    file, inside = split_master(path)
    if inside and not file:
        return path
    if not Path(file).is_file():
        raise click.UsageError(f"--{kind}: {path}: no such file. Check the path.")
    return "::".join(filter(None, [os.path.realpath(file), inside]))
