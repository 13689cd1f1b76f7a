"""The header values of one ESPERANTO frame.

Each quantity comes from the recipe; otherwise from the frame's metadata, under NeXus names; otherwise from QXRD's
sidecar or the header of the file itself. A recipe that names no circle takes the rotations of that header. Metadata
are in the unit given by their `units`, or else in that of the recipe's field.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tango_server.conversion.errors import ExperimentMissingError, ExperimentUnfitError
from tango_server.conversion.esperanto.goniometer import rotation_sense
from tango_server.conversion.esperanto.header import Angles
from tango_server.conversion.frame_header import NO_HEADER, FrameHeader
from tango_server.conversion.image.orientation import Orientation
from tango_server.recipe.esperanto import CIRCLES, HC, Circle, Esperanto, require_one_wavelength
from tango_server.units import UnknownUnitError, in_unit

UNITS = "units"
"""The key of a frame's metadata for the units of its other numbers, by name."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """The header values of one frame.

    `wavelength` in Angstrom, `distance` and `pixel_size` in mm, `beam_center` (x, y) in pixels of the raw frame with
    (0, 0) the centre of its first pixel, `exposure` in s; `start` and `end` in the header's sense of rotation.
    """

    wavelength: float
    distance: float
    pixel_size: float
    beam_center: tuple[float, float]
    exposure: float
    monitor: float
    start: Angles
    end: Angles


def experiment_of(
    source: Path,
    wanted: Esperanto,
    metadata: Mapping[str, object],
    header: FrameHeader,
    turned: Orientation,
) -> Experiment:
    """Return the header values of the frame `source`.

    Parameters
    ----------
    source: the raw frame, for messages
    wanted: the recipe's part for the header
    metadata: of the frame, with its seq_num
    header: what its file and its sidecar state
    turned: the orientation of the ESPERANTO frame relative to the raw frame

    Raises
    ------
    ExperimentMissingError
        if values are missing; it lists all of them.
    ExperimentUnfitError
        if a value is wrong: not a number, an unknown unit, a contradiction, pixels that are not square, an axis that
        CrysAlis does not support.

    """
    search = _Search(source, metadata, header)
    wavelength = search.wavelength(wanted)
    distance = search.positive("distance", wanted.distance, "mm", ("detector_distance",), header.distance)
    pixel_size = search.pixel_size(wanted)
    x, y = search.beam_center(wanted)
    exposure = search.positive("exposure", wanted.exposure, "s", ("exposure_time",), header.exposure)
    monitor = 0.0 if wanted.monitor is None else search.number("monitor", wanted.monitor, "")
    start, end = search.angles(wanted)
    search.require_all()
    sense = rotation_sense(source, wanted, turned, kappa_rests=start.kappa == end.kappa == 0)
    return Experiment(
        wavelength, distance, pixel_size, (x, y), exposure, monitor, _times(sense, start), _times(sense, end)
    )


def awaits_sidecar(source: Path, wanted: Esperanto, metadata: Mapping[str, object]) -> bool:
    """Return whether the header needs a value that only the frame's sidecar may provide."""
    try:
        experiment_of(source, wanted, metadata, NO_HEADER, _AS_PRESET)
    except ExperimentMissingError as error:
        return error.in_sidecar
    except ExperimentUnfitError:
        return False
    return False


_AS_PRESET = Orientation(transpose=False, reverse_rows=True, reverse_columns=True)
_NAN = math.nan


