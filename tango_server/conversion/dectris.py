r"""The header that Dectris detectors write as text: in a CBF ("mini header"), and in a TIFF's ImageDescription.

Lines are `# Key value unit`; the "space equivalent characters" `#=:,()` may stand between them (Dectris' page on the
PILATUS CBF header). Names and units are those of real files and of fabio's `PilatusHeader`. Pixels from Count_cutoff on
are overexposed. Beam_xy is taken as it stands: the header does not say whether it counts from the corner or from the
centre of the first pixel.

Angles are stated with care, since the header of a TIFF has all keys, set or not:
`Start_angle` and `Angle_increment` belong to the circle that `Oscillation_axis` names, to omega if that key is absent
(the header of a CBF has only what was set), and to no circle if it names a direction of the laboratory (its default is
`X, CW`). Circles at rest at 0 are left out; with a chi, no circle is stated, for then they are no kappa goniometer's.
"""

import math
import re

from tango_server.conversion.frame_header import FrameHeader, Rotation, written_time
from tango_server.units import UnknownUnitError, in_unit

_LONGEST_TEXT = 65_536
_LONGEST_VALUE = 200
_SPACES = " \t#=:,()"
_KEY = re.compile(r"\w+", re.ASCII)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,4})?", re.ASCII)
_UNIT = re.compile(r"[ \t,:=]*([^\W\d_]+)")
_TIME = re.compile(r"(\d{4})[-/:](\d\d|[A-Za-z]{3})[-/:](\d\d)[T ]+(\d\d):(\d\d):(\d\d)", re.ASCII)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MAKES = ("pilatus", "eiger", "mythen", "dectris")
_SET_BY_ALL = ("Count_cutoff", "Exposure_time", "Threshold_setting")
_CIRCLES = ("omega", "kappa", "phi")


def is_dectris_text(text: str) -> bool:
    r"""Whether a text is such a header: its detector is one of Dectris, or it names none and has Dectris' keys.

    >>> is_dectris_text("# Pixel_size 172e-6 m x 172e-6 m\r\n# Exposure_time 1.0 s\r\n"), is_dectris_text("a frame")
    (True, False)
    """
    values, _ = _parsed(text)
    if "Detector" in values:
        return any(make in values["Detector"].lower() for make in _MAKES)
    return "Pixel_size" in values and any(key in values for key in _SET_BY_ALL)


def dectris_header(text: str) -> FrameHeader:
    r"""Return what the text states; values that cannot be read are not stated.

    >>> header = dectris_header("# Exposure_time 0.5 s\n# Beam_xy ( 244, 308) pixels\n# Detector_distance 0.04 m")
    >>> header.exposure, header.beam_center_x, header.beam_center_y, header.distance
    (0.5, 244.0, 308.0, 40.0)
    """
    values, taken = _parsed(text)
    beam = [float(number) for number in _NUMBER.findall(values.get("Beam_xy", ""))[:2]]
    x_size, _, y_size = values.get("Pixel_size", "").partition(" x ")
    return FrameHeader.stated(
        detector=values.get("Detector", ""),
        exposure=_quantity(values.get("Exposure_time", ""), "s", "s"),
        wavelength=_quantity(values.get("Wavelength", ""), "A", "Angstrom"),
        distance=_quantity(values.get("Detector_distance", ""), "m", "mm"),
        beam_center_x=beam[0] if len(beam) > 1 else None,
        beam_center_y=beam[1] if len(beam) > 1 else None,
        pixel_size_x=_quantity(x_size, "m", "mm"),
        pixel_size_y=_quantity(y_size, "m", "mm"),
        saturation=_quantity(values.get("Count_cutoff", ""), "", ""),
        rotations=_rotations(values),
        taken=taken,
    )


def _parsed(text: str) -> tuple[dict[str, str], str]:
    """Return the values by key, the first of each, and the time of the acquisition."""
    values: dict[str, str] = {}
    taken = ""
    for line in text[:_LONGEST_TEXT].splitlines():
        if not line.startswith("#"):
            continue
        body = line[: 2 * _LONGEST_VALUE].strip().lstrip(_SPACES)
        taken = taken or _time(body)
        key = _KEY.match(body)
        if key:
            values.setdefault(key[0], body[key.end() :].lstrip(_SPACES)[:_LONGEST_VALUE])
    return values, taken


def _time(body: str) -> str:
    found = _TIME.match(body)
    if not found:
        return ""
    year, month, *rest = found.groups()
    if not month.isdigit() and month.lower() not in _MONTHS:
        return ""
    number = int(month) if month.isdigit() else _MONTHS.index(month.lower()) + 1
    return written_time(int(year), number, *map(int, rest))


def _quantity(text: str, usual: str, wanted: str) -> float | None:
    """Return the number at the start of a value, in the unit `wanted`; `usual` is its unit if it has none."""
    number = _NUMBER.match(text)
    if not number:
        return None
    unit = _UNIT.match(text, number.end())
    try:
        return in_unit(float(number[0]), unit[1] if unit else usual, wanted)
    except UnknownUnitError:
        return None


def _rotations(values: dict[str, str]) -> tuple[Rotation, ...]:
    if _quantity(values.get("Chi", ""), "deg", "deg"):
        return ()
    ranges = {name: _range(values, name.capitalize(), f"{name.capitalize()}_increment") for name in _CIRCLES}
    scanned = values.get("Oscillation_axis", "omega").partition(",")[0].strip().lower()
    if scanned in ranges and "Angle_increment" in values:
        ranges[scanned] = _range(values, "Start_angle", "Angle_increment") or ranges[scanned]
    return tuple(Rotation(name, *each) for name, each in ranges.items() if each and each != (0, 0))


def _range(values: dict[str, str], first: str, step: str) -> tuple[float, float] | None:
    start = _quantity(values.get(first, ""), "deg", "deg")
    if start is None:
        return None
    end = start + (_quantity(values.get(step, ""), "deg", "deg") or 0.0)
    return (start, end) if math.isfinite(start) and math.isfinite(end) else None
