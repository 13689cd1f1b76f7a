"""Writes docs/reference/tango.md from the interface of a running server: `python docs/generate_tango.py`."""

from pathlib import Path
from tempfile import TemporaryDirectory

import tango

from tango_server.client.local_server import LocalServer
from tango_server.device.converter import PETifConverter

PAGE = Path(__file__).parent / "reference" / "tango.md"
ANCESTOR = {
    *("NumProcessed", "NumWorkers", "ConfRotation", "ConfFlip", "ConfType"),
    *("StatisticsTotalFrames", "StatisticsTotalTime", "StatisticsAverageTime"),
    *("AddFiles", "AddFolder", "AddFileOrDir", "ResetStats", "TestOsExists", "TestOsIsDir", "TestOsIsFile"),
}
"""The names that K. Glazyrin's PETifConverter had; they keep working."""

_INTRODUCTION = """\
# Tango interface

<!-- Written by docs/generate_tango.py from tango_server/device/converter.py; change the descriptions there. -->

Device class `PETifConverter`, read from a running server. All attributes are read-only and push change events. Names
with a * come from [K. Glazyrin's PETifConverter](../how-to/migrate.md). For states and refused commands see
[Troubleshooting](../how-to/troubleshooting.md).

Device properties are the [settings](settings.md), by the same names and with the same checks; a list has one line for
each element. A wrong one puts the device into `FAULT`, with the reason in `Status`.
"""
_ATTRIBUTES = """
## Attributes

| name | type | meaning |
|---|---|---|
"""
_COMMANDS = """
## Commands

Requests and reports are JSON: [`FrameRequest`, `FrameReport`, `RunStatistics`](api.md#messages). Commands answer within
3 s; follow long work by job ids or by the uid of a run. An error is a `DevFailed` with a reason and a text that says
what to do.

| name | takes → returns | meaning |
|---|---|---|
"""
_TYPES = {
    tango.CmdArgType.DevString: "text",
    tango.CmdArgType.DevLong64: "integer",
    tango.CmdArgType.DevDouble: "number",
    tango.CmdArgType.DevBoolean: "true or false",
    tango.CmdArgType.DevState: "state",
    tango.CmdArgType.DevVarStringArray: "texts",
}
_OF_TANGO = {
    "State": "What the server is doing",
    "Status": "The state as text, and what to do",
    "Init": "Read properties and configuration file again; keep the queue",
}
_NOTHING = tango.CmdArgType.DevVoid


def page() -> str:
    """Return the whole page, read from a server that is started for it."""
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
            *(_command(info) for info in commands if info.cmd_name not in {"State", "Status"}),
        ]
    )


def _attribute(info: tango.AttributeInfoEx) -> str:
    kind = _TYPES[tango.CmdArgType.values[info.data_type]]
    if info.data_format == tango.AttrDataFormat.SPECTRUM:
        kind = f"up to {info.max_dim_x} {kind}s"
    typed = f"{kind}, {info.unit}" if info.unit else kind
    return _row(_name(info.name), typed, _OF_TANGO.get(info.name, info.description))


def _command(info: tango.CommandInfo) -> str:
    taken, returned = _argument(info.in_type, info.in_type_desc), _argument(info.out_type, info.out_type_desc)
    return _row(
        _name(info.cmd_name),
        f"{taken} → {returned}" if returned else taken,
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
