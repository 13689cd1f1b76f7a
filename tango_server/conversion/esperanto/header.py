"""The header of an ESPERANTO frame: 25 lines of 256 bytes.

Lines and values are those of Rothkirch et al. 2013 (J. Synchrotron Rad. 20, 711), Table 2, and of fabio's
`esperantoimage`; values unknown here are those of fabio's eiger2crysalis.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from tango_server.recipe.esperanto import Encoding

LINES, WIDTH = 25, 256
SIZE = LINES * WIDTH
"""Bytes; the pixels follow."""

_FIRST = "ESPERANTO FORMAT   1 CONSISTING OF   25 LINES OF   256 BYTES EACH"
_END, _LAST_END = b"\r\n", b"\r\x1a"
_TEXT_WIDTH = WIDTH - len(_END)
_WORDS = re.compile(r'"[^"]*"|\S+')
_OVERFLOW = 1_000_000
_POLARISATION = 0.98
_ENCODINGS: tuple[Encoding, ...] = ("AGI_BITFIELD", "4BYTE_LONG")


class HeaderError(ValueError):
    """A header cannot be written or read; the message names the field or the line."""


class Angles(NamedTuple):
    """The four circles, in degrees, in the order of the header."""

    omega: float = 0.0
    theta: float = 0.0
    kappa: float = 0.0
    phi: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EsperantoHeader:
    """The values of a header.

    Parameters
    ----------
    side: rows and columns of the square frame
    encoding: of the pixels
    exposure: in s
    monitor: counts
    pixel_size: edge of a square pixel in mm
    timestamp: time of the acquisition, in ASCII
    start, end: the circles at the start and at the end of the exposure
    origin: (x, y) of the direct beam in pixels; (0, 0) is the centre of the first pixel, x counts columns
    alpha, beta: of the kappa goniometer, in degrees
    distance: from sample to detector in mm
    wavelength: in Angstrom
    history: any text, in ASCII

    """

    side: int
    encoding: Encoding
    exposure: float
    monitor: float = 0.0
    pixel_size: float
    timestamp: str = ""
    start: Angles
    end: Angles
    origin: tuple[float, float]
    alpha: float = 50.0
    beta: float = 0.0
    distance: float
    wavelength: float
    history: str = ""

    def to_bytes(self) -> bytes:
        """Return the header.

        Raises
        ------
        HeaderError
            if a number is not finite, a text is not printable ASCII, or a line is too long; it names the field.

        """
        self._require_numbers()
        texts = [_FIRST, *(" ".join([name, *map(_word, values)]) for name, values in self._lines())]
        texts += [""] * (LINES - len(texts))
        whole = b"".join(text.ljust(_TEXT_WIDTH).encode("ascii") + _END for text in texts)
        return whole[: -len(_LAST_END)] + _LAST_END

    @classmethod
    def from_bytes(cls, data: bytes) -> "EsperantoHeader":
        """Return the values of a header.

        Raises
        ------
        HeaderError
            if it is not a header, or a required value cannot be read; it names the line.

        """
        lines = _lines_of(data)
        image = _values(lines, "IMAGE", 5)
        columns, rows = _number("IMAGE", image[0]), _number("IMAGE", image[1])
        if columns != rows or image[4] not in _ENCODINGS:
            raise HeaderError(f"IMAGE: not a square frame in one of {_ENCODINGS}: {' '.join(image)}")
        goniometer = _numbers(lines, "GONIOMODEL_1", 10)
        pixel = _numbers(lines, "PIXELSIZE", 2)
        return cls(
            side=int(rows),
            encoding="AGI_BITFIELD" if image[4] == "AGI_BITFIELD" else "4BYTE_LONG",
            exposure=_numbers(lines, "TIME", 1)[0],
            monitor=_numbers(lines, "MONITOR", 1)[0],
            pixel_size=pixel[0],
            timestamp=_text(lines, "TIMESTAMP"),
            start=Angles(*_numbers(lines, "STARTANGLESINDEG", 4)),
            end=Angles(*_numbers(lines, "ENDANGLESINDEG", 4)),
            origin=(goniometer[5], goniometer[6]),
            alpha=goniometer[7],
            beta=goniometer[8],
            distance=goniometer[9],
            wavelength=_numbers(lines, "WAVELENGTH", 1)[0],
            history=_text(lines, "HISTORY"),
        )

    def _lines(self) -> list[tuple[str, tuple[float | str, ...]]]:
        wavelength, size = self.wavelength, self.pixel_size
        return [
            ("IMAGE", (self.side, self.side, 1, 1, self.encoding)),
            ("SPECIAL_CCD_1", (1, 0, 0, 1.0, 0, 0)),
            ("SPECIAL_CCD_2", (0, 0, 0, 0, _OVERFLOW)),
            ("SPECIAL_CCD_3", (0, 0, 0, 0, 0)),
            ("SPECIAL_CCD_4", (0, 0, 0, 0, 0, 0, 0, 0)),
            ("SPECIAL_CCD_5", (0, 0, 0, 0)),
            ("TIME", (self.exposure, 0, 0)),
            ("MONITOR", (round(self.monitor), 0, 0, 0)),
            ("PIXELSIZE", (size, size, 0)),
            ("TIMESTAMP", (_plain("timestamp", self.timestamp, "TIMESTAMP"),)),
            ("GRIDPATTERN", ("",)),
            ("STARTANGLESINDEG", self.start),
            ("ENDANGLESINDEG", self.end),
            ("GONIOMODEL_1", (0, 0, 0, 0, 0, *self.origin, self.alpha, self.beta, self.distance)),
            ("GONIOMODEL_2", (0, 0, 0, 0)),
            ("WAVELENGTH", (wavelength, wavelength, wavelength, wavelength)),
            ("MONOCHROMATOR", (_POLARISATION, "SYNCHROTRON")),
            ("ABSTORUN", (0,)),
            ("HISTORY", (_plain("history", self.history, "HISTORY"),)),
        ]

    def _require_numbers(self) -> None:
        numbers: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("exposure", "monitor", "pixel_size", "alpha", "beta", "distance", "wavelength")
        }
        for name, several in (("start", self.start), ("end", self.end), ("origin", self.origin)):
            numbers |= {f"{name}[{place}]": value for place, value in enumerate(several)}
        for name, value in numbers.items():
            if not math.isfinite(value):
                raise HeaderError(f"{name}: {value} is not a finite number")


def is_header(data: bytes) -> bool:
    """Return whether `data` is the beginning of an ESPERANTO frame."""
    return data.startswith(_FIRST[:16].encode())


def longest_text(line: str) -> int:
    """Return how many characters the text of a line (such as HISTORY) may have."""
    return _TEXT_WIDTH - len(line) - len(' ""')


def _plain(field: str, text: str, line: str) -> str:
    if not text.isascii() or not text.isprintable() or '"' in text:
        raise HeaderError(f"{field}: {text!a} is not printable ASCII without quotes")
    if len(text) > longest_text(line):
        raise HeaderError(f"{field}: {len(text)} characters (at most {longest_text(line)})")
    return text


def _word(value: float | str) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _lines_of(data: bytes) -> dict[str, str]:
    if len(data) < SIZE:
        raise HeaderError(f"{len(data)} bytes, less than a header ({SIZE})")
    try:
        text = data[:SIZE].decode("ascii")
    except UnicodeDecodeError as error:
        raise HeaderError(f"byte {error.start} of the header is not ASCII") from error
    lines = [text[start : start + _TEXT_WIDTH].strip() for start in range(0, SIZE, WIDTH)]
    if lines[0].split() != _FIRST.split():
        raise HeaderError(f"the first line is {lines[0][:70]!r} instead of {_FIRST!r}")
    return {name: values for name, _, values in (line.partition(" ") for line in lines[1:]) if name}


def _values(lines: dict[str, str], name: str, least: int) -> list[str]:
    found = [word.strip('"') for word in _WORDS.findall(lines.get(name, ""))]
    if len(found) < least:
        raise HeaderError(f"{name}: {len(found)} values instead of {least}")
    return found


def _numbers(lines: dict[str, str], name: str, least: int) -> list[float]:
    return [_number(name, value) for value in _values(lines, name, least)[:least]]


def _number(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise HeaderError(f"{name}: {value!r} is not a number")
    return number


def _text(lines: dict[str, str], name: str) -> str:
    return lines.get(name, "").strip().strip('"')
