"""What the header of an EDF block states about its frame, under the names that are usual at the ESRF.

Names are those of P. Boesecke, "Keywords for SAXS Data in EDF Files" (ESRF): lengths in m, times in s, perhaps with
another unit behind an underscore (`1.5_ms`). `Center` is an image coordinate, which for the pixel with index i (from 0)
is i + Offset + 0.5 at its centre: `INDEX2I` in `reference.h` of his program SPD; pyFAI's `setSPD` counts alike. It is
the foot of the normal from the sample, so it is the beam only without rotations of the detector. Of the other names of
the exposure time, `acq_expo_time` is Lima's and `count_time` SPEC's.
"""

import re
from collections.abc import Mapping

from tango_server.conversion.frame_header import FrameHeader, written_time
from tango_server.units import UnknownUnitError, in_unit

_LONGEST_VALUE = 200
_QUANTITY = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,4})?)(?:[_ \t]+([^\W\d_]+))?", re.ASCII)
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T ]+(\d\d):(\d\d):(\d\d)", re.ASCII)
_EXPOSURES = ("exposuretime", "exposure_time", "acq_expo_time", "count_time")
_TIMES = ("time", "hmstarttime")
_WAVELENGTHS = (1e-3, 1e3)
"""Angstrom; a value beyond was not given in m."""


def edf_header(values: Mapping[str, str]) -> FrameHeader:
    """Return what the values of a header, by names in lower case, state.

    >>> header = edf_header({"wavelength": "3e-11", "center_1": "10.5", "center_2": "20", "psize_1": "0.0002"})
    >>> header.wavelength, header.beam_center_x, header.beam_center_y, header.pixel_size_x
    (0.3, 10.0, 19.5, 0.2)
    """
    wavelength = _quantity(values, "wavelength", "m", "Angstrom")
    if wavelength is not None and not _WAVELENGTHS[0] <= wavelength <= _WAVELENGTHS[1]:
        wavelength = None
    x, y = _center(values)
    return FrameHeader.stated(
        detector=values.get("detectorname", "")[:_LONGEST_VALUE],
        exposure=next(filter(None, (_quantity(values, name, "s", "s") for name in _EXPOSURES)), None),
        wavelength=wavelength,
        distance=_quantity(values, "sampledistance", "m", "mm"),
        beam_center_x=x,
        beam_center_y=y,
        pixel_size_x=_quantity(values, "psize_1", "m", "mm"),
        pixel_size_y=_quantity(values, "psize_2", "m", "mm"),
        taken=next(filter(None, (_time(values.get(name, "")) for name in _TIMES)), ""),
    )


def _center(values: Mapping[str, str]) -> tuple[float | None, float | None]:
    """Return the beam in pixels, (0, 0) the centre of the first one; a centre at (0, 0) is not set."""
    if any(_quantity(values, f"detectorrotation_{number}", "", "") for number in (1, 2, 3)):
        return None, None
    centers = [_quantity(values, f"center_{number}", "", "") for number in (1, 2)]
    if centers in ([0, 0], [None, None]) or None in centers:
        return None, None
    offsets = [_quantity(values, f"offset_{number}", "", "") or 0.0 for number in (1, 2)]
    x, y = (center - offset - 0.5 for center, offset in zip(centers, offsets, strict=True) if center is not None)
    return x, y


def _quantity(values: Mapping[str, str], name: str, usual: str, wanted: str) -> float | None:
    """Return a number in the unit `wanted`; `usual` is its unit if it has none."""
    found = _QUANTITY.fullmatch(values.get(name, "")[:_LONGEST_VALUE])
    if not found:
        return None
    try:
        return in_unit(float(found[1]), found[2] or usual, wanted)
    except UnknownUnitError:
        return None


def _time(text: str) -> str:
    found = _TIME.match(text)
    return written_time(*map(int, found.groups())) if found else ""
