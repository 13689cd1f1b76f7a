"""Write the `.tif.metadata` file that QXRD writes next to each finished frame, in Qt's INI format."""

import struct
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

QXRD_VERSION = "0.11.1"
QT_VERSION = "4.8.5"

_DATA_TYPES = {
    "uint16": (1, "16 Bit Raw Data"),
    "uint32": (2, "32 Bit Raw Data"),
    "float32": (5, "Subtracted Data"),
}

_QT_DATE_TIME = 16
_QT_USER_TYPE = 127
_QT_LOCAL_TIME = 0xFF
_JULIAN_DAY_OF_ORDINAL_ZERO = 1721425

_NAMED_ESCAPES = {0: "\\0", 7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r"}
_QUOTED_CHARACTERS = frozenset(";,=")

_Value = str | int | float | bool | bytes


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """QXRD's metadata of one frame.

    Attributes
    ----------
    shape
        (H, W) in pixels.
    pixel_type
        float32, uint16 or uint32.
    exposure_time
        Time of one exposure in s.
    acquired
        Time of the exposure; local time if it has no time zone.
    center
        (x, y) of the beam in pixels.
    distance
        Distance from sample to detector in mm.
    energy
        Photon energy in eV.
    pixel_size
        Pixel size in um.
    image_number
        The number in the file name.
    summed_exposures
        Number of exposures summed in the frame.
    comment
        Free text from the user.

    """

    shape: tuple[int, int]
    pixel_type: str
    exposure_time: float
    acquired: datetime
    center: tuple[float, float]
    distance: float
    energy: float
    pixel_size: float = 200.0
    image_number: int = 0
    summed_exposures: int = 1
    comment: str = ""


def sidecar_path(frame: Path) -> Path:
    """Return the path of the sidecar of a frame: `name.tif.metadata`."""
    return frame.with_name(f"{frame.name}.metadata")


def write_sidecar(frame: Path, sidecar: Sidecar) -> Path:
    """Write the sidecar of `frame`, which contains the full path of the frame; return its path."""
    sections: dict[str, dict[str, _Value]] = {
        "metadata": _metadata(frame, sidecar),
        "normalization": {"size": 0},
        "centerfinder": _center_finder(sidecar),
        "integrator": _integrator(),
    }
    blocks = (
        "".join([f"[{name}]\r\n", *(f"{key}={_format(value)}\r\n" for key, value in values.items())])
        for name, values in sections.items()
    )
    path = sidecar_path(frame)
    path.write_bytes("\r\n".join(blocks).encode("ascii"))
    return path


def _metadata(frame: Path, sidecar: Sidecar) -> dict[str, _Value]:
    height, width = sidecar.shape
    data_type, data_type_name = _DATA_TYPES[sidecar.pixel_type]
    acquired = sidecar.acquired
    milliseconds = acquired.microsecond // 1000
    return {
        "width": width,
        "height": height,
        "qxrdVersion": QXRD_VERSION,
        "qtVersion": QT_VERSION,
        "dataType": data_type,
        "dataTypeName": data_type_name,
        "fileBase": frame.name,
        "fileName": frame.as_posix(),
        "title": frame.name,
        "readoutMode": 0,
        "exposureTime": sidecar.exposure_time,
        "summedExposures": sidecar.summed_exposures,
        "imageNumber": sidecar.image_number,
        "phaseNumber": 0,
        "nPhases": 1,
        "dateTime": _date_time_variant(acquired),
        "dateString": f"{acquired:%Y.%m.%d : %H:%M:%S}.{milliseconds:03d}",
        "timeStamp": round(acquired.timestamp(), 3),
        "hBinning": 1,
        "vBinning": 1,
        "cameraGain": 0,
        "triggered": 0,
        "userComment1": sidecar.comment,
        "userComment2": "",
        "userComment3": "",
        "userComment4": "",
        "imageSaved": 1,
        "normalization": _empty_list_variant("QcepDoubleList"),
        "normalization\\size": 0,
        "extraInputs": _empty_list_variant("QcepDoubleList"),
        "extraInputs\\size": 0,
        "used": True,
    }


def _center_finder(sidecar: Sidecar) -> dict[str, _Value]:
    x, y = sidecar.center
    return {
        "centerX": x,
        "centerY": y,
        "centerStep": 0.5,
        "detectorXPixelSize": sidecar.pixel_size,
        "detectorYPixelSize": sidecar.pixel_size,
        "detectorDistance": sidecar.distance,
        "energy": sidecar.energy,
        "implementTilt": False,
        "detectorTilt": 0,
        "tiltPlaneRotation": 0,
        "enableGeometricCorrections": True,
        "enablePolarizationCorrections": False,
        "polarization": 1,
        "enableAbsorptionCorrections": False,
        "attenuationLength": 0,
        "markedPoints": _empty_list_variant("QcepPolygon"),
        "markedPoints\\size": 0,
        "ringRadius": 0,
        "adjustMarkedPoints": False,
        "adjustmentRadius": 5,
        "enableUserGeometry": 0,
        "userGeometryFunction": "userGeometry",
        "enableUserAbsorption": 0,
        "userAbsorptionFunction": "userAbsorb1",
        "peakRadius": 4,
        "peakFitRadius": 12,
        "peakHeight": 50,
        "peakCenterX": 0,
        "peakCenterY": 0,
        "peakBackground": 0,
        "peakBackgroundX": 0,
        "peakBackgroundY": 0,
        "peakFitDebug": 0,
    }


def _integrator() -> dict[str, _Value]:
    return {
        "oversample": 1,
        "integrationStep": 0.01,
        "integrationNSteps": 2000,
        "integrationMinimum": 0,
        "integrationMaximum": 20,
        "integrationXUnits": 1,
    }


def _date_time_variant(moment: datetime) -> bytes:
    """Return a QDateTime in QDataStream format: Julian day, ms since midnight, time spec."""
    of_day = moment - moment.replace(hour=0, minute=0, second=0, microsecond=0)
    milliseconds = of_day.seconds * 1000 + of_day.microseconds // 1000
    julian_day = moment.toordinal() + _JULIAN_DAY_OF_ORDINAL_ZERO
    return struct.pack(">IIIB", _QT_DATE_TIME, julian_day, milliseconds, _QT_LOCAL_TIME)


def _empty_list_variant(type_name: str) -> bytes:
    """Return an empty list of one of QXRD's own types: the NUL-terminated type name, then no elements."""
    name = type_name.encode("ascii") + b"\0"
    return struct.pack(">II", _QT_USER_TYPE, len(name)) + name + struct.pack(">I", 0)


def _format(value: _Value) -> str:
    """Return a value as QSettings writes it to an INI file; bytes are a QVariant without a text form."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return f"{value:.15g}"
        case bytes():
            return _escape(f"@Variant({value.decode('latin-1')})")
        case str():
            return _escape(f"@{value}" if value.startswith("@") else value)


def _escape(text: str) -> str:
    r"""Return a string with Qt's escapes: C-like ones, and `\x` with hexadecimal digits for non-ASCII characters.

    Hexadecimal escapes have no fixed length, so a hexadecimal digit after one must be escaped as well.
    """
    escaped = ""
    digits_would_join = False
    for character in text:
        code = ord(character)
        joins = digits_would_join and character in "0123456789abcdefABCDEF"
        digits_would_join = True
        if joins:
            escaped += f"\\x{code:x}"
        elif code in _NAMED_ESCAPES:
            escaped += _NAMED_ESCAPES[code]
            digits_would_join = code == 0
        elif character in '"\\':
            escaped += f"\\{character}"
            digits_would_join = False
        elif " " <= character <= "~":
            escaped += character
            digits_would_join = False
        else:
            escaped += f"\\x{code:x}"
    if _QUOTED_CHARACTERS.intersection(text) or text != text.strip(" "):
        return f'"{escaped}"'
    return escaped
