"""Simulate powder rings of CeO2 on a flat panel, fast enough for fifteen frames a second."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petif_bluesky.sim.qxrd_file import PIXEL_TYPES

HC = 12398.41984
"""Planck constant times speed of light in eV Angstrom."""

_LATTICE_CONSTANT = 5.41165
_REFLECTIONS = {
    3: 1.0,
    4: 0.3,
    8: 0.6,
    11: 0.5,
    12: 0.1,
    16: 0.1,
    19: 0.25,
    20: 0.15,
    24: 0.25,
    27: 0.2,
    32: 0.1,
    35: 0.2,
    36: 0.1,
    40: 0.15,
    43: 0.1,
    44: 0.1,
}
"""Intensity of the reflections of an fcc lattice by h^2 + k^2 + l^2."""

FULL_SIZE = 2048
"""Rows and columns of the real panel."""
_DISTANCE_AT_FULL_SIZE = 500.0

_STRONGEST_RING = 3000.0
_BACKGROUND = 60.0
_AIR_SCATTER = 400.0
_READ_NOISE = 1.5
_DARK_LEVEL = 2000.0
_UINT16_MAX = 65535

_SPOT_AT = (0.8, 0.75)
"""(x, y) of the spot, in parts of width and height."""

_SAMPLES_PER_PIXEL = 4
_ROWS_AT_ONCE = 64
_LARGEST_STRAIN = 0.1
_STRAIN_PER_UNIT = 0.01

_MARK_GAIN = 8.0
_MARK_STROKES = ((0, 7, 0, 1), (0, 1, 0, 5), (3, 4, 0, 4))
"""The letter F in strokes (first row, last row, first column, last column), in stroke widths: no rotation or
flip maps an F onto itself."""


def wavelength(energy: float) -> float:
    """Return the wavelength in Angstrom of photons of `energy` eV."""
    return HC / energy


def strain(position: float) -> float:
    """Return the relative change of the ring radii at a motor position: 1 % per unit near 0, at most 10 %."""
    return _LARGEST_STRAIN * math.tanh(position * _STRAIN_PER_UNIT / _LARGEST_STRAIN)


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """Frames of one experiment; the same arguments always give the same pixels.

    Arrays shared by all frames are computed once and kept.

    Attributes
    ----------
    shape
        (H, W) in pixels.
    center
        (x, y) of the beam in pixels; (0, 0) is the centre of the first pixel.
    distance
        Distance from sample to detector in mm.
    energy
        Photon energy in eV.
    pixel_size
        Pixel size in um.
    pixel_type
        `float32`: dark-subtracted, with negative pixels; `uint16`, `uint32`: raw, including the dark level,
        with saturation in uint16.
    seed
        Seed of noise and bad pixels, not negative.
    spot
        Peak counts of a diffraction spot, as of a diamond anvil; 0 for none.

    """

    shape: tuple[int, int]
    center: tuple[float, float]
    distance: float
    energy: float
    pixel_size: float = 200.0
    pixel_type: str = "float32"
    seed: int = 0
    spot: float = 0.0

    @classmethod
    def of_panel(
        cls, shape: tuple[int, int], pixel_type: str = "float32", seed: int = 0, spot: float = 0.0
    ) -> "Pattern":
        """Return the usual pattern on a panel; the distance is scaled so that any size shows the same rings."""
        if pixel_type not in PIXEL_TYPES:
            raise ValueError(f"pixel_type must be one of {', '.join(PIXEL_TYPES)}, not {pixel_type!r}")
        height, width = shape
        return cls(
            shape=shape,
            center=(0.54 * width, 0.43 * height),
            distance=_DISTANCE_AT_FULL_SIZE * min(shape) / FULL_SIZE,
            energy=42_700.0,
            pixel_type=pixel_type,
            seed=seed,
            spot=spot,
        )

    @property
    def dtype_numpy(self) -> str:
        """The pixel type in files, as documents describe it."""
        return np.dtype(self.pixel_type).newbyteorder("<").str

    def radii(self, position: float = 0.0) -> tuple[float, ...]:
        """Return the radii in pixels of the rings that reach a flat panel, in increasing order."""
        sines = (wavelength(self.energy) * math.sqrt(n) / (2 * _LATTICE_CONSTANT) for n in _REFLECTIONS)
        scale = (1 + strain(position)) * self.distance / (self.pixel_size * 1e-3)
        return tuple(scale * math.tan(2 * math.asin(sine)) for sine in sines if sine < math.sqrt(0.5))

    def frame(self, index: int = 0, position: float = 0.0) -> NDArray[Any]:
        """Return frame number `index` as a new (H, W) array; `position` strains the rings (see `strain`)."""
        amplitudes = np.sqrt(self.profile(position))

        def signal(rows: slice) -> NDArray[np.float32]:
            amplitude: NDArray[np.float32] = np.take(amplitudes, self._radius[rows], mode="clip")
            amplitude *= self._amplitude_gain[rows]
            return amplitude

        image = self._exposed(index, signal)
        if self.spot:
            self._add_spot(image)
        pixels, values = self._bad_pixels
        image.flat[pixels] = values
        return image

    def dark(self, index: int = 0) -> NDArray[Any]:
        """Return frame number `index` with the shutter closed: noise and bad pixels, in raw types on the dark level."""
        image = self._exposed(index, lambda rows: np.zeros((rows.stop - rows.start, self.shape[1]), np.float32))
        pixels, values = self._bad_pixels
        if self.pixel_type != "float32":
            number = len(pixels) // 3
            values = values.copy()
            values[number : 2 * number] = _DARK_LEVEL
        image.flat[pixels] = values
        return image

    def _exposed(self, index: int, signal: Callable[[slice], NDArray[np.float32]]) -> NDArray[Any]:
        """Return frame number `index` with noise; `signal` gives the square root of the intensity in some rows."""
        height, width = self.shape
        start = int(np.random.default_rng((self.seed, index)).integers(self._noise.size - height * width + 1))
        noise = self._noise[start : start + height * width].reshape(self.shape)
        image = np.empty(self.shape, self.pixel_type)
        for first in range(0, height, _ROWS_AT_ONCE):
            rows = slice(first, min(first + _ROWS_AT_ONCE, height))
            image[rows] = self._digitised(_with_noise(signal(rows), noise[rows]))
        return image

    def _add_spot(self, image: NDArray[Any]) -> None:
        height, width = self.shape
        sigma = max(0.8, min(self.shape) / 400)
        x, y = round(_SPOT_AT[0] * width), round(_SPOT_AT[1] * height)
        reach = math.ceil(5 * sigma)
        rows, columns = (slice(max(0, at - reach), at + reach + 1) for at in (y, x))
        part = image[rows, columns]
        down, across = (np.arange(at.start, at.start + size) - middle
                        for at, size, middle in zip((rows, columns), part.shape, (y, x), strict=True))  # fmt: skip
        counts = part + self.spot * np.exp(-(down[:, np.newaxis] ** 2 + across**2) / (2 * sigma**2))
        image[rows, columns] = np.clip(counts, None, _UINT16_MAX if self.pixel_type == "uint16" else None)

    def profile(self, position: float = 0.0) -> NDArray[np.float32]:
        """Return the mean intensity in counts at radii of 0, 1/4, 1/2, ... pixels, before beam stop and gain."""
        size = min(self.shape)
        radius = np.arange(self._samples, dtype=np.float32) / np.float32(_SAMPLES_PER_PIXEL)
        profile = _BACKGROUND + _AIR_SCATTER * np.exp(radius / np.float32(-0.2 * size))
        width = max(0.8, size / 800)
        for ring, strength in zip(self.radii(position), _REFLECTIONS.values(), strict=False):
            near = slice(*np.searchsorted(radius, (ring - 5 * width, ring + 5 * width)))
            profile[near] += _STRONGEST_RING * strength * np.exp(-0.5 * ((radius[near] - ring) / width) ** 2)
        return profile

    def _digitised(self, counts: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return counts converted to the pixel type."""
        if self.pixel_type == "float32":
            return counts
        counts += _DARK_LEVEL
        return np.clip(counts, 0, _UINT16_MAX if self.pixel_type == "uint16" else None, out=counts)

    @property
    def _samples(self) -> int:
        height, width = self.shape
        x, y = self.center
        farthest = math.hypot(max(abs(x), abs(width - 1 - x)), max(abs(y), abs(height - 1 - y)))
        return int(farthest * _SAMPLES_PER_PIXEL) + 1

    @cached_property
    def _radius(self) -> NDArray[np.unsignedinteger]:
        """(H, W) indices into the profile, in the smallest sufficient type: memory bandwidth limits the speed."""
        x, y = self._offsets
        return (np.hypot(x, y) * _SAMPLES_PER_PIXEL).astype(np.min_scalar_type(self._samples))

    @property
    def _offsets(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Distance of each column (1, W) and row (H, 1) from the beam, in pixels."""
        height, width = self.shape
        x, y = self.center
        columns = np.arange(width, dtype=np.float32) - np.float32(x)
        rows = np.arange(height, dtype=np.float32) - np.float32(y)
        return columns[np.newaxis, :], rows[:, np.newaxis]

    @cached_property
    def _amplitude_gain(self) -> NDArray[np.float32]:
        """(H, W) factors for the square root of the intensity: brighter to the right, with a mark and a beam stop."""
        height, width = self.shape
        size = min(self.shape)
        gain = np.repeat(np.linspace(0.4, 1.6, width, dtype=np.float32)[np.newaxis], height, axis=0)
        stroke = max(1, size // 40)
        for top, bottom, left, right in _MARK_STROKES:
            gain[(1 + top) * stroke : (1 + bottom) * stroke, (1 + left) * stroke : (1 + right) * stroke] = _MARK_GAIN
        x, y = self._offsets
        disc = np.hypot(x, y) < size / 30
        arm = (np.abs(y - 0.1 * x) < size / 120) & (x < 0)
        gain[disc | arm] = 0
        return np.sqrt(gain)

    @cached_property
    def _noise(self) -> NDArray[np.float32]:
        """Normal deviates, a quarter more than pixels in a frame: each frame starts at another offset."""
        pixels = math.prod(self.shape)
        return np.random.default_rng(self.seed).standard_normal(pixels + pixels // 4, dtype=np.float32)

    @cached_property
    def _bad_pixels(self) -> tuple[NDArray[np.intp], NDArray[Any]]:
        """Flat indices and values of dead pixels, pixels whose dark current is overestimated, and hot pixels."""
        rng = np.random.default_rng((self.seed, 1))
        number = 3 + math.prod(self.shape) // 50_000
        pixels = rng.choice(math.prod(self.shape), 3 * number, replace=False)
        values = np.concatenate(
            [np.full(number, -_DARK_LEVEL), rng.uniform(-300, -10, number), rng.uniform(7e4, 2.5e5, number)]
        )
        stored = self._digitised(values.astype(np.float32))
        if self.pixel_type == "float32":
            stored[:number] = 0
        return pixels, stored.astype(self.pixel_type)


def _with_noise(amplitude: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return counts of mean amplitude^2 and standard deviation amplitude + read noise, in place of `amplitude`.

    With amplitudes, counting noise is a single multiplication, without a square root per pixel.
    """
    deviation = amplitude + np.float32(_READ_NOISE)
    deviation *= noise
    np.square(amplitude, out=amplitude)
    amplitude += deviation
    return amplitude
