"""The `petif` command. Each subcommand is an entry point of the group `petif.commands`, loaded when it is asked for."""

import sys
from importlib.metadata import entry_points

import click

_EXTRAS = {
    **dict.fromkeys(("cv2", "fabio", "filelock", "imagecodecs", "psutil", "pythonjsonlogger", "rich"), "server"),
    **dict.fromkeys(("tango", "tifffile"), "server"),
    **dict.fromkeys(("bokeh", "panel", "tornado"), "monitor"),
    "matplotlib": "preview",
}
"""Where the packages come from that some commands need."""


class _Commands(click.Group):
    """Subcommands from every installed package that offers some; a missing extra is named, with its remedy."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(point.name for point in entry_points(group="petif.commands"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        for point in entry_points(group="petif.commands", name=cmd_name):
            loaded = point.load()
            assert isinstance(loaded, click.Command)  # noqa: S101 - our own entry points
            return loaded
        return None


@click.command(cls=_Commands)
@click.version_option(package_name="petif-bluesky", prog_name="petif")
def petif() -> None:
    """Rotate, flip, retype and convert the frames of a Perkin-Elmer detector."""


def main() -> None:
    """Run the `petif` command."""
    try:
        petif(prog_name="petif")
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(error.name or "", "all")
        click.echo(
            f"petif: this command needs the package {error.name!r}, which is not installed. "
            f"Install it with: pip install 'petif-bluesky[{extra}]'",
            err=True,
        )
        sys.exit(1)


def tango_main() -> None:
    """Run the Tango server as Astor and Starter do: `PETifConverter INSTANCE [Tango's own arguments]`."""
    from tango_server.serving import run_registered  # noqa: PLC0415 - spawned workers import this module

    run_registered(sys.argv)
