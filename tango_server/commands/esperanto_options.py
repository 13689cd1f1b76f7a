"""The command-line options for the headers of ESPERANTO frames."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from tango_server.recipe.esperanto import CIRCLES, Encoding

if TYPE_CHECKING:
    from tango_server.conversion.esperanto.angle_table import AngleTable

_NUMBERS = {
    "wavelength": ("A", "Wavelength in Angstrom."),
    "energy": ("KEV", "Photon energy in keV, instead of the wavelength."),
    "distance": ("MM", "Sample-to-detector distance."),
    "pixel_size": ("MM", "Pixel size."),
    "exposure": ("S", "Exposure time of a frame."),
    "monitor": ("COUNTS", "Beam monitor counts."),
    "alpha": ("DEG", "Alpha angle of the kappa goniometer.  [default: 50]"),
    "beta": ("DEG", "Beta angle of the kappa goniometer.  [default: 0]"),
}
_CHOICES = {
    "encoding": (get_args(Encoding), "Pixel encoding: packed or plain.  [default: AGI_BITFIELD]"),
    "axis": (("up", "down", "left", "right"), "Direction of the omega axis in the raw frame.  [default: down]"),
    "view": (
        ("detector", "sample"),
        "Whether raw frames show the view from the detector or the sample.  [default: detector]",
    ),
}


def _point(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[float, float] | None:
    if value is None:
        return None
    try:
        x, y = (float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not two numbers, as 1023.5,1024.") from None
    return x, y


def esperanto_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of ESPERANTO frames."""
    options = [
        *(
            click.option(f"--{name.replace('_', '-')}", name, type=float, metavar=metavar, help=f"ESPERANTO: {words}")
            for name, (metavar, words) in _NUMBERS.items()
        ),
        click.option(
            "--beam-center",
            callback=_point,
            metavar="X,Y",
            help="ESPERANTO: position of the direct beam in the raw frame, in pixels.",
        ),
        *(
            click.option(f"--{circle}-{part}", type=float, metavar="DEG", help=f"ESPERANTO: {words}")
            for circle in CIRCLES
            for part, words in (
                ("start", f"{circle} at the start of the first frame."),
                ("step", f"{circle} rotation per frame."),
            )
        ),
        click.option(
            "--angles",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            metavar="TABLE.csv",
            help="ESPERANTO: table with the columns 'file' and omega_start, omega_end ... (or omega ...).",
        ),
        *(
            click.option(f"--{name}", type=click.Choice(choices), help=f"ESPERANTO: {words}")
            for name, (choices, words) in _CHOICES.items()
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def take_esperanto(options: dict[str, Any]) -> "tuple[dict[str, Any], AngleTable | None]":
    """Remove these options from `options`; return the recipe's field `esperanto` and the table of angles.

    Raises
    ------
    click.UsageError
        if they contradict each other, or the table cannot be read.

    """
    from tango_server.conversion.esperanto.angle_table import AngleTableError, read_angle_table

    names = (*_NUMBERS, *_CHOICES, "beam_center")
    fields = {name: value for name in names if (value := options.pop(name, None)) is not None}
    circles: dict[str, dict[str, float]] = {circle: _circle(circle, options) for circle in CIRCLES}
    given = {circle: parts for circle, parts in circles.items() if parts}
    path = options.pop("angles", None)
    if path is None:
        return {**fields, **given}, None
    try:
        table = read_angle_table(path)
    except AngleTableError as error:
        raise click.UsageError(str(error)) from error
    if twice := sorted(given.keys() & table.circles.keys()):
        raise click.UsageError(
            f"--{twice[0]}-start and the {twice[0]} columns of {path} contradict each other. Remove one of them."
        )
    return {**fields, **given, **table.circles}, table


def _circle(circle: str, options: dict[str, Any]) -> dict[str, float]:
    parts = {part: options.pop(f"{circle}_{part}", None) for part in ("start", "step")}
    if parts["start"] is None and parts["step"] is not None:
        raise click.UsageError(f"--{circle}-step needs --{circle}-start.")
    return {part: value for part, value in parts.items() if value is not None}
