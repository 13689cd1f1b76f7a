"""`petif demo`: a complete demonstration on this machine."""

import sys
from pathlib import Path

import click

from tango_server.commands.output import INTERRUPTED


@click.command()
@click.option("--frames", default=20, show_default=True, type=click.IntRange(min=1), help="Number of frames to take.")
@click.option(
    "--directory",
    default=Path("petif-demo"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the frames, the catalogue and the picture.",
)
@click.option(
    "--size", default=2048, show_default=True, type=click.IntRange(min=64), help="Rows and columns of a frame."
)
def demo(*, frames: int, directory: Path, size: int) -> None:
    """Run a complete demonstration on this machine.

    Starts a conversion server, a RunEngine, a simulated detector and a catalogue, runs a scan, and reads it back from
    the catalogue to check every frame.
    """
    from rich.console import Console

    console = Console()
    try:
        from petif_bluesky.demo import Demo

        sys.exit(Demo(directory, frames, (size, size), console).run())
    except KeyboardInterrupt:
        console.print("Stopped.")
        sys.exit(INTERRUPTED)
