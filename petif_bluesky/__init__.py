"""Convert the frames of a bluesky run while it is running.

Names are loaded lazily: importing this package imports neither bluesky nor Tango.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from petif_bluesky.attachment import Attached, attach
    from petif_bluesky.callback import ConversionCallback
    from petif_bluesky.converter import PETifConverter
    from petif_bluesky.preprocessors import ConversionPreprocessor, conversion_decorator, conversion_wrapper
    from petif_bluesky.suspenders import ConverterBehind
    from tango_server.recipe import Recipe

__all__ = [
    "Attached",
    "ConversionCallback",
    "ConversionPreprocessor",
    "ConverterBehind",
    "PETifConverter",
    "Recipe",
    "attach",
    "conversion_decorator",
    "conversion_wrapper",
]

_MODULES = {
    "Attached": "petif_bluesky.attachment",
    "ConversionCallback": "petif_bluesky.callback",
    "ConversionPreprocessor": "petif_bluesky.preprocessors",
    "ConverterBehind": "petif_bluesky.suspenders",
    "PETifConverter": "petif_bluesky.converter",
    "Recipe": "tango_server.recipe",
    "attach": "petif_bluesky.attachment",
    "conversion_decorator": "petif_bluesky.preprocessors",
    "conversion_wrapper": "petif_bluesky.preprocessors",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - keeps the import of this package light

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
