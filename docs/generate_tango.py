"""Writes docs/reference/tango.md, from the interface of a running server: `python docs/generate_tango.py`."""

from pathlib import Path
from tempfile import TemporaryDirectory

import tango

from tango_server.client.local_server import LocalServer
from tango_server.device.converter import PETifConverter
from tango_server.device.property_lines import is_list
from tango_server.settings import Settings

PAGE = Path(__file__).parent / "reference" / "tango.md"
ANCESTOR = {
    *("NumProcessed", "NumWorkers", "ConfRotation", "ConfFlip", "ConfType"),
    *("StatisticsTotalFrames", "StatisticsTotalTime", "StatisticsAverageTime"),
    *("AddFiles", "AddFolder", "AddFileOrDir", "ResetStats", "TestOsExists", "TestOsIsDir", "TestOsIsFile"),
}
"""Names from PETifConverter that still work."""

_INTRODUCTION = """\
# Tango interface

<!-- Written by docs/generate_tango.py from tango_server/device/converter.py; change the descriptions there. -->

Device class `PETifConverter`. All attributes are read-only, and all push change events. Names marked * come from the
[original PETifConverter](../how-to/migrate.md). States and errors are explained in
[operate a running server](../how-to/operate.md).
"""
_ATTRIBUTES = """
## Attributes

| name | type | unit | meaning |
|---|---|---|---|
"""
_COMMANDS = """
## Commands

The JSON of requests and reports: [`FrameRequest`, `FrameReport`, `RunStatistics`](api.md#the-messages). Commands answer
within 3 s; follow longer work by job ids or by run uid. An error is a `DevFailed` with a reason and a text that says
what to do.

| name | takes | returns | meaning |
|---|---|---|---|
"""
_PROPERTIES = """
## Device properties

Each is a [setting](settings.md) of the same name; types and defaults are listed there. A list has one line per element.
An invalid property puts the device into `FAULT`, with the reason in `Status`.

| name | lines | meaning |
|---|---|---|
"""
_TYPES = {
    tango.CmdArgType.DevString: "text",
    tango.CmdArgType.DevLong64: "whole number",
    tango.CmdArgType.DevDouble: "number",
    tango.CmdArgType.DevBoolean: "true or false",
    tango.CmdArgType.DevState: "state",
    tango.CmdArgType.DevVarStringArray: "texts",
}
_OF_TANGO = {
    "State": "What the server is doing",
    "Status": "Status message, with what to do",
    "Init": "Reload properties and configuration file; the queue is kept",
}
_NOTHING = tango.CmdArgType.DevVoid


def page() -> str:
    """Return the whole page; starts a server to query its interface."""
    with TemporaryDirectory(prefix="petif-docs-") as folder:
        server = LocalServer(Path(folder).resolve(), Path(folder).resolve() / "state", ["--workers", "1"]).start()
        try:
            proxy = tango.DeviceProxy(server.address)
            attributes = proxy.get_attribute_config_ex(list(proxy.get_attribute_list()))
            commands = proxy.command_list_query()
        finally:
            server.stop()
    return "".join(
        [
            _INTRODUCTION,
            _ATTRIBUTES,
            *(_attribute(info) for info in attributes),
            _COMMANDS,
            *(_command(info) for info in commands),
            _PROPERTIES,
            *(
                _row(f"`{name}`", "one per element" if is_list(name) else "one", field.description or "")
                for name, field in Settings.model_fields.items()
            ),
        ]
    )


def _attribute(info: tango.AttributeInfoEx) -> str:
    kind = _TYPES[tango.CmdArgType.values[info.data_type]]
    if info.data_format == tango.AttrDataFormat.SPECTRUM:
        kind = f"up to {info.max_dim_x} {kind}s"
    return _row(_name(info.name), kind, info.unit, _OF_TANGO.get(info.name, info.description))


def _command(info: tango.CommandInfo) -> str:
    return _row(
        _name(info.cmd_name),
        _argument(info.in_type, info.in_type_desc),
        _argument(info.out_type, info.out_type_desc),
        _OF_TANGO.get(info.cmd_name) or _summary(info.cmd_name),
    )


def _argument(kind: tango.CmdArgType, description: str) -> str:
    if kind == _NOTHING:
        return ""
    words = _TYPES[kind]
    described = description if description != "Uninitialised" else ""
    return f"{words}: {described}" if described else words


def _summary(command: str) -> str:
    return (getattr(PETifConverter, command).__doc__ or "").partition("\n")[0]


def _name(name: str) -> str:
    return f"`{name}`{' *' if name in ANCESTOR else ''}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
