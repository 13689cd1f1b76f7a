"""A recipe's part for the header of ESPERANTO frames: the source of angles, wavelength, distance and centre.

A quantity is a number, or the name of a field of the frame's metadata, such as `"omega_readback"`:

>>> scan = Esperanto(omega={"start": "omega_start", "end": "omega_end"}, wavelength=0.2905, distance="detector_z")
>>> scan.omega.start, scan.omega.end, scan.encoding
('omega_start', 'omega_end', 'AGI_BITFIELD')
>>> Esperanto(phi="phi_readback").phi
Circle(start=None, end=None, step=None, center='phi_readback', width=None, during=None, sign=1, offset=0.0)
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tango_server.limits import LONGEST_ID, LONGEST_SOURCE
from tango_server.recipe.base import Frozen

Encoding = Literal["AGI_BITFIELD", "4BYTE_LONG"]
CircleName = Literal["omega", "theta", "kappa", "phi"]
CIRCLES: tuple[CircleName, ...] = ("omega", "theta", "kappa", "phi")
"""In the order of the header lines STARTANGLESINDEG and ENDANGLESINDEG."""

HC = 12.398419843320026
"""The photon energy times its wavelength, keV Angstrom: h c / e of the SI of 2019."""
_SAME = 1e-4
"""Wavelengths with a smaller relative difference are the same, given with fewer digits."""

Finite = Annotated[float, Field(allow_inf_nan=False, strict=True)]
FieldName = Annotated[str, Field(min_length=1, max_length=LONGEST_ID)]
Quantity = Finite | FieldName
Positive = Annotated[float, Field(allow_inf_nan=False, strict=True, gt=0)] | FieldName


RESOLVED_MASK = "recipe.mask"
"""The metadata key for the path of the recipe's mask, as resolved when the server accepted the frame."""

_WAYS = ("start", "end", "step", "center", "width", "during")


class Circle(Frozen):
    """The angles of one circle, in degrees, at the start and the end of a frame's exposure.

    One of

    - `start` and `end`; without `end` the circle is at rest
    - `start`, of the first frame, and `step`: frame n (seq_num, from 1) moves from start + (n-1) step to start + n step
    - `center` and `width`, as read in a step scan; without `width` the circle is at rest. A number or a name alone is a
      center
    - `during`: a name that is read during the exposure in a run; the callback interpolates the readings by their time
      stamps

    The header has `sign` times the angle, plus `offset`, in the sense that follows from `Esperanto.axis`: with the
    opposite sign if the axis points away from row 0 of the frame in CrysAlis.
    """

    start: Quantity | None = None
    end: Quantity | None = None
    step: Quantity | None = None
    center: Quantity | None = None
    width: Quantity | None = None
    during: FieldName | None = None
    sign: Literal[1, -1] = 1
    offset: Finite = 0.0

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = {name for name in _WAYS if getattr(self, name) is not None}
        if given not in ({"start"}, {"start", "end"}, {"start", "step"}, {"center"}, {"center", "width"}, {"during"}):
            raise ValueError(
                f"invalid combination ({', '.join(sorted(given)) or 'nothing'}): give start (with end or step), center "
                "(with width), or during"
            )
        return self


def _as_center(value: object) -> object:
    alone = isinstance(value, str | int | float) and not isinstance(value, bool)
    return {"center": value} if alone else value


AnyCircle = Annotated[Circle, BeforeValidator(_as_center)]


class Esperanto(Frozen):
    """The header values of an ESPERANTO frame.

    Values that are not given are taken from the frame's metadata, then from QXRD's sidecar. An error lists those that
    are missing everywhere.

    Parameters
    ----------
    encoding: of the pixels
    omega, theta, kappa, phi: the four circles; at least one is required, the others are 0
    axis: the direction of the omega axis in the raw frame, with row 0 on top; positive angles turn right-handed about
        it. Its direction after rotation and flip determines the sense of rotation in the header
    view: the raw frame as seen from the `detector`, like a camera, or from the `sample`
    wavelength: in Angstrom
    energy: of the photons in keV, instead of the wavelength
    distance: from sample to detector in mm
    pixel_size: edge of a (square) pixel in mm
    beam_center: (x, y) of the direct beam in pixels of the raw frame, (0, 0) the centre of its first pixel
    exposure: in s
    monitor: counts of a beam monitor
    alpha, beta: of the kappa goniometer, in degrees
    mask: a TIFF with the raw frame's shape, not 0 for pixels to ignore

    """

    encoding: Encoding = "AGI_BITFIELD"
    omega: AnyCircle | None = None
    theta: AnyCircle | None = None
    kappa: AnyCircle | None = None
    phi: AnyCircle | None = None
    axis: Literal["up", "down", "left", "right"] = "down"
    view: Literal["detector", "sample"] = "detector"
    wavelength: Positive | None = None
    energy: Positive | None = None
    distance: Positive | None = None
    pixel_size: Positive | None = None
    beam_center: tuple[Quantity, Quantity] | None = None
    exposure: Positive | None = None
    monitor: Quantity | None = None
    alpha: Finite = 50.0
    beta: Finite = 0.0
    mask: Annotated[str, Field(min_length=1, max_length=LONGEST_SOURCE)] | None = None

    @model_validator(mode="after")
    def _one_wavelength(self) -> Self:
        if isinstance(self.wavelength, float) and isinstance(self.energy, float):
            require_one_wavelength(self.wavelength, self.energy)
        return self

    @property
    def circles(self) -> dict[CircleName, Circle]:
        """The circles that are given."""
        every: dict[CircleName, Any] = {name: getattr(self, name) for name in CIRCLES}
        return {name: circle for name, circle in every.items() if circle is not None}

    @property
    def fields(self) -> frozenset[str]:
        """The names of all metadata fields that the header uses."""
        names = ("wavelength", "energy", "distance", "pixel_size", "exposure", "monitor")
        values: list[object] = [getattr(self, name) for name in names]
        values += self.beam_center or ()
        values += [getattr(circle, way) for circle in self.circles.values() for way in _WAYS]
        return frozenset(value for value in values if isinstance(value, str))


def require_one_wavelength(wavelength: float, energy: float) -> None:
    """Raise `ValueError` if an energy (keV) and a wavelength (Angstrom) contradict each other."""
    if abs(HC / energy - wavelength) > _SAME * wavelength:
        raise ValueError(
            f"wavelength and energy contradict each other: {wavelength:g} Angstrom, but {energy:g} keV is "
            f"{HC / energy:.6g} Angstrom"
        )
