"""What to do to a frame: a value that is complete in itself, immutable, hashable and plain JSON.

For everybody: `from tango_server.recipe import Recipe`; the names are loaded when they are used.
Never looks at a file, a path or a pixel.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tango_server.recipe.output import InPlace, NewFile, OnExisting
    from tango_server.recipe.recipe import PRESETS, Compression, Flip, Format, PixelType, Recipe, Rotation, Rounding

__all__ = [
    "PRESETS",
    "Compression",
    "Flip",
    "Format",
    "InPlace",
    "NewFile",
    "OnExisting",
    "PixelType",
    "Recipe",
    "Rotation",
    "Rounding",
]

_OF_OUTPUT = {"InPlace", "NewFile", "OnExisting"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - spawned workers pay for what stands above

    return getattr(import_module(f"{__name__}.{'output' if name in _OF_OUTPUT else 'recipe'}"), name)
