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
_WINDOW = 6  # pixels around a spot; beyond them it is weaker than the noise
_MOSAIC = 0.5  # degrees
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
        """The spots on the detector: column, row, and the angle (degrees) at which each shines.

        A lattice vector v meets Ewald's sphere where p cos w - q sin w = -v.v wavelength / 2: twice, or never.
        """
        grid = np.arange(-12, 13)
        hkl = np.stack(np.meshgrid(grid, grid, grid), axis=-1).reshape(-1, 3)
        vectors = hkl @ (rotation(np.array([1.0, 2.0, -0.7]), 37.0) @ reciprocal(CELL)).T
        lengths = np.linalg.norm(vectors, axis=1)
        vectors = vectors[(lengths > 0) & (lengths < 1.6)]
        p, q = vectors @ BEAM, vectors @ np.cross(self.axis, BEAM)
        ratio = -(vectors**2).sum(axis=1) * self.wavelength / 2 / np.hypot(p, q)
        meets = abs(ratio) < 1
        vectors, half, middle = vectors[meets], np.arccos(ratio[meets]), np.arctan2(q, p)[meets]
        found = [self._on_the_detector(vectors, np.degrees(sign * half - middle)) for sign in (1, -1)]
        return np.concatenate(found)

    def frame(self, angle: float) -> Vector:
        """Return the frame at an angle, with a background of noise."""
        image = np.random.default_rng(abs(int(1000 * angle))).normal(5, 2, self.shape)
        reach = np.arange(-_WINDOW, _WINDOW + 1)
        for x, y, shines in self.spots[np.abs(self.spots[:, 2] - angle) < 5 * _MOSAIC]:
            height = _STRENGTH * np.exp(-0.5 * ((angle - shines) / _MOSAIC) ** 2)
            columns, rows = round(x) + reach, round(y) + reach
            across = np.exp(-0.5 * ((columns - x) / _SPOT) ** 2)
            along = np.exp(-0.5 * ((rows - y) / _SPOT) ** 2)
            image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] += height * np.outer(along, across)
        return image.astype(np.float32)

    def _on_the_detector(self, vectors: Vector, angles: Vector) -> Vector:
        """Return where and when lattice vectors shine that meet Ewald's sphere at angles (degrees)."""
        angles = (angles + 180) % 360 - 180
        axis, turn = self.axis / np.linalg.norm(self.axis), np.radians(angles)[:, None]
        along = np.outer(vectors @ axis, axis)
        turned = along + (vectors - along) * np.cos(turn) + np.cross(axis, vectors) * np.sin(turn)  # Rodrigues
        rays = BEAM / self.wavelength + turned
        places = self.distance * rays / rays[:, :1]
        x = self.center[0] + places @ self.columns / self.pixel
        y = self.center[1] + places @ self.rows / self.pixel
        rows, columns = self.shape
        inside = (x > 6) & (x < columns - 7) & (y > 6) & (y < rows - 7)
        inside &= (rays[:, 0] > 0) & (self.span[0] < angles) & (angles < self.span[1])
        return np.stack([x, y, angles], axis=1)[inside]
