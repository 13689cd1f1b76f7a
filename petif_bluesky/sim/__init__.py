"""A simulated Perkin-Elmer XRD1621 flat panel read by QXRD: real files without the hardware."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from petif_bluesky.sim.detector import SimulatedPerkinElmer

__all__ = ["SimulatedPerkinElmer"]


def __getattr__(name: str) -> Any:
    """Import the detector, and with it ophyd, only when it is used."""
    if name == "SimulatedPerkinElmer":
        from petif_bluesky.sim.detector import SimulatedPerkinElmer  # noqa: PLC0415

        return SimulatedPerkinElmer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
