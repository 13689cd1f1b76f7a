"""What clients may do with Tango's own device, `dserver/...`: write no file, and not end a server that has no database.

That device is made by Tango itself and answers to everybody who can reach the port.
"""

import contextlib

import tango
from tango.server import command

_ADD_TARGET = "AddLoggingTarget"
_TELEMETRY = ("AddTelemetryLoggingEndpoints", "AddTelemetryTracingEndpoints")
_END = ("RestartServer", "Kill")
_HARMLESS = ("device::", "console::")


def restrict(*, may_be_ended: bool) -> None:
    """Take from Tango's own device what would write files anywhere or, if so asked, end the server.

    Call it once the server is initialised. With a database `Kill` and `RestartServer` must stay, since Astor and
    Starter stop a server by them.
    """
    device = tango.Util.instance().get_dserver_device()
    for name in (_ADD_TARGET, *_TELEMETRY, *(() if may_be_ended else _END)):
        with contextlib.suppress(tango.DevFailed):  # a Tango that was built without telemetry
            device.remove_command(name, clean_db=False)
    tango.DeviceImpl.AddLoggingTarget = AddLoggingTarget  # as which Tango finds the methods of a device of its own
    tango.DServer.AddLoggingTarget = AddLoggingTarget
    device.add_command(command(AddLoggingTarget, dtype_in=[str]), device_level=True)


def AddLoggingTarget(_device: tango.DeviceImpl, targets: list[str]) -> None:  # noqa: N802 - the name of the command
    """Add logging targets, as pairs of device and target; `file::` is refused, since it names any file of this user."""
    for target in targets[1::2]:
        if not target.startswith(_HARMLESS):
            tango.Except.throw_exception(
                "PETif_RefusedTarget",
                f"logging target {target!r}: clients can't choose files on this host. Add a device::NAME, or let the "
                "administrator set the property logging_target.",
                _ADD_TARGET,
            )
    tango.Logging.add_logging_target(targets)
