"""The command-line options for combining several frames to one."""

from collections.abc import Callable
from typing import Any, get_args

import click

from tango_server.recipe.combine import Combine, Method

_NAMES = ("every", "sigma", "on_incomplete")
_OPTIONS = (
    click.option("--combine", type=click.Choice(get_args(Method)),
                 help="Combine every N frames to one, counted in each folder by the natural order of names; the "
                 "frames inside of HDF5 and EDF files count."),
    click.option("--every", type=int, metavar="N", help="With --combine: how many frames become one."),
    click.option("--sigma", type=click.FloatRange(min=0, min_open=True), metavar="SIGMA",
                 help="With --combine sigma_clip: values further than this many standard deviations from the median "
                 f"are left out.  [default: {Combine.model_fields['sigma'].default:g}]"),
    click.option("--on-incomplete", type=click.Choice(["fail", "combine"]),
                 help="With --combine: if frames of a group are missing or failed, fail, or combine the others to "
                 "NAME_3of5.  [default: fail]"),
)  # fmt: skip


def combine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_combine(options: dict[str, Any]) -> dict[str, Any] | None:
    """Remove these options from `options`; return the fields of the recipe's `combine`, None if nothing is combined.

    Raises
    ------
    click.UsageError
        if an option lacks the one that it belongs to.
    """
    method = options.pop("combine")
    given = {name: value for name in _NAMES if (value := options.pop(name)) is not None}
    if method is None:
        if given:
            raise click.UsageError(f"{', '.join(map(_flag, given))}: only with --combine.")
        return None
    if "every" not in given:
        raise click.UsageError("--combine needs --every: how many frames become one.")
    if "sigma" in given and method != "sigma_clip":
        raise click.UsageError("--sigma needs --combine sigma_clip.")
    return {"method": method, "of": {"every": given.pop("every")}, **given}


def refuse_to_combine(context: click.Context, parameter: click.Parameter, value: object) -> None:
    """Refuse --combine for a watch: a callback of the option."""
    del context, parameter
    if value is not None:
        raise click.UsageError(
            "--combine: a watch does not know when a group is complete. Use petif convert --combine once the frames "
            "are there."
        )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
