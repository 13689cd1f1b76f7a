"""What an HDF5 file states about a frame: NeXus, Dectris' masters, areaDetector's NeXus files.

A length without a unit is in m, and a beam centre without one in pixels, as Dectris writes them; with a pixel size of
1 mm or more by that rule, it is in mm, and the beam centre unknown.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from tango_server.conversion.frame_header import FrameHeader, Rotation
from tango_server.conversion.hdf5.detector import Description, group
from tango_server.conversion.hdf5.links import Place
from tango_server.conversion.hdf5.open_files import OpenFiles
from tango_server.conversion.hdf5.stack import Stack
from tango_server.conversion.hdf5.values import numbers, text, unit

Units = Mapping[str, float]
_KEV_ANGSTROM = 12.398419843320026
_SECONDS = {"": 1.0, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_MILLIMETRES = {"m": 1e3, "mm": 1.0, "um": 1e-3, "µm": 1e-3, "micron": 1e-3, "microns": 1e-3, "nm": 1e-6, "cm": 10.0,
                "metre": 1e3, "meter": 1e3}  # fmt: skip
_ANGSTROM = {"": 1.0, "a": 1.0, "å": 1.0, "angstrom": 1.0, "angstroms": 1.0, "nm": 10.0, "m": 1e10, "pm": 1e-2}
_KEV = {"kev": 1.0, "ev": 1e-3, "mev": 1e3}
_DEGREES = {"": 1.0, "deg": 1.0, "degree": 1.0, "degrees": 1.0, "rad": 180 / np.pi, "radian": 180 / np.pi}
_PIXELS = frozenset({"pixel", "pixels", "px"})
_CIRCLES = ("omega", "theta", "kappa", "phi")
_GONIOMETERS = (
    "sample/goniometer",
    "sample/transformations",
    "sample/sample_{}",
    "data",
    "instrument/detector/goniometer",
)
_MILLIMETRE = 1e-3  # in m
_TIME = re.compile(r"(\d{4})[-:](\d\d)[-:](\d\d)[T ](\d\d):(\d\d):(\d\d)")


class Values:
    """The values of one frame: a data set has one for all frames, or one for each."""

    def __init__(self, files: OpenFiles, described: Description, frame: int) -> None:
        self._files = files
        self.described = described
        self._frame = frame

    def number(self, place: Place, name: str, units: Units | None = None, without: str = "") -> float | None:
        """Return the number of the frame, times the factor of its unit; `without` is the unit if it states none."""
        found = numbers(self._files, place, name)
        if not found.size or (found.size > 1 and found.size <= self._frame):
            return None
        value = float(found[0 if found.size == 1 else self._frame])
        factor = 1.0 if units is None else units.get(unit(self._files, place, name) or without)
        return None if factor is None or not math.isfinite(value) else value * factor

    def first(
        self, places: Iterable[Place], names: Iterable[str], units: Units | None = None, without: str = ""
    ) -> float | None:
        """Return the first number above 0 of several places."""
        names = tuple(names)
        found = (self.number(place, name, units, without) for place in places for name in names)
        return next((value for value in found if value is not None and value > 0), None)

    def rotation(self, place: Place, circle: str) -> Rotation | None:
        """Return a circle during the frame, if a group states it.

        NeXus has a value for each frame, with an end or an increment; older masters of Dectris the start of the series.
        """
        start, end = (self.number(place, circle + suffix, _DEGREES) for suffix in ("", "_end"))
        steps = (self.number(place, circle + suffix, _DEGREES) for suffix in ("_increment", "_range_average"))
        step = next((each for each in steps if each is not None), 0.0)
        if start is None:
            start, end = self.number(place, f"{circle}_start", _DEGREES), None
            if start is None:
                return None
            start += self._frame * step
        return Rotation(circle, start, start + step if end is None else end)

    def below(self, *names: str) -> list[Place]:
        """Return those groups of the entry that exist."""
        found = (group(self._files, self.described.entry, name) for name in names)
        return [each for each in found if each]


def header_of(files: OpenFiles, described: Description, stack: Stack, frame: int, *, masked: bool) -> FrameHeader:
    """Return what a file states about one of its frames; `masked`: whether it has a `pixel_mask`."""
    values = Values(files, described, frame)
    detectors = described.detectors
    length = "m" if _in_metres(values) else "mm"
    size_x, size_y = (values.first(detectors, (f"{axis}_pixel_size",), _MILLIMETRES, length) for axis in ("x", "y"))
    return FrameHeader.stated(
        detector=described.name,
        exposure=values.first(detectors, ("count_time", "exposure_time"), _SECONDS),
        wavelength=_wavelength(values),
        distance=values.first(detectors, ("distance", "detector_distance"), _MILLIMETRES, length),
        beam_center_x=_center(values, "x", size_x, length),
        beam_center_y=_center(values, "y", size_y, length),
        pixel_size_x=size_x,
        pixel_size_y=size_y,
        saturation=_saturation(values, stack, masked=masked),
        rotations=tuple(_rotations(values)),
        taken=_taken(files, described),
    )


def lost_frames(files: OpenFiles, described: Description, frame: int) -> str:
    """Return a note on frames that areaDetector lost before this one, by its numbers; empty without."""
    for place in ("instrument/NDAttributes/NDArrayUniqueId", "instrument/detector/NDAttributes/NDArrayUniqueId"):
        found = numbers(files, described.entry, place)
        if 0 < frame < found.size:
            before, now = found[frame - 1 : frame + 1].tolist()
            if np.isfinite(before) and np.isfinite(now) and now != before + 1:
                return f"NDArrayUniqueId is {now:.0f} after {before:.0f}: frames were lost before this one"
    return ""


def _in_metres(values: Values) -> bool:
    """Whether lengths without a unit are in m, by the pixel size."""
    size = values.first(values.described.detectors, ("x_pixel_size",), {"": 1.0} | _MILLIMETRES)
    return size is None or size < _MILLIMETRE


def _center(values: Values, axis: str, pixel_size: float | None, length: str) -> float | None:
    name = f"beam_center_{axis}"
    for place in values.described.detectors:
        pixels = values.number(place, name, dict.fromkeys(_PIXELS, 1.0), "pixel" if length == "m" else "?")
        if pixels is not None:
            return pixels
        distance = values.number(place, name, _MILLIMETRES, "?")
        if distance is not None and pixel_size:
            return distance / pixel_size
    return None


def _wavelength(values: Values) -> float | None:
    beams = values.below("instrument/beam", "sample/beam", "instrument/monochromator")
    found = values.first(beams, ("incident_wavelength", "wavelength"), _ANGSTROM)
    if found is None:
        of_detector = ("photon_energy", "detectorSpecific/photon_energy", "beam_energy")
        energy = values.first(beams, ("incident_energy", "energy"), _KEV, "ev")
        energy = energy or values.first(values.described.detectors, of_detector, _KEV, "ev")
        found = _KEV_ANGSTROM / energy if energy else None
    return found


def _saturation(values: Values, stack: Stack, *, masked: bool) -> float | None:
    """Return the lowest limit: the stated one, or what the detector's number of bits can hold."""
    detectors = values.described.detectors
    cutoff = "countrate_correction_count_cutoff"
    stated = values.first(detectors, ("saturation_value",)) or values.first(
        detectors, (f"detectorSpecific/{cutoff}", f"detectorSpecific/detectorModule_000/{cutoff}")
    )
    limits = [stated] if stated else []
    if values.described.dectris and stack.pixel_type.kind in "ui":
        bits = values.first(detectors, ("bit_depth_image", "detectorSpecific/bit_depth_image"))
        if bits and bits < 8 * stack.pixel_type.itemsize and bits == int(bits):
            limits.append(float(2 ** int(bits) - 1))
        elif masked and not limits and stack.pixel_type.kind == "u":
            limits.append(float(np.iinfo(stack.pixel_type).max))
    return min(limits, default=None)


def _rotations(values: Values) -> Iterator[Rotation]:
    for circle in _CIRCLES:
        for place in values.below(*(each.format(circle) for each in _GONIOMETERS)):
            found = values.rotation(place, circle)
            if found:
                yield found
                break


def _taken(files: OpenFiles, described: Description) -> str:
    stated = [text(files, described.entry, name) for name in ("start_time", "data/start_time")]
    stated += [text(files, each, "detectorSpecific/data_collection_date") for each in described.detectors]
    for each in stated:
        found = _TIME.match(each)
        if found:
            return "{}:{}:{} {}:{}:{}".format(*found.groups())
    return ""
