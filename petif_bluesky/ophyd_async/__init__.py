"""The conversion in ophyd-async sessions; needs the extra `ophyd-async`.

Names are loaded lazily: importing this package imports neither ophyd-async nor Tango.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from petif_bluesky.ophyd_async.conversion_device import ConversionDevice

__all__ = ["ConversionDevice"]

_MODULES = {"ConversionDevice": "petif_bluesky.ophyd_async.conversion_device"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - keeps the import of this package light

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
