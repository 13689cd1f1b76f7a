"""A crystal that turns in a beam, and what a detector sees of it: plain vectors, nothing of the conversion.

The laboratory: x along the beam, z up, y to the left as one looks along the beam. The motor turns the crystal
right-handedly about `axis`. The detector stands across the beam; `columns` and `rows` are the directions in which its
columns and rows go on.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Vector = np.ndarray[Any, Any]
BEAM, LEFT, UP = np.eye(3)
CELL = (4.9, 5.6, 7.1, 81.0, 97.0, 104.0)
"""a, b, c in Angstrom, alpha, beta, gamma in degrees."""
_SPOT = 0.9  # pixels
_MOSAIC = 0.35  # degrees
_STRENGTH = 3000.0


def reciprocal(cell: tuple[float, ...]) -> Vector:
    """Return the columns a*, b*, c* (1/Angstrom) of a cell, a along x."""
    a, b, c = cell[:3]
    alpha, beta, gamma = np.radians(cell[3:])
    x = (np.cos(alpha) - np.cos(beta) * np.cos(gamma)) / np.sin(gamma)
    third = [np.cos(beta), x, np.sqrt(np.sin(beta) ** 2 - x**2)]
    direct = np.array([[a, 0, 0], [b * np.cos(gamma), b * np.sin(gamma), 0], c * np.array(third)])
    return np.linalg.inv(direct)


def rotation(axis: Vector, degrees: float) -> Vector:
    """Return the matrix of a right-handed rotation (Rodrigues)."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Lengths in mm, the wavelength in Angstrom, `center` (x, y) in pixels."""

    axis: Vector
    columns: Vector
    rows: Vector
    shape: tuple[int, int] = (256, 256)
    center: tuple[float, float] = (133.3, 121.7)
    pixel: float = 0.8
    distance: float = 170.0
    wavelength: float = 0.3
    span: tuple[float, float] = (-30.0, 30.0)

    @cached_property
    def spots(self) -> Vector:
        """The spots on the detector: column, row, and the angle (degrees) at which each shines."""
        orientation = rotation(np.array([1.0, 2.0, -0.7]), 37.0)
        found = []
        grid = np.arange(-12, 13)
        for hkl in np.stack(np.meshgrid(grid, grid, grid), axis=-1).reshape(-1, 3):
            vector = orientation @ reciprocal(CELL) @ hkl
            if 0 < np.linalg.norm(vector) < 1.6:
                found += self._shining(vector)
        return np.array(found)

    def frame(self, angle: float) -> Vector:
        """Return the frame at an angle, with a background of noise."""
        rows, columns = self.shape
        image = np.random.default_rng(abs(int(1000 * angle))).normal(5, 2, self.shape)
        for x, y, shines in self.spots[np.abs(self.spots[:, 2] - angle) < 5 * _MOSAIC]:
            height = _STRENGTH * np.exp(-0.5 * ((angle - shines) / _MOSAIC) ** 2)
            across = np.exp(-0.5 * ((np.arange(columns) - x) / _SPOT) ** 2)
            along = np.exp(-0.5 * ((np.arange(rows) - y) / _SPOT) ** 2)
            image += height * np.outer(along, across)
        return image.astype(np.float32)

    def _shining(self, vector: Vector) -> list[tuple[float, float, float]]:
        """Return where and when a lattice vector meets Ewald's sphere: twice, or never."""
        beyond = np.cross(self.axis, BEAM)
        p, q = vector @ BEAM, vector @ beyond
        length = np.hypot(p, q)
        wanted = -(vector @ vector) * self.wavelength / 2
        if length <= abs(wanted):
            return []
        found = []
        for sign in (1, -1):  # p cos w - q sin w = wanted
            angle = np.degrees(sign * np.arccos(wanted / length) - np.arctan2(q, p))
            angle = (angle + 180) % 360 - 180
            ray = BEAM / self.wavelength + rotation(self.axis, angle) @ vector
            place = self.distance * ray / ray[0] if ray[0] > 0 else None
            if place is None or not self.span[0] < angle < self.span[1]:
                continue
            x = self.center[0] + place @ self.columns / self.pixel
            y = self.center[1] + place @ self.rows / self.pixel
            if 6 < x < self.shape[1] - 7 and 6 < y < self.shape[0] - 7:
                found.append((x, y, angle))
        return found
