"""Units of lengths, angles, energies and times, by the names that they have in run documents.

>>> in_unit(0.35, "m", "mm"), in_unit(42700.0, "eV", "keV")
(350.0, 42.7)
"""

import math

_FACTORS: dict[str, dict[str, float]] = {
    "mm": {"mm": 1.0, "um": 1e-3, "nm": 1e-6, "cm": 10.0, "m": 1000.0},
    "Angstrom": {"Angstrom": 1.0, "nm": 10.0, "pm": 0.01, "m": 1e10},
    "keV": {"keV": 1.0, "eV": 1e-3, "MeV": 1e3},
    "deg": {"deg": 1.0, "rad": 180 / math.pi, "mrad": 0.18 / math.pi},
    "s": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0},
    "px": {"px": 1.0},
}
_SPELLINGS = {
    "angstrom": "Angstrom",
    "angstroms": "Angstrom",
    "a": "Angstrom",
    "\u00c5": "Angstrom",
    "\u212b": "Angstrom",
    "\u00b5m": "um",
    "\u03bcm": "um",
    "micron": "um",
    "microns": "um",
    "millimeter": "mm",
    "meter": "m",
    "degree": "deg",
    "degrees": "deg",
    "\u00b0": "deg",
    "radian": "rad",
    "radians": "rad",
    "kev": "keV",
    "ev": "eV",
    "sec": "s",
    "second": "s",
    "seconds": "s",
    "millisecond": "ms",
    "milliseconds": "ms",
    "microsecond": "us",
    "microseconds": "us",
    "micrometer": "um",
    "micrometers": "um",
    "pixel": "px",
    "pixels": "px",
}


class UnknownUnitError(ValueError):
    """An unknown unit."""

    def __init__(self, found: str, known: tuple[str, ...]) -> None:
        super().__init__(found, known)
        self.found = found
        self.known = known


def in_unit(value: float, found: str, wanted: str) -> float:
    """Convert a value from the unit `found` to the unit `wanted`; an empty `wanted` accepts any.

    Raises
    ------
    UnknownUnitError
        if `found` cannot be converted to `wanted`.

    """
    if not wanted:
        return value
    factors = _FACTORS[wanted]
    name = found.strip()
    name = name if name in factors else _SPELLINGS.get(name, _SPELLINGS.get(name.lower(), name))
    if name not in factors:
        raise UnknownUnitError(found, tuple(factors))
    return value * factors[name]
