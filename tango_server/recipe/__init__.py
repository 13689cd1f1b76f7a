"""How to convert a frame: a complete, immutable, hashable value that is plain JSON.

For all packages: `from tango_server.recipe import Recipe`; names are loaded when they are used.
Never accesses files, paths or pixels.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tango_server.recipe.output import InPlace, NewFile, OnExisting
    from tango_server.recipe.recipe import (
        PRESETS,
        Compression,
        Flip,
        Format,
        PixelType,
        Recipe,
        RecipeField,
        Rotation,
        Rounding,
    )

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
    "RecipeField",
    "Rotation",
    "Rounding",
]

_OF_OUTPUT = {"InPlace", "NewFile", "OnExisting"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - spawned workers pay for imports above

    return getattr(import_module(f"{__name__}.{'output' if name in _OF_OUTPUT else 'recipe'}"), name)
