"""Devices of this server in a Tango database: their server process and their properties."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import tango

from tango_server.settings import Settings

CLASS = "PETifConverter"
_UNKNOWN = "DB_DeviceNotDefined"


class RegistrationError(Exception):
    """A device can't be registered."""


@dataclass(frozen=True)
class Registered:
    """A device in the database. `server` is PETifConverter/INSTANCE."""

    server: str
    is_running: bool
    properties: dict[str, list[str]]


@dataclass(frozen=True)
class Change:
    """A property before and after; no lines means not set."""

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]


def changes(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> list[Change]:
    """Return what must be written to change the properties to `after`; those that it doesn't name stay.

    >>> changes({"timeout": ["15"], "attempts": ["3"]}, {"timeout": ["30"], "attempts": ["3"]})
    [Change(name='timeout', before=('15',), after=('30',))]
    """
    pairs = [Change(name, tuple(before.get(name, ())), tuple(lines)) for name, lines in after.items()]
    return [pair for pair in pairs if pair.before != pair.after]


class Registry:
    """A Tango database.

    Parameters
    ----------
    address: HOST:PORT; if empty, from TANGO_HOST or /etc/tangorc

    Raises
    ------
    RegistrationError
        if it can't be reached; raised by the methods, too

    """

    def __init__(self, address: str = "") -> None:
        self.address = address or tango.ApiUtil.get_env_var("TANGO_HOST") or ""
        if not self.address:
            raise RegistrationError(
                "No Tango database given: TANGO_HOST is not set. Set it, or use --database HOST:PORT."
            )
        host, _, port = self.address.partition(",")[0].partition(":")
        if not (host and port.isdigit()):
            raise RegistrationError(
                f"Invalid Tango database address {self.address!r}. Use HOST:PORT, for example tango:10000."
            )
        try:
            self._database = tango.Database(host, int(port)) if address else tango.Database()
        except tango.DevFailed as error:
            raise self._failed(error) from error

    def find(self, device: str) -> Registered | None:
        """Return a device; None if there is none with this name.

        Raises
        ------
        RegistrationError
            if it is a device of another class

        """
        try:
            info = self._database.get_device_info(device)
            found = self._database.get_device_property(device, list(Settings.model_fields))
        except tango.DevFailed as error:
            if error.args[0].reason == _UNKNOWN:
                return None
            raise self._failed(error) from error
        if info.class_name.lower() != CLASS.lower():
            raise RegistrationError(
                f"Cannot register {device}: it already exists as a device of class {info.class_name}, not {CLASS}, on "
                f"server {info.ds_full_name}. Choose another --device."
            )
        properties = {name: list(lines) for name, lines in found.items() if len(lines)}
        return Registered(info.ds_full_name, bool(info.exported), properties)

    def write(self, device: str, server: str, wanted: Iterable[Change]) -> None:
        """Set the properties, then add the device to its server, so that it never exists without them."""
        wanted = list(wanted)
        try:
            if put := {change.name: list(change.after) for change in wanted if change.after}:
                self._database.put_device_property(device, put)
            if gone := [change.name for change in wanted if not change.after]:
                self._database.delete_device_property(device, gone)
            self._database.add_device(_device_info(device, server))
        except tango.DevFailed as error:
            raise self._failed(error) from error

    def _failed(self, error: tango.DevFailed) -> RegistrationError:
        return RegistrationError(
            f"Tango database {self.address} rejected the request or cannot be reached: {error.args[0].desc.strip()}. "
            "Check that it is running and that the address is right (--database HOST:PORT)."
        )


def _device_info(device: str, server: str) -> tango.DbDevInfo:
    info = tango.DbDevInfo()
    info.name, info.server, info._class = device, server, CLASS  # noqa: SLF001 - Tango's own name
    return info
