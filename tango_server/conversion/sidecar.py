"""QXRD's text sidecar (`name.tif.metadata`), copied with the image that it describes.

Width, height, beam centre, pixel sizes and tilt plane rotation are turned with the image, and after subtracting a dark
the data type says so; every other byte stays.
The tilt plane rotation is an angle in degrees from +x towards +y of the stored image: QXRD measures along
(cos, sin) of it (`getTwoTheta` in its detector geometry), so it turns as a direction does.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from tango_server.conversion.errors import ConversionError, SourceUnreadableError
from tango_server.conversion.files.atomic_write import Attempt, publish, write_parts
from tango_server.conversion.files.frame_file import open_frame_file
from tango_server.conversion.files.ownership import ownership_of
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.frame_header import FrameHeader
from tango_server.conversion.frame_source import FrameSource
from tango_server.conversion.image.orientation import AS_STORED, Orientation
from tango_server.conversion.new_sidecar import sidecar_text
from tango_server.conversion.tiff.parser import read_structure
from tango_server.conversion.tiff.record import read_provenance
from tango_server.recipe import Recipe
from tango_server.recipe.esperanto import HC

ENCODING = "latin-1"
_LINE_ENDS = "\r\n"
_TROUBLE = "the sidecar could not be copied: "
_LARGEST = 2**20  # bytes; QXRD writes some four thousand
_UM = 1e-3  # mm
_SUBTRACTED = {("[metadata]", "dataType"): "5", ("[metadata]", "dataTypeName"): "Subtracted Data"}
"""As QXRD writes it for a frame whose dark is off."""
_SUBTRACTED_WORD = "subtracted"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A complete sidecar: its text, and the values in it that we use."""

    text: str
    header: FrameHeader


def sidecar_path(image: Path) -> Path:
    """Return the path of the sidecar that QXRD writes for an image."""
    return image.with_name(image.name + ".metadata")


def read_sidecar(image: Path, roots: Roots = ANYWHERE) -> Sidecar | None:
    """Return the complete sidecar of an image; None if it is missing, unfinished or in another format.

    Raises
    ------
    OutsideRootsError
        if there are read roots, and it is a symbolic link to somewhere else.
    SourceUnreadableError
        if it is larger than any sidecar of QXRD.
    """
    path = sidecar_path(image)
    try:
        with BufferedReader(open_frame_file(path, roots)) as file:
            text = file.read(_LARGEST + 1).decode(ENCODING)
    except OSError:  # a sidecar may be absent for any reason
        return None
    if len(text) > _LARGEST:
        raise SourceUnreadableError(
            path, f"too large for a QXRD sidecar (more than {_LARGEST} bytes)", "Check what wrote it; it was not used."
        )
    if "[metadata]" not in text or not text.endswith("\n"):
        return None
    return Sidecar(text, _header_in(text))


def header_of(source: FrameSource, roots: Roots = ANYWHERE) -> FrameHeader:
    """Return what the sidecar of a frame and the file itself state; raises as `read_sidecar` does.

    Without its sidecar, a frame of QXRD counts as raw if it has integers; for one of floats, `dark_is_off` is None.
    """
    own, sidecar = source.header, read_sidecar(source.location.file, roots)
    if sidecar is not None:
        found = sidecar.header.or_else(own)
        return replace(found, dark_is_off=own.dark_is_off or sidecar.header.dark_is_off)
    floats = source.images[0].pixel_type.kind == "f"
    if source.state.sidecar_expected and floats and not own.dark_is_off:
        return replace(own, dark_is_off=None)
    return own


def _header_in(text: str) -> FrameHeader:
    numbers, taken = _numbers(text), _numbers(text, "[metadata]")
    energy = numbers.get("energy", 0.0)
    return FrameHeader.stated(
        exposure=taken.get("exposureTime", 0.0) * taken.get("summedExposures", 1.0),
        summed=taken.get("summedExposures"),
        wavelength=HC / (energy / 1000) if energy > 0 else None,
        distance=numbers.get("detectorDistance"),
        beam_center_x=numbers.get("centerX"),
        beam_center_y=numbers.get("centerY"),
        pixel_size_x=numbers.get("detectorXPixelSize", 0.0) * _UM,
        pixel_size_y=numbers.get("detectorYPixelSize", 0.0) * _UM,
        gain=taken.get("cameraGain"),
        dark_is_off=_SUBTRACTED_WORD in _text_of(text, "dataTypeName").casefold(),
    )


def _text_of(text: str, wanted: str) -> str:
    found = (value for key, value in map(_setting, text.splitlines()) if key == wanted)
    return next(found, "").strip()


