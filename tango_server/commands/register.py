"""`petif register`: add a device to a Tango database, with its settings as properties."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tango_server.commands.assignments import as_lines, set_option
from tango_server.commands.output import say

if TYPE_CHECKING:
    from tango_server.device.registration import Change, Registered

_SERVER = "PETifConverter"


@click.command()
@click.option("--database", default="", metavar="HOST:PORT", help="Tango database.  [default: TANGO_HOST]")
@click.option("--server", default=f"{_SERVER}/1", show_default=True, metavar=f"{_SERVER}/INSTANCE",
              help="Tango server that runs the device.")  # fmt: skip
@click.option("--device", default="petif/converter/1", show_default=True, help="Name of the device.")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML file with settings.")
@set_option("A setting; overrides the file")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--force", is_flag=True, help="Change an existing device without asking.")
def register(
    *,
    database: str,
    server: str,
    device: str,
    config: Path | None,
    assignments: tuple[tuple[str, str], ...],
    dry_run: bool,
    force: bool,
) -> None:
    """Add a device to a Tango database, or change its properties.

    Settings are checked before anything is written. Properties of an existing device stay unchanged unless --config or
    --set names them.
    """
    from tango_server.device.property_lines import from_lines
    from tango_server.device.registration import RegistrationError, Registry, changes
    from tango_server.settings import ConfigurationError, read_configuration

    server = _checked_server(server)
    _check_device(device)
    try:
        given = {**(read_configuration(config) if config else {}), **from_lines(as_lines(assignments))}
        registry = Registry(database)
        found = registry.find(device)
        wanted = changes(found.properties if found else {}, _checked_lines(found, given, device))
        _show(registry.address, device, server, found, wanted)
        if found and not wanted and found.server == server:
            say("Nothing to change.")
            return
        if dry_run:
            say("Nothing was written (--dry-run).")
            return
        if found and not force:
            click.confirm("Write these changes?", abort=True)
        registry.write(device, server, wanted)
    except (ConfigurationError, RegistrationError) as error:
        raise click.ClickException(str(error)) from error
    _show_next_step(registry.address, device, server, found)


def _checked_server(server: str) -> str:
    program, _, instance = server.rpartition("/")
    if program not in {"", _SERVER} or not re.fullmatch(r"[\w.-]+", instance):
        raise click.BadParameter(f"{server!r} is not {_SERVER}/INSTANCE, as {_SERVER}/p02.", param_hint="--server")
    return f"{_SERVER}/{instance}"


def _check_device(device: str) -> None:
    if not re.fullmatch(r"[\w.+-]+(/[\w.+-]+){2}", device):
        raise click.BadParameter(f"{device!r} is not DOMAIN/FAMILY/MEMBER, as p02/petif/1.", param_hint="--device")


def _checked_lines(found: "Registered | None", given: dict[str, Any], device: str) -> dict[str, list[str]]:
    """Return the given settings as lines, if they are valid together with those that the device has."""
    from pydantic import ValidationError

    from tango_server.device.property_lines import from_lines, to_lines
    from tango_server.settings import Configuration, ConfigurationError
    from tango_server.text import explain

    kept = from_lines(found.properties) if found else {}
    try:
        return to_lines(Configuration().settings({**kept, **given}, device), given)
    except ValidationError as error:
        raise ConfigurationError(
            f"Cannot register {device}: {explain(error)}. Nothing was written; correct the file or --set."
        ) from error


def _show(address: str, device: str, server: str, found: "Registered | None", wanted: "list[Change]") -> None:
    say(f"{'Change' if found else 'New'}: {device} of {server} in the Tango database {address}")
    if found and found.server != server:
        say(f"  server: {found.server} -> {server}")
    for change in wanted:
        for sign, lines in (("-", change.before), ("+", change.after)):
            click.echo("".join(f"  {sign} {change.name}: {line}\n" for line in lines), nl=False)
    named = {change.name for change in wanted}
    if found and (rest := sorted(set(found.properties) - named)):
        say(f"  unchanged: {', '.join(rest)}")


def _show_next_step(address: str, device: str, server: str, found: "Registered | None") -> None:
    instance = server.partition("/")[2]
    say("Done.")
    if found and found.is_running:
        say(f"The device is running. To apply the settings, call the command Init of {device} in Jive, or run:")
        say(f"  python -c \"import tango; tango.DeviceProxy('tango://{address}/{device}').Init()\"")
        return
    say("Start it on the conversion host, as the user who may write the frames:")
    say(f"  TANGO_HOST={address} {_SERVER} {instance}")
    say(f"or with systemd (examples/deployment), or in Astor: New server on that host, {server}.")
