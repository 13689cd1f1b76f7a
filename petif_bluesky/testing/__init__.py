"""Support for tests at beamlines: a fake server, and pytest fixtures with a real one.

The fixtures are in `petif_bluesky.testing.fixtures`. Names are loaded lazily: importing this package imports neither
pytest nor Tango.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from petif_bluesky.testing.fake_server import FakeServer
    from petif_bluesky.testing.reports import (
        combined_beside,
        converted_beside,
        failed,
        really_combined,
        really_converted,
    )

__all__ = ["FakeServer", "combined_beside", "converted_beside", "failed", "really_combined", "really_converted"]

_HOMES = {
    "FakeServer": "fake_server",
    "combined_beside": "reports",
    "converted_beside": "reports",
    "failed": "reports",
    "really_combined": "reports",
    "really_converted": "reports",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - keeps the import of this package light

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