def carry_sidecar(
    source: Path,
    output: Path,
    recipe: Recipe,
    token: str,
    roots: Roots = ANYWHERE,
    *,
    values: Mapping[tuple[str, str], str] = MappingProxyType({}),
) -> Literal["carried", "absent"]:
    """Write the complete sidecar of `source` for `output`, turned with the image. It may be absent or damaged.

    `values` are new values, by section and key.

    Raises
    ------
    ConversionError
        if the source cannot be read, or the sidecar cannot be written.
    """
    sidecar = read_sidecar(source, roots)
    if sidecar is None:
        return "absent"
    pages = read_structure(source, roots).pages
    if not pages:  # it is being written again
        return "absent"
    page = pages[0]
    turned = page.orientation.then(Orientation.of(recipe))
    replaced = {**values, **(_SUBTRACTED if recipe.corrections and _is_subtracted(output, roots) else {})}
    text = turned_text(sidecar.text, turned, page.shape, replaced).encode(ENCODING)
    publish(sidecar_path(output), write_parts([text]), Attempt(token, ownership=ownership_of(recipe, source)), roots)
    return "carried"


def write_sidecar(
    source: FrameSource, output: Path, recipe: Recipe, token: str, roots: Roots
) -> Literal["carried", "absent"]:
    """Write a sidecar for `output` from what the detector states in the file itself, if it states anything.

    Raises
    ------
    ConversionError
        if it cannot be written.
    """
    image = source.images[0]
    text = sidecar_text(source.header, image.stored.then(Orientation.of(recipe)), image.shape)
    if not text:
        return "absent"
    attempt = Attempt(token, ownership=ownership_of(recipe, source.location.file))
    publish(sidecar_path(output), write_parts([text.encode(ENCODING)]), attempt, roots)
    return "carried"


def sidecar_error(error: ConversionError) -> str:
    """Return the reason for the report of a converted frame whose sidecar could not be copied."""
    return f"{_TROUBLE}{error}"


def is_sidecar_error(reason: str) -> bool:
    """Whether the reason of a converted frame contains that of `sidecar_error`."""
    return _TROUBLE in reason


def without_sidecar_error(reason: str) -> str:
    """Return the reason of a converted frame without the sidecar error at its end.

    >>> without_sidecar_error("the exposure of the dark is unknown. the sidecar could not be copied: the disk is full")
    'the exposure of the dark is unknown.'
    """
    return reason.partition(_TROUBLE)[0].rstrip()


def _is_subtracted(output: Path, roots: Roots) -> bool:
    """Whether a dark was subtracted from an output that we wrote."""
    provenance = read_provenance(read_structure(output, roots.outputs))
    return provenance is not None and any(master.kind == "dark" for master in provenance.masters)


def turned_text(
    text: str,
    orientation: Orientation,
    shape: tuple[int, int],
    values: Mapping[tuple[str, str], str] = MappingProxyType({}),
) -> str:
    r"""Return the text of the sidecar after turning its image of `shape` (rows, columns).

    `values` are other new values, by section and key.

    >>> from tango_server.recipe import Recipe
    >>> text = "[centerfinder]\ncenterX=3\ncenterY=1\ntiltPlaneRotation=30\n"
    >>> print(turned_text(text, Orientation.of(Recipe(rotation=90)), (10, 20)), end="")
    [centerfinder]
    centerX=1
    centerY=16
    tiltPlaneRotation=300
    """
    if orientation == AS_STORED and not values:
        return text
    replaced = {**_replacements(_numbers(text), orientation, shape), **values} if orientation != AS_STORED else values
    section = ""
    lines = []
    for line in text.splitlines(keepends=True):
        if line.startswith("["):
            section = line.strip()
        key, value = _setting(line)
        new = replaced.get((section, key))
        lines.append(line if new is None else f"{key}={new}{value[len(value.rstrip(_LINE_ENDS)) :]}")
    return "".join(lines)


def _replacements(
    numbers: dict[str, float], orientation: Orientation, shape: tuple[int, int]
) -> dict[tuple[str, str], str]:
    rows, columns = orientation.shape(shape)
    result = {("[metadata]", "width"): str(columns), ("[metadata]", "height"): str(rows)}

    def put(names: tuple[str, ...], turn: Callable[..., tuple[float, ...]]) -> None:
        if all(name in numbers for name in names):
            values = turn(*(numbers[name] for name in names))
            result.update(
                {("[centerfinder]", name): f"{value:.10g}" for name, value in zip(names, values, strict=True)}
            )

    put(("centerX", "centerY"), lambda x, y: orientation.point(x, y, shape))
    put(("detectorXPixelSize", "detectorYPixelSize"), lambda x, y: (y, x) if orientation.transpose else (x, y))
    put(("tiltPlaneRotation",), lambda angle: (turned_angle(angle, orientation),))
    return result


def turned_angle(degrees: float, orientation: Orientation) -> float:
    """Return an angle from +x towards +y after turning the image, in [0, 360)."""
    x, y = orientation.direction(math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
    return round(math.degrees(math.atan2(y, x)), 9) % 360


def _numbers(text: str, wanted: str = "[centerfinder]") -> dict[str, float]:
    """Return the numbers of a section."""
    numbers = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip()
        key, text_of_value = _setting(line)
        if key and section == wanted:
            try:
                value = float(text_of_value)
            except ValueError:
                continue
            if math.isfinite(value):
                numbers[key] = value
    return numbers


def _setting(line: str) -> tuple[str, str]:
    """Return the key of a line and the rest after its `=`, with the line end; an empty key for other lines."""
    key, equals, value = line.partition("=")
    return (key.rstrip(), value) if equals and not {"[", ";"}.intersection(key) else ("", "")
