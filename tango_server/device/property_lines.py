"""Settings as the lines of Tango device properties, and back: a property is a list of Latin-1 lines."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin

from pydantic import ValidationError

from tango_server.recipe import Recipe
from tango_server.settings import ConfigurationError, Settings

_LAST_OF_LATIN_1 = 0xFF


def is_list(name: str) -> bool:
    """Whether a setting is a list, with one line for each element."""
    return get_origin(Settings.model_fields[name].annotation) is tuple


def to_lines(settings: Settings, names: Iterable[str]) -> dict[str, list[str]]:
    """Return the lines of the named settings; none for one that is empty or not set.

    Raises
    ------
    ConfigurationError
        if a value can't be stored as lines: a character outside Latin-1, a line break, an arrow in a prefix.

    """
    lines = {name: _lines(name, getattr(settings, name)) for name in names}
    for name, texts in lines.items():
        if not _is_kept(settings, name, texts):
            raise ConfigurationError(
                f"{name}: cannot store {' '.join(map(ascii, texts))} as a Tango property: properties allow Latin-1 "
                "characters without line breaks, and '->' only between the two parts of a path map. Use a plain folder "
                "name (a link will do), or `petif serve --config`, which has no such limit."
            )
    return lines


def from_lines(lines: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the fields of `Settings` from lines, not validated; an empty property is not set."""
    return {
        name: list(texts) if name in Settings.model_fields and is_list(name) else "\n".join(texts)
        for name, texts in lines.items()
        if len(texts)
    }


def _lines(name: str, value: Any) -> list[str]:
    if value is None:
        return []
    if name == "path_maps":
        return [f"{prefix} -> {folder}" for prefix, folder in value]
    return [_text(element) for element in value] if is_list(name) else [_text(value)]


def _text(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case Recipe():
            return json.dumps(value.model_dump(mode="json"))
        case Path():
            return str(value)
        case _:
            return f"{value}"


def _is_kept(settings: Settings, name: str, texts: list[str]) -> bool:
    """Whether the lines survive the database and give the same value afterwards."""
    if any(ord(character) > _LAST_OF_LATIN_1 or character in "\r\n" for text in texts for character in text):
        return False
    try:
        read = Settings.merged(settings.model_dump(), from_lines({name: texts}))
    except ValidationError:
        return False
    return bool(getattr(read, name) == getattr(settings, name))
