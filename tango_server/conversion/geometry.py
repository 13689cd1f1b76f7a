"""Points and pyFAI geometries for an image that a recipe turns.

pyFAI's convention (Kieffer & Ashiotis 2013; its `Geometry.rotation_matrix`): a pixel at (p1, p2) in the detector plane
lies at R3 R2 R1 (p1 - poni1, p2 - poni2, distance), axis 1 along the rows' order, axis 2 along the columns'. Its
detector orientation (1 to 4, 3 by default) says in which corner the first pixel is.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.image.orientation import Orientation
from tango_server.recipe import Recipe

_KEPT = ("Distance", "Wavelength")
_NATIVE_ORIENTATION = 3
_REVERSED = {1: (True, True), 2: (True, False), 3: (False, False), 4: (False, True)}


class GeometryError(ValueError):
    """A geometry is invalid or incomplete; the message names the field."""


def transform_point(x: float, y: float, shape: tuple[int, int], recipe: Recipe) -> tuple[float, float]:
    """Return where the point (x, y) of an image of `shape` (rows, columns) lies in the output of `recipe`.

    Points are pixel-centre coordinates in pixels: (0, 0) is the centre of the first stored pixel, x counts columns.

    >>> transform_point(0, 0, (100, 200), Recipe(rotation=180))
    (199, 99)
    """
    return Orientation.of(recipe).point(x, y, shape)


def transform_poni(text: str, recipe: Recipe, shape: tuple[int, int] | None = None) -> str:
    """Return the text of pyFAI's `.poni` file for the output of `recipe`.

    The scattering angle of every pixel stays the same, and the azimuth turns with the image. The detector becomes a
    generic one of orientation 3, since a turned detector no longer matches its name.

    Parameters
    ----------
    text: a `.poni` file, version 1 or 2
    recipe: what turns the image
    shape: (rows, columns) of the image, if the file does not contain it (`max_shape`)

    Raises
    ------
    GeometryError
        if a field is missing or invalid.
    """
    poni = _Poni.parsed(text, shape)
    return poni.turned(Orientation.of(recipe)).text()


@dataclass(frozen=True, slots=True)
class _Poni:
    shape: tuple[int, int]
    pixel: tuple[float, float]
    orientation: int
    poni: tuple[float, float]
    rotation: NDArray[np.float64]
    kept: dict[str, str]

    @classmethod
    def parsed(cls, text: str, shape: tuple[int, int] | None) -> "_Poni":
        fields = dict(_field(line) for line in text.splitlines() if ":" in line and not line.startswith("#"))
        config = _config(fields.get("Detector_config", "{}"))
        found = shape or config.get("max_shape")
        if not found:
            raise GeometryError("max_shape is missing in the .poni file. Give the image's shape (rows, columns).")
        orientation = int(config.get("orientation") or _NATIVE_ORIENTATION)
        if orientation not in _REVERSED:
            raise GeometryError(f"Invalid detector orientation {orientation} in the .poni file: pyFAI supports 1 to 4.")
        merged = {
            **fields,
            **{f"PixelSize{axis}": config[f"pixel{axis}"] for axis in (1, 2) if f"pixel{axis}" in config},
        }
        return cls(
            shape=(int(found[0]), int(found[1])),
            pixel=(_number(merged, "PixelSize1"), _number(merged, "PixelSize2")),
            orientation=orientation,
            poni=(_number(merged, "Poni1"), _number(merged, "Poni2")),
            rotation=_rotation(*(_number(merged, f"Rot{axis}", 0.0) for axis in (1, 2, 3))),
            kept={name: fields[name] for name in _KEPT if name in fields},
        )

    def turned(self, orientation: Orientation) -> "_Poni":
        """Return the geometry of the turned image; the laboratory's transverse axes turn with it."""
        reverse_1, reverse_2 = _REVERSED[self.orientation]
        native = Orientation(transpose=False, reverse_rows=reverse_1, reverse_columns=reverse_2)  # plane to image
        whole = native.then(orientation)
        plane = np.array([self._turned_point(whole, self.poni)]).ravel()
        axes = np.eye(3)
        for column, (direction_2, direction_1) in enumerate((whole.direction(0, 1), whole.direction(1, 0))):
            axes[:2, column] = direction_1, direction_2
        pixel = self.pixel[::-1] if whole.transpose else self.pixel
        return _Poni(
            shape=whole.shape(self.shape),
            pixel=(pixel[0], pixel[1]),
            orientation=_NATIVE_ORIENTATION,
            poni=(float(plane[0]), float(plane[1])),
            rotation=axes @ self.rotation @ axes.T,
            kept=self.kept,
        )

    def _turned_point(self, whole: Orientation, point: tuple[float, float]) -> tuple[float, float]:
        """Return where a point of the detector plane (in m from the corner of the first pixel) goes."""
        indices = [place / size - 0.5 for place, size in zip(point, self.pixel, strict=True)]
        x, y = whole.point(indices[1], indices[0], self.shape)
        pixel = self.pixel[::-1] if whole.transpose else self.pixel
        return (y + 0.5) * pixel[0], (x + 0.5) * pixel[1]

    def text(self) -> str:
        config = {"pixel1": self.pixel[0], "pixel2": self.pixel[1], "max_shape": list(self.shape), "orientation": 3}
        angles = _angles(self.rotation)
        lines = [
            "# Turned by petif-bluesky. C-order: 1 refers to the y axis, 2 to the x axis",
            "poni_version: 2.1",
            "Detector: Detector",
            f"Detector_config: {json.dumps(config)}",
            *(f"{name}: {value}" for name, value in self.kept.items() if name == "Distance"),
            *(f"Poni{axis}: {value!r}" for axis, value in enumerate(self.poni, 1)),
            *(f"Rot{axis}: {value!r}" for axis, value in enumerate(angles, 1)),
            *(f"{name}: {value}" for name, value in self.kept.items() if name != "Distance"),
        ]
        return "\n".join(lines) + "\n"


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


def _config(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except ValueError as error:
        raise GeometryError(f"Detector_config in the .poni file is not valid JSON: {text!r} ({error}).") from error
    return config if isinstance(config, dict) else {}


def _number(fields: dict[str, Any], name: str, default: float | None = None) -> float:
    value = fields.get(name, default)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise GeometryError(f"{name} is not a number: {value!r}. Correct the .poni file.") from None
    if not math.isfinite(number):
        raise GeometryError(f"{name} is not finite: {value!r}. Correct the .poni file.")
    return number


def _rotation(rot1: float, rot2: float, rot3: float) -> NDArray[np.float64]:
    """Return pyFAI's R3 R2 R1 for angles in radians."""
    (c1, c2, c3), (s1, s2, s3) = np.cos([rot1, rot2, rot3]), np.sin([rot1, rot2, rot3])
    first = np.array([[1, 0, 0], [0, c1, s1], [0, -s1, c1]])
    second = np.array([[c2, 0, -s2], [0, 1, 0], [s2, 0, c2]])
    third = np.array([[c3, -s3, 0], [s3, c3, 0], [0, 0, 1]])
    return np.asarray(third @ second @ first)


def _angles(rotation: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the angles (rot1, rot2, rot3) in radians whose R3 R2 R1 is `rotation`."""
    rot1 = math.atan2(-rotation[2, 1], rotation[2, 2])
    rot2 = math.asin(min(max(rotation[2, 0], -1.0), 1.0))
    rot3 = math.atan2(rotation[1, 0], rotation[0, 0])
    return rot1, rot2, rot3
