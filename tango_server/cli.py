"""The `petif` command. Each subcommand is an entry point of the group `petif.commands`, loaded on demand."""

import io
import sys
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path

import click

from tango_server.commands.output import silence_standard_output
from tango_server.home import temporary_home

_EXTRAS = {
    **dict.fromkeys(("cv2", "fabio", "filelock", "imagecodecs", "psutil", "pythonjsonlogger", "rich"), "server"),
    **dict.fromkeys(("tango", "tifffile"), "server"),
    **dict.fromkeys(("bokeh", "panel", "tornado"), "monitor"),
    "matplotlib": "preview",
    "tiled": "tiled",
    "zmq": "zmq",
}
"""The extra that installs each package which only some commands need."""


_GROUPS = {
    "Without a server": ("demo", "convert", "average", "preview", "inspect", "watch"),
    "Run a server": ("serve", "register"),
    "Use a running server": (
        "add",
        "status",
        "reports",
        "retry",
        "acknowledge",
        "statistics",
        "monitor",
        "subscribe",
        "refresh",
        "reprocess",
        "map",
    ),
}
"""How `petif --help` groups the subcommands; others are listed under "Others"."""


class _Commands(click.Group):
    """Subcommands of all installed packages."""

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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand; suggest a similar one for an unknown name."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            like = get_close_matches(name, self.list_commands(ctx))
            ctx.fail(f"No such command {name!r}." + (f" Did you mean {' or '.join(like)}?" if like else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands by purpose."""
        left = self.list_commands(ctx)
        groups = {title: [name for name in names if name in left] for title, names in _GROUPS.items()}
        groups["Others"] = [name for name in left if not any(name in names for names in groups.values())]
        for title, names in groups.items():
            commands = {name: self.get_command(ctx, name) for name in names}
            rows = [(name, command.get_short_help_str(120)) for name, command in commands.items() if command]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


@click.command(cls=_Commands)
@click.version_option(package_name="petif-bluesky", prog_name="petif")
def petif() -> None:
    """Rotate, flip, retype and convert the frames of a Perkin-Elmer detector. Start with: petif demo."""


def main() -> None:
    """Run the `petif` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for file names that the terminal cannot show
    try:
        Path.cwd()
    except OSError:
        sys.exit("petif: cannot read the working directory: it is gone or not readable. Change to another one (cd).")
    with temporary_home():
        _run()


def _run() -> None:
    try:
        petif(prog_name="petif")
    except SystemExit:
        _flush()
        raise
    except OSError as error:
        silence_standard_output()
        where = error.filename or "standard output"
        sys.exit(f"petif: cannot access {where}: {error.strerror}" if error.strerror else f"petif: {error}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = _EXTRAS.get(package, "all")
        click.echo(
            f"petif: this command needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'petif-bluesky[{extra}]'",
            err=True,
        )
        sys.exit(1)


def _flush() -> None:
    """Flush standard output; exit with an error message if that fails, for example on a full disk."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        silence_standard_output()
        sys.exit(f"petif: cannot write to standard output: {error.strerror}")


def tango_main() -> None:
    """Run the Tango server as Astor and Starter do: `PETifConverter INSTANCE [Tango's own arguments]`."""
    from tango_server.device.server import run_registered  # noqa: PLC0415 - spawned workers import this module

    run_registered(sys.argv)
