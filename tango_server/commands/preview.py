"""`petif preview`: a frame before and after, as a picture."""

from pathlib import Path
from typing import Any

import click

from tango_server.commands.correction_options import correction_options, take_corrections
from tango_server.commands.output import say
from tango_server.commands.recipe_options import recipe_from, turning_options


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
    from tango_server.conversion.errors import ConversionError
    from tango_server.conversion.files.frame_location import FrameLocation
    from tango_server.conversion.preview import draw_preview

    picture = output or Path(f"{FrameLocation.of(file, frame).stem}.png")  # here, not among the raw frames
    try:
        draw_preview(
            FrameLocation.of(file, frame), recipe_from(options, corrections=take_corrections(options)), picture
        )
    except ConversionError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(
            f"{picture}: cannot write the picture: {error.strerror}. Choose another file with --output."
        ) from error
    say(str(picture))
