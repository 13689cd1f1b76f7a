"""`petif average`: a dark or flat from single frames, and a mask of its hot pixels."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tango_server.commands.output import say
from tango_server.text import counted

if TYPE_CHECKING:
    from tango_server.conversion.averaging import Average, Method
    from tango_server.conversion.files.frame_location import FrameLocation

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILES...", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--output", required=True, type=_FILE, help="TIFF to write, of float32.")
@click.option(
    "--method", type=click.Choice(["mean", "median"]), default="mean", show_default=True,
    help="How the frames are averaged.",
)  # fmt: skip
@click.option(
    "--hot-pixels", type=(click.FloatRange(min=0, min_open=True), _FILE), metavar="SIGMA MASK",
    help="Also write a mask of uint8: 1 where the average is not a number, or above median + SIGMA * 1.4826 * median "
    "absolute deviation.",
)  # fmt: skip
def average(*, files: tuple[Path, ...], output: Path, method: "Method", hot_pixels: tuple[float, Path] | None) -> None:
    """Average frames, or all frames in a folder, to a master for --dark or --flat.

    All frames of a file count. If all frames have a sidecar with the same exposure, the average gets a copy: a dark
    needs it to be scaled and checked. Only files made by this command are replaced.
    """
    from tango_server.conversion.average_file import require_free, write_average, write_hot_pixels
    from tango_server.conversion.averaging import hot_pixels as find
    from tango_server.conversion.errors import ConversionError

    outputs = [output] if hot_pixels is None else [output, hot_pixels[1]]
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise click.UsageError("--output and the mask of --hot-pixels are the same file.")
    try:
        for path in outputs:
            require_free(path)
        made = _averaged(_frames(files, outputs), method)
        mask = None if hot_pixels is None else find(output, made.image, hot_pixels[0])
        has_exposure = write_average(output, made)
        say(f"{output}: {_summary(made)}")
        if not has_exposure:
            say("exposure unknown: not all frames have a sidecar with the same exposure; as a dark it is not scaled")
        if hot_pixels is not None and mask is not None:
            write_hot_pixels(hot_pixels[1], mask, made, hot_pixels[0])
            say(f"{hot_pixels[1]}: {counted(int(mask.sum()), 'hot pixel')} of {mask.size}")
    except ConversionError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}.") from error


def _frames(files: tuple[Path, ...], outputs: list[Path]) -> "list[FrameLocation]":
    """Return the frames of the files, each once, and of those in folders except the outputs of an earlier call."""
    from tango_server.jobs.batch import FileSelection, select
    from tango_server.jobs.containers import contents_of
    from tango_server.jobs.frame_listing import EXPECTED

    earlier = {path.resolve() for path in outputs}
    frames: dict[Path, None] = {}
    for path in files:
        found = select([path], FileSelection(skip_dark=False))
        frames.update((frame, None) for frame in found if frame not in earlier or not path.is_dir())
    if not frames:
        raise click.ClickException(f"{files[0]}: no frames in this folder. {EXPECTED}.")
    contents = contents_of(frames)
    if problems := {**contents.failed, **contents.uncounted}:
        raise click.ClickException(next(iter(problems.values())))
    named = {path.resolve() for path in files}
    lost = {each: why for each, why in contents.skipped.items() if not contents.frames or each.file.resolve() in named}
    if lost:
        raise click.ClickException("\n".join(f"{each}: {reason}" for each, reason in lost.items()))
    return contents.frames


def _averaged(frames: "list[FrameLocation]", method: "Method") -> "Average":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from tango_server.conversion.averaging import average

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("")
        return average(frames, method, lambda done, total: progress.update(task, completed=done, total=total))


def _summary(made: "Average") -> str:
    import numpy as np

    values = made.image[np.isfinite(made.image)]
    text = f"{made.method} of {counted(made.frames, 'frame')} in {counted(len(made.files), 'file')}"
    if not values.size:
        return f"{text}, no pixel is a number"
    numbers = {"min": values.min(), "median": np.median(values), "max": values.max()}
    text += "".join(f", {name} {value:.6g}" for name, value in numbers.items())
    unknown = made.image.size - values.size
    return f"{text}, {counted(unknown, 'pixel')} not a number" if unknown else text
