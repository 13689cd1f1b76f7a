"""Writes docs/reference/settings.md from the model of the settings: `python docs/generate_settings.py`."""

import json
from pathlib import Path
from typing import Any

from tango_server.recipe import PRESETS, Recipe
from tango_server.settings import Settings

PAGE = Path(__file__).parent / "reference" / "settings.md"

_INTRODUCTION = """\
# Settings of the server

<!-- Written by docs/generate_settings.py from tango_server/settings.py; change the descriptions there. -->

Each setting is a key of the TOML file for `petif serve --config FILE` and a Tango device property. Unknown names are
errors. Times are in s, sizes in bytes. [How to set them](../how-to/configure.md);
[a file with all of them](../../examples/configuration/p02.2.toml).

| name | value (default) | meaning |
|---|---|---|
"""
_NAMES = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false"}
_COMPUTED = {"numworkers": "one for each core, 4 at the most"}
_LARGE = 10_000


def page() -> str:
    """Return the whole page."""
    schema = Settings.model_json_schema()
    rows = []
    for name, field in Settings.model_fields.items():
        value = f"{_type_of(name, schema['properties'][name])} ({_default_of(name)})"
        cells = (f"`{name}`", value, field.description or "")
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n")
    return _INTRODUCTION + "".join(rows)


def _type_of(name: str, schema: dict[str, Any]) -> str:
    """Return what a person may write, from the JSON schema of one setting."""
    if name == "path_maps":
        return "lines `PREFIX -> FOLDER`, or a table"
    if "$ref" in schema:
        return "recipe"
    if "anyOf" in schema:
        (schema,) = (choice for choice in schema["anyOf"] if choice["type"] != "null")
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    if schema["type"] == "array":
        parts = schema.get("prefixItems")
        return f"{len(parts)} of: {_simple(parts[0])}" if parts else f"list: {_simple(schema['items'])}"
    return _simple(schema)


def _simple(schema: dict[str, Any]) -> str:
    if schema.get("format") == "path":
        return "absolute path"
    return _NAMES[schema["type"]] + _limits(schema)


def _limits(schema: dict[str, Any]) -> str:
    low, high, above = schema.get("minimum"), schema.get("maximum"), schema.get("exclusiveMinimum")
    texts = [
        f"above {_number(above)}" if above is not None else "",
        f"from {_number(low)}" if low is not None else "",
        f"to {_number(high)}" if high is not None else "",
    ]
    return "".join(f" {text}" for text in texts if text)


def _default_of(name: str) -> str:
    field = Settings.model_fields[name]
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return _COMPUTED[name]
    default = field.default
    if isinstance(default, Recipe):
        return f'`"{next(preset for preset in PRESETS if Recipe.preset(preset) == default)}"`'
    if default is None or default == ():
        return "none"
    if isinstance(default, tuple):
        return f"`[{', '.join(map(str, default))}]`"
    is_number = isinstance(default, int | float) and not isinstance(default, bool)
    return f"`{_number(default) if is_number else json.dumps(default)}`"


def _number(value: float) -> str:
    return f"{int(value):_}" if value == int(value) and value >= _LARGE else f"{value:g}"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
