"""Restrictions on Tango's own device `dserver/...`: no files are written, a server without a database isn't stopped.

Tango itself creates that device, and anyone who can reach the port can call it.
"""

import contextlib

import tango
from tango.server import command

_ADD_TARGET = "AddLoggingTarget"
_TELEMETRY = ("AddTelemetryLoggingEndpoints", "AddTelemetryTracingEndpoints")
_END = ("RestartServer", "Kill")
_HARMLESS = ("device::", "console::")


def restrict(*, may_be_ended: bool) -> None:
    """Remove the commands of Tango's own device that write files or, unless `may_be_ended`, stop the server.

    Call it once the server is initialised. With a database `Kill` and `RestartServer` must stay, since Astor and
    Starter use them to stop a server.
    """
    device = tango.Util.instance().get_dserver_device()
    for name in (_ADD_TARGET, *_TELEMETRY, *(() if may_be_ended else _END)):
        with contextlib.suppress(tango.DevFailed):  # Tango was built without telemetry
            device.remove_command(name, clean_db=False)
    tango.DeviceImpl.AddLoggingTarget = AddLoggingTarget  # where Tango looks up the method
    tango.DServer.AddLoggingTarget = AddLoggingTarget
    device.add_command(command(AddLoggingTarget, dtype_in=[str]), device_level=True)


def AddLoggingTarget(_device: tango.DeviceImpl, targets: list[str]) -> None:  # noqa: N802 - the name of the command
    """Add logging targets, as pairs of device and target; `file::` is refused, since it can write any file."""
    for target in targets[1::2]:
        if not target.startswith(_HARMLESS):
            tango.Except.throw_exception(
                "PETif_RefusedTarget",
                f"Cannot add logging target {target!r}: clients may not write files on this host. Use device::NAME, or "
                "ask the administrator to set the property logging_target.",
                _ADD_TARGET,
            )
    tango.Logging.add_logging_target(targets)
