"""`petif preview`: a frame before and after, as a picture."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tango_server.commands.correction_options import correction_options, take_corrections
from tango_server.commands.output import say
from tango_server.commands.recipe_options import recipe_from, turning_options

if TYPE_CHECKING:
    from tango_server.conversion.files.frame_location import FrameLocation
    from tango_server.recipe import Recipe


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@turning_options
@correction_options
@click.option("--frame", type=click.IntRange(min=0), help="Index of the frame in a file of several, from 0.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Picture to write.  [default: FILE's name with .png, in the working directory]",
)
def preview(*, file: Path, frame: int | None, output: Path | None, **options: Any) -> None:
    """Draw a frame before and after conversion, with the beam centre that it or its sidecar states.

    Nothing is converted. With a dark, flat or mask, the corrected frame is shown as well, and masked pixels are red.
    """
    from tango_server.conversion.files.frame_location import FrameLocation
    from tango_server.jobs.containers import WHOLE_FILE, may_kill_its_reader, read_elsewhere

    source = FrameLocation.of(file, frame)
    picture = output or Path(f"{source.stem}.png")  # here, not among the raw frames
    draw = partial(_draw, recipe=recipe_from(options, corrections=take_corrections(options)), picture=picture)
    if may_kill_its_reader(source.file):
        import matplotlib  # noqa: F401 - where it is missing, the other process could not say so

        problem = read_elsewhere([source], draw, WHOLE_FILE)[source]
    else:
        problem = draw(source)
    if problem:
        raise click.ClickException(problem)
    say(str(picture))


def _draw(source: "FrameLocation", recipe: "Recipe", picture: Path) -> str:
    """Draw the picture of a frame; return why that is not possible, or an empty text."""
    from tango_server.conversion.errors import ConversionError
    from tango_server.conversion.preview import draw_preview

    try:
        draw_preview(source, recipe, picture)
    except ConversionError as error:
        return str(error)
    except OSError as error:
        return f"{picture}: cannot write the picture: {error.strerror}. Choose another file with --output."
    return ""
