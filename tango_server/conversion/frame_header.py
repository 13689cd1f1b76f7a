"""What a detector or QXRD states about a frame, in one set of units, wherever it was read."""

import math
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

_SAME = 0.01
"""Exposure times with a smaller relative difference are the same."""
_ABOVE_ZERO = frozenset({"exposure", "summed", "wavelength", "distance", "pixel_size_x", "pixel_size_y", "saturation"})


@dataclass(frozen=True, slots=True)
class Rotation:
    """One circle of the goniometer during a frame: `start` and `end` in degrees."""

    circle: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """The header of a frame; None where a value is not stated. `FrameHeader.stated` leaves out placeholders.

    Parameters
    ----------
    detector: the name that the detector gives itself
    exposure: of the whole frame, in s
    summed: the number of exposures in the frame
    wavelength: in Angstrom
    distance: from sample to detector, in mm
    beam_center_x, beam_center_y: in pixels of the stored frame, (0, 0) the centre of its first pixel
    pixel_size_x, pixel_size_y: in mm
    saturation: counts from which on a pixel is overexposed, for the whole frame
    gain: the camera's gain setting
    rotations: the circles of the goniometer (omega, theta, kappa or phi)
    taken: time of the acquisition, as TIFF writes it: `YYYY:MM:DD HH:MM:SS`
    dark_is_off: whether the dark was already subtracted; None if that is unknown

    """

    detector: str = ""
    exposure: float | None = None
    summed: float | None = None
    wavelength: float | None = None
    distance: float | None = None
    beam_center_x: float | None = None
    beam_center_y: float | None = None
    pixel_size_x: float | None = None
    pixel_size_y: float | None = None
    saturation: float | None = None
    gain: float | None = None
    rotations: tuple[Rotation, ...] = ()
    taken: str = ""
    dark_is_off: bool | None = False

    @classmethod
    def stated(cls, **values: Any) -> "FrameHeader":
        """Return a header without placeholders: values that are not finite, not above 0, a beam at (0, 0).

        >>> header = FrameHeader.stated(exposure=0.0, wavelength=0.5, beam_center_x=0, beam_center_y=0)
        >>> header == FrameHeader(wavelength=0.5)
        True
        """
        kept = {name: value for name, value in values.items() if not _is_placeholder(name, value)}
        if kept.get("beam_center_x") == 0 and kept.get("beam_center_y") == 0:
            del kept["beam_center_x"], kept["beam_center_y"]
        if ("beam_center_x" in kept) != ("beam_center_y" in kept):
            kept = {name: value for name, value in kept.items() if not name.startswith("beam_center")}
        return cls(**kept)

    def or_else(self, other: "FrameHeader") -> "FrameHeader":
        """Return this header, with the values of another one where this one states none.

        >>> FrameHeader(exposure=1.0).or_else(FrameHeader(exposure=2.0, gain=4)).gain
        4
        """
        plain = FrameHeader()
        missing = {
            each.name: getattr(other, each.name)
            for each in fields(self)
            if getattr(self, each.name) == getattr(plain, each.name)
        }
        return replace(self, **missing)

    def nexus_fields(self) -> dict[str, Any]:
        """Return what is stated under NeXus names, for reports: mm, Angstrom, s, pixels, degrees, counts.

        >>> FrameHeader(detector="Lambda", exposure=0.1, saturation=4095).nexus_fields()
        {'description': 'Lambda', 'exposure_time': 0.1, 'saturation_value': 4095}
        """
        names = {
            "description": self.detector or None,
            "exposure_time": self.exposure,
            "incident_wavelength": self.wavelength,
            "detector_distance": self.distance,
            "beam_center_x": self.beam_center_x,
            "beam_center_y": self.beam_center_y,
            "x_pixel_size": self.pixel_size_x,
            "y_pixel_size": self.pixel_size_y,
            "saturation_value": self.saturation,
            **{rotation.circle: rotation.start for rotation in self.rotations},
            **{f"{rotation.circle}_end": rotation.end for rotation in self.rotations},
        }
        return {name: value for name, value in names.items() if value is not None}

    @property
    def of_exposure(self) -> "FrameHeader":
        """Only what decides whether a dark fits, and is the same for many frames."""
        return FrameHeader(exposure=self.exposure, summed=self.summed, gain=self.gain, dark_is_off=self.dark_is_off)

    @property
    def one_exposure(self) -> float | None:
        """Time of one exposure in s."""
        return None if self.exposure is None else self.exposure / (self.summed or 1.0)

    def unlike(self, other: "FrameHeader") -> str:
        """Return how another exposure differs from this one; empty if it does not, as far as is known.

        >>> FrameHeader(exposure=10.0, summed=10).unlike(FrameHeader(exposure=10.0, summed=1))
        'exposure 10 s, not 1 s'
        """
        mine, theirs = self.one_exposure, other.one_exposure
        if mine is not None and theirs is not None and abs(theirs - mine) > _SAME * mine:
            return f"exposure {theirs:g} s, not {mine:g} s"
        if self.gain is not None and other.gain is not None and self.gain != other.gain:
            return f"gain setting {other.gain:g}, not {self.gain:g}"
        return ""

    def unknown_beside(self, other: "FrameHeader") -> tuple[str, ...]:
        """Return what could not be compared, because one of the two is unknown."""
        pairs = {
            "exposure time": (self.one_exposure, other.one_exposure),
            "gain": (self.gain, other.gain),
        }
        return tuple(name for name, values in pairs.items() if None in values)


NO_HEADER = FrameHeader()


def written_time(*parts: int) -> str:
    """Return a time, from year to second, as `FrameHeader.taken` has it; empty if there is no such time.

    >>> written_time(2011, 11, 1, 17, 59, 4), written_time(0, 0, 0, 0, 0, 0)
    ('2011:11:01 17:59:04', '')
    """
    try:
        moment = datetime(*parts)  # type: ignore[arg-type]
    except ValueError:
        return ""
    return moment.isoformat(" ").replace("-", ":")


def _is_placeholder(name: str, value: Any) -> bool:
    if value is None or value == "":
        return True
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return not math.isfinite(value) or (name in _ABOVE_ZERO and value <= 0)
