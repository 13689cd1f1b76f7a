"""`petif serve`: run the Tango server without a database."""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tango_server.addresses import DEFAULT_DEVICE, DEFAULT_PORT, free_port
from tango_server.commands.assignments import as_lines, set_option
from tango_server.commands.output import cannot_listen, say, silence_standard_output

if TYPE_CHECKING:
    from tango_server.settings import Configuration, Settings


@click.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 127.0.0.1: this machine only."
)
@click.option("--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True,
              help="Port to listen on; 0 chooses a free one.")  # fmt: skip
@click.option("--device", default=DEFAULT_DEVICE, show_default=True, help="Name of the Tango device.")
@click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="TOML file of settings; options given here override it. "
              "The Tango command Init reads it again.")  # fmt: skip
@click.option("--root", "roots", multiple=True, type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="Folder that may be read and written (repeatable).  [default: the working directory]")  # fmt: skip
@click.option("--state-dir", type=click.Path(path_type=Path, file_okay=False),
              help="Folder for the queue and logs; a server restarted with the same one continues where it stopped.  "
              "[default: named after the device, in the user's state folder]")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes.  [default: one per core, at most 4]")
@set_option("Any other setting, as --set timeout=30")
@click.option("--check", is_flag=True, help="Check the configuration and the state folder, then exit.")
@click.option("--verbose", is_flag=True, help="Log more to standard error.")
@click.option("--stop-on-eof", is_flag=True, hidden=True)
def serve(
    *,
    host: str,
    port: int,
    device: str,
    config: Path | None,
    roots: tuple[Path, ...],
    state_dir: Path | None,
    workers: int | None,
    assignments: tuple[tuple[str, str], ...],
    check: bool,
    verbose: bool,
    stop_on_eof: bool,
) -> None:
    """Run the conversion server on this machine, without a Tango database.

    Stop it with Ctrl-C or SIGTERM. Closing its terminal also stops it, unless it was started with nohup. Frames not
    converted by then are converted after the next start.
    """
    import tango

    from tango_server.device.property_lines import from_lines
    from tango_server.device.server import run_without_database
    from tango_server.host_limits import host_problem
    from tango_server.observability.console import log_to_stderr
    from tango_server.settings import Configuration

    log_to_stderr(verbose=verbose)
    options: dict[str, object] = {
        "read_roots": [root.absolute() for root in roots],  # a link may change later
        "state_dir": state_dir and state_dir.resolve(),
        "numworkers": workers,
        **from_lines(as_lines(assignments)),
    }
    configuration = Configuration(
        defaults={"read_roots": [Path.cwd()]},
        file=config and config.resolve(),
        options={name: value for name, value in options.items() if value},
    )
    settings = _usable(configuration, device)
    if check:
        say(f"The configuration is valid. Folders that may be read: {', '.join(map(str, settings.read_roots))}")
        return
    if not roots and settings.read_roots == (Path.cwd(),):
        say(f"Frames below {Path.cwd()} may be read and written. Choose another folder with --root.", err=True)
    if ":" in host:
        raise click.UsageError(f"Cannot listen on {host}: IPv6 is not supported. Choose an IPv4 address or a name.")
    try:
        port = free_port(host, port)
    except OSError as error:
        raise click.ClickException(cannot_listen(host, port, error)) from error
    try:
        run_without_database(
            configuration, host=host, port=port, device=device, ready=_announce, stop_on_eof=stop_on_eof
        )
    except (tango.DevFailed, RuntimeError, OSError) as error:
        raise click.ClickException(f"Cannot start the Tango server: {host_problem(error) or error}") from error


def _usable(configuration: "Configuration", device: str) -> "Settings":
    """Return the settings, if they are valid and the state folder is free; end the program with the reason if not."""
    from pydantic import ValidationError

    from tango_server.jobs.executors.factory import require_packages
    from tango_server.jobs.startup import require_state_dir
    from tango_server.settings import ConfigurationError, Settings
    from tango_server.text import explain

    where = f"{configuration.file}: " if configuration.file else ""
    try:
        settings = configuration.settings({}, device)
        require_packages(settings.executor)
        require_state_dir(settings)
    except ValidationError as error:
        raise click.ClickException(f"{where}{explain(error, Settings.model_fields)}. Correct it.") from error
    except (ConfigurationError, ImportError, OSError) as error:
        raise click.ClickException(str(error)) from error
    return settings


def _announce(address: str) -> None:
    """Print the address on standard output; a server whose output is not read is ready as well."""
    try:
        say(f"ready: {address}")
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError) as error:  # full, closed, or without a reader
        silence_standard_output()
        logging.getLogger(__name__).warning("ready: %s; cannot write standard output: %s", address, error)
