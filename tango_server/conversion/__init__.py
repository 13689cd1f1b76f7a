"""Frames in, frames out: no Tango, no threads, no queue.

>>> from tango_server.conversion import convert_file          # doctest: +SKIP
>>> report = convert_file("/data/raw/a.tif", Recipe.preset("xdi", rotation=90))     # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tango_server.conversion.convert import convert_file
    from tango_server.conversion.errors import ConversionError

__all__ = ["ConversionError", "convert_file"]

_HOMES = {"convert_file": "convert", "ConversionError": "errors"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - spawned workers pay for imports above

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
