"""How a frame or a dark was exposed, as far as its file and its sidecar tell."""

from dataclasses import dataclass

from tango_server.conversion.sidecar import Sidecar, is_expected
from tango_server.conversion.tiff.record import read_provenance
from tango_server.conversion.tiff.structure import Structure

_SUBTRACTED = "subtracted"  # in QXRD's dataTypeName of frames whose dark is off
_FLOATS = 3  # SampleFormat of TIFF 6.0
_SAME = 0.01
"""Exposure times with a smaller relative difference are the same."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """The exposure of a frame; None where it is unknown.

    `time` of one exposure in s, `summed`: number of exposures in the frame, `gain`: the camera's gain setting,
    `dark_is_off`: whether its dark was already subtracted.
    """

    time: float | None = None
    summed: float | None = None
    gain: float | None = None
    dark_is_off: bool | None = False

    def unlike(self, other: "Exposure") -> str:
        """Return how another exposure differs from this one; empty if it does not, as far as is known.

        >>> Exposure(time=1.0, summed=10).unlike(Exposure(time=10.0, summed=1))
        'exposure 10 s, not 1 s'
        """
        if None not in {self.time, other.time} and abs(other.time - self.time) > _SAME * self.time:  # type: ignore[operator]
            return f"exposure {other.time:g} s, not {self.time:g} s"
        if None not in {self.gain, other.gain} and self.gain != other.gain:
            return f"gain setting {other.gain:g}, not {self.gain:g}"
        return ""

    def unknown_beside(self, other: "Exposure") -> tuple[str, ...]:
        """Return what could not be compared, because one of the two is unknown."""
        pairs = {"exposure time": (self.time, other.time), "gain": (self.gain, other.gain)}
        return tuple(name for name, values in pairs.items() if None in values)


def exposure_of(structure: Structure, sidecar: Sidecar | None) -> Exposure:
    """Return the exposure of a TIFF with this structure and sidecar.

    Without its sidecar, a frame of QXRD counts as raw if it has integers; nothing is known about one of floats.
    """
    provenance = read_provenance(structure)
    off: bool | None = any(master.kind == "dark" for master in provenance.masters) if provenance else False
    if sidecar is not None:
        off = off or _SUBTRACTED in sidecar.data_type.casefold()
        one = None
        if sidecar.exposure_time is not None:
            one = sidecar.exposure_time / (sidecar.summed_exposures or 1.0)
        return Exposure(one, sidecar.summed_exposures, sidecar.gain, off)
    if not off and is_expected(structure) and structure.pages[0].sample_formats[0] == _FLOATS:
        off = None
    return Exposure(dark_is_off=off)
