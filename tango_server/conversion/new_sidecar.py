"""The text of a sidecar with QXRD's keys, for an output whose source has a header of its own but no sidecar.

Saturation, the circles of the goniometer and the detector's name have no key of QXRD's and are left out.
"""

import math
import re

from tango_server.conversion.frame_header import FrameHeader
from tango_server.conversion.image.orientation import Orientation
from tango_server.recipe.esperanto import HC

_END = "\r\n"
_TAKEN = re.compile(r"(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d)", re.ASCII)
_UM = 1000  # in a mm
_EV = 1000  # in a keV


def sidecar_text(header: FrameHeader, turned: Orientation, shape: tuple[int, int]) -> str:
    r"""Return the text for the frame of `shape` (rows, columns) after it was turned; empty if nothing is stated.

    >>> from tango_server.conversion.image.orientation import AS_STORED
    >>> print(sidecar_text(FrameHeader(exposure=0.5, distance=300.0), AS_STORED, (10, 20)).replace("\r", ""), end="")
    [metadata]
    width=20
    height=10
    exposureTime=0.5
    summedExposures=1
    <BLANKLINE>
    [centerfinder]
    detectorDistance=300
    """
    acquired, geometry = _acquired(header), _geometry(header, turned, shape)
    if not geometry and acquired.keys() <= {"dateString"}:  # which the output has as its DateTime
        return ""
    rows, columns = turned.shape(shape)
    sections = {"metadata": {"width": str(columns), "height": str(rows), **acquired}, "centerfinder": geometry}
    blocks = (
        "".join([f"[{name}]{_END}", *(f"{key}={value}{_END}" for key, value in values.items())])
        for name, values in sections.items()
        if values
    )
    return _END.join(blocks)


def _acquired(header: FrameHeader) -> dict[str, str]:
    found: dict[str, str] = {}
    if header.dark_is_off:
        found |= {"dataType": "5", "dataTypeName": "Subtracted Data"}
    found |= _numbers(exposureTime=header.one_exposure)
    if found or header.summed is not None:
        found |= _numbers(summedExposures=header.summed or 1.0)
    taken = _TAKEN.fullmatch(header.taken)
    if taken:
        found["dateString"] = f"{taken[1]}.{taken[2]}.{taken[3]} : {taken[4]}.000"
    return found | _numbers(cameraGain=header.gain)


def _geometry(header: FrameHeader, turned: Orientation, shape: tuple[int, int]) -> dict[str, str]:
    x, y = header.beam_center_x, header.beam_center_y
    center = (None, None) if x is None or y is None else turned.point(x, y, shape)
    sizes = (header.pixel_size_x, header.pixel_size_y)
    width, height = sizes[::-1] if turned.transpose else sizes
    return _numbers(
        centerX=center[0],
        centerY=center[1],
        detectorXPixelSize=None if width is None else width * _UM,
        detectorYPixelSize=None if height is None else height * _UM,
        detectorDistance=header.distance,
        energy=HC / header.wavelength * _EV if header.wavelength else None,
    )


def _numbers(**values: float | None) -> dict[str, str]:
    """Return the texts of finite numbers, with the digits that QXRD writes."""
    return {name: f"{value:.15g}" for name, value in values.items() if value is not None and math.isfinite(value)}