class _Search:
    """The search for one frame's quantities; missing ones are noted, and NaN until then."""

    def __init__(self, source: Path, metadata: Mapping[str, object], header: FrameHeader) -> None:
        self._source = source
        self._metadata = metadata
        self._header = header
        self._missing: list[str] = []
        self._in_sidecar = False
        units = metadata.get(UNITS)
        self._units: Mapping[str, object] = units if isinstance(units, Mapping) else {}

    def number(self, label: str, given: float | str, unit: str) -> float:
        """Return a number, or that of a metadata field, in `unit`."""
        if not isinstance(given, str):
            return given
        if self._metadata.get(given) is None:
            self._missing.append(f"{label} (no {given!r} in the frame's metadata)")
            return _NAN
        return self._of_field(label, given, unit)

    def positive(
        self, label: str, given: float | str | None, unit: str, names: Iterable[str], stated: float | None
    ) -> float:
        """Return the quantity `label` from the first place that has it."""
        value = stated
        if given is not None:
            value = self.number(label, given, unit)
        else:
            for name in names:
                if self._metadata.get(name) is not None:
                    value = self._of_field(label, name, unit)
                    break
        if value is None:
            self._note(label)
            return _NAN
        if value <= 0:
            raise self._unfit(f"{label} = {value:g} {unit} is not above 0", f"Correct {label}.")
        return value

    def wavelength(self, wanted: Esperanto) -> float:
        """Return the wavelength in Angstrom."""
        given = (wanted.wavelength, wanted.energy)
        if given == (None, None):
            given = (self._named("wavelength", "incident_wavelength"), self._named("energy", "incident_energy"))
            if given[0] is None and given[1] is not None and given[1] not in self._units:
                raise self._unfit(
                    f"energy: {given[1]!r} in the frame's metadata has no unit (eV or keV)",
                    "Name it in the recipe as energy, which is in keV, or give the wavelength.",
                )
        if given == (None, None):
            if self._header.wavelength is None:
                self._note("wavelength")
                return _NAN
            return self._header.wavelength
        length = None if given[0] is None else self.positive("wavelength", given[0], "Angstrom", (), None)
        energy = None if given[1] is None else self.positive("energy", given[1], "keV", (), None)
        if length is not None and energy is not None and not math.isnan(length + energy):
            try:
                require_one_wavelength(length, energy)
            except ValueError as error:
                raise self._unfit(str(error), "Omit one of them.") from error
        return length if length is not None else HC / (energy or _NAN)

    def pixel_size(self, wanted: Esperanto) -> float:
        """Return the edge of a pixel in mm."""
        size = wanted.pixel_size
        if size is None and self._named("pixel_size") is not None:
            size = "pixel_size"
        if size is not None:
            return self.positive("pixel_size", size, "mm", (), None)
        x = self.positive("pixel_size", None, "mm", ("x_pixel_size",), self._header.pixel_size_x)
        y = x
        if not math.isnan(x):
            y = self.positive("pixel_size", None, "mm", ("y_pixel_size",), self._header.pixel_size_y)
        if not math.isnan(x + y) and not math.isclose(x, y, rel_tol=1e-6):
            raise self._unfit(
                f"pixel_size: pixels of {x:g} x {y:g} mm are not square, which CrysAlis needs",
                "Bin both directions alike.",
            )
        return x

    def beam_center(self, wanted: Esperanto) -> tuple[float, float]:
        """Return the direct beam (x, y) in pixels of the raw frame."""
        given: tuple[float | str, float | str] | None = wanted.beam_center
        names = ("beam_center_x", "beam_center_y")
        if given is None and all(self._metadata.get(name) is not None for name in names):
            given = names
        if given is not None:
            x, y = (self.number(f"beam_center {axis}", value, "px") for axis, value in zip("xy", given, strict=True))
            return x, y
        found = self._header.beam_center_x, self._header.beam_center_y
        if found[0] is None or found[1] is None:
            self._note("beam_center")
            return _NAN, _NAN
        return found[0], found[1]

    def angles(self, wanted: Esperanto) -> tuple[Angles, Angles]:
        """Return the angles at the start and at the end, in the recipe's sense."""
        if not wanted.circles and self._header.rotations:
            stated = self._header.rotations
            start = Angles(**{rotation.circle: rotation.start for rotation in stated})
            return start, Angles(**{rotation.circle: rotation.end for rotation in stated})
        if not wanted.circles:
            self._missing.append("an angle (the recipe names none of " + ", ".join(CIRCLES) + ")")
        ranges = {name: self._range(name, circle) for name, circle in wanted.circles.items()}
        start = Angles(**{name: each[0] for name, each in ranges.items()})
        return start, Angles(**{name: each[1] for name, each in ranges.items()})

    def require_all(self) -> None:
        """Raise `ExperimentMissingError` if values are missing."""
        if self._missing:
            raise ExperimentMissingError(
                self._source,
                f"values are missing for the ESPERANTO header: {'; '.join(self._missing)}",
                "Give them in the recipe's esperanto, in the run's metadata or in QXRD's sidecar.",
                in_sidecar=self._in_sidecar,
            )

    def _range(self, name: str, circle: Circle) -> tuple[float, float]:
        def angle(part: str) -> float:
            return self.number(f"{name}.{part}", getattr(circle, part), "deg")

        if circle.during is not None:
            first, last = (self._during(name, circle.during, moment) for moment in ("start", "end"))
        elif circle.center is not None:
            center, half = angle("center"), angle("width") / 2 if circle.width is not None else 0.0
            first, last = center - half, center + half
        else:
            first = last = angle("start")
            if circle.end is not None:
                last = angle("end")
            elif circle.step is not None:
                step, before = angle("step"), self._frames_before(name)
                first, last = first + before * step, first + (before + 1) * step
        return circle.sign * first + circle.offset, circle.sign * last + circle.offset

    def _during(self, name: str, field: str, moment: str) -> float:
        """Return an angle that the callback has interpolated."""
        key = f"{field}:{moment}"
        if self._metadata.get(key) is None:
            self._missing.append(f"{name}.during (no readings of {field!r} around the {moment} of the exposure)")
            return _NAN
        return self._of_field(f"{name}.during", key, "deg", self._units.get(field))

    def _frames_before(self, name: str) -> float:
        number = self._metadata.get("seq_num")
        if not isinstance(number, int) or number < 1:
            self._missing.append(f"{name}.step (the frame has no seq_num to count its steps)")
            return _NAN
        if self._metadata.get("number", 0) != 0:
            raise self._unfit(
                f"{name}.step needs one frame per event, and there are several",
                "Name fields for start and end, or center and width.",
            )
        return float(number - 1)

    def _named(self, *names: str) -> str | None:
        return next((name for name in names if self._metadata.get(name) is not None), None)

    def _of_field(self, label: str, name: str, unit: str, fallback: object = None) -> float:
        """Return the number of a field in `unit`, from the unit in its metadata, else `fallback`, else `unit`."""
        value: Any = self._metadata[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._unfit(f"{label}: {name!r} is {value!r}, not a finite number", "Name another field.")
        try:
            return in_unit(float(value), str(self._units.get(name) or fallback or unit), unit)
        except UnknownUnitError as error:
            raise self._unfit(
                f"{label}: {name!r} has the unit {error.found!r}, not one of {', '.join(error.known)}",
                "Correct its unit.",
            ) from error

    def _note(self, label: str) -> None:
        self._missing.append(label)
        self._in_sidecar = True

    def _unfit(self, problem: str, advice: str) -> ExperimentUnfitError:
        return ExperimentUnfitError(self._source, problem, advice)


def _times(sense: int, angles: Angles) -> Angles:
    return Angles(*(sense * angle + 0.0 for angle in angles))
