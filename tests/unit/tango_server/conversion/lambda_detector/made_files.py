"""Files of Lambda modules, as P02.2's detector writes them, small."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tango_server.conversion.hdf5.open_files import close_all

DETECTOR = "entry/instrument/detector"
SHAPE = (8, 12)
Array = np.ndarray[Any, Any]
VALUES: dict[str, Any] = {
    "description": b"Lambda",
    "count_time": 100.0,
    "saturation_value": np.uint32(4095),
    "x_pixel_size": 55.0,
    "y_pixel_size": 55.0,
    "collection/beam_energy": 12_000.0,
}
UNITS = {"count_time": "millisecond", "x_pixel_size": "micrometer", "collection/beam_energy": "eV"}


def frames_of(number: int, count: int = 3, shape: tuple[int, int] = SHAPE, kind: str = "int16") -> Array:
    """Return frames whose values tell module, frame and pixel."""
    pixels = np.arange(count * shape[0] * shape[1]).reshape(count, *shape)
    return ((1000 * number + pixels) % 30_000).astype(kind)


def write_module(
    path: Path, frames: Array, corner: tuple[float, float] | None = (0, 0), mask: Array | None = None, **layout: Any
) -> Path:
    """Write a file; `layout` goes to h5py, by default one frame a chunk, gzip."""
    close_all()  # h5py writes no file that it reads in this process
    with h5py.File(path, "w") as file:
        detector = file.create_group(DETECTOR)
        stored = {"chunks": (1, *frames.shape[1:]), "compression": "gzip", **layout}
        detector.create_dataset("data", data=frames, **stored)
        detector["sequence_number"] = np.arange(1, len(frames) + 1, dtype=np.int32)
        detector["flatfield"] = np.full((1, *frames.shape[1:]), np.nan, np.float32)
        detector["flatfield_applied"] = np.int8([0])
        if mask is not None:
            detector["pixel_mask"] = mask[np.newaxis].astype(np.uint32)
        if corner is not None:
            detector["translation/distance"] = np.float32([*corner, 0])
            detector["translation/distance"].attrs["units"] = "pixel"
        for name, value in VALUES.items():
            detector[name] = np.array([value])
            if name in UNITS:
                detector[name].attrs["units"] = UNITS[name]
    return path


def change(path: Path, name: str, value: Any) -> None:
    """Replace a data set; None deletes it."""
    close_all()
    with h5py.File(path, "r+") as file:
        detector = file[DETECTOR]
        if name in detector:
            del detector[name]
        if value is not None:
            detector[name] = value


def write_detector(folder: Path, count: int = 3, frames: int = 3, name: str = "scan_m{}.nxs") -> Path:
    """Write modules below each other, two rows apart, the first two columns to the right; return the first file."""
    for number in range(1, count + 1):
        mask = np.zeros(SHAPE, np.uint32)
        mask[number, :2] = [1, 2**31]
        corner = (0 if number == 1 else -2, (number - 1) * (SHAPE[0] + 2))
        write_module(folder / name.format(number), frames_of(number, frames), corner, mask)
    return folder / name.format(1)
