"""The mean or median of frames, in bounded memory, and the hot pixels of a dark."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tango_server.conversion.errors import MasterUnfitError
from tango_server.conversion.image.pixels import Image
from tango_server.conversion.tiff.reader import TiffFile, open_tiff, pixel_type
from tango_server.conversion.tiff.record import read_provenance

Method = Literal["mean", "median"]

_BAND_BYTES = 256 * 2**20
"""Memory for the rows of all frames of which a median is computed at a time."""
_MAD_TO_DEVIATION = 1.4826
"""Standard deviation of a normal distribution by its median absolute deviation."""


@dataclass(frozen=True, slots=True)
class Average:
    """The average of `frames` frames from `files`: (rows, columns) of float32, in the geometry of the files."""

    image: Image
    method: Method
    frames: int
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Member:
    path: Path
    pages: int
    shape: tuple[int, int]
    pixel_type: np.dtype[Any]


def average(
    paths: Sequence[Path], method: Method = "mean", on_progress: Callable[[int, int], None] = lambda *_: None
) -> Average:
    """Return the average of all pages of TIFF files. A pixel that is NaN in one of them is NaN in a mean or median.

    A mean keeps one frame of float64 in memory; a median reads the files several times if they are many.
    `on_progress` gets how many frames were read, and how many there are to read.

    Raises
    ------
    MasterUnfitError
        if there is no file, two files differ in shape or pixel type, or one was converted already.
    SourceError
        if a file cannot be read.
    """
    members = _members(paths)
    frames = sum(member.pages for member in members)
    compute = _mean if method == "mean" else _median
    with np.errstate(invalid="ignore", over="ignore"):
        image = compute(members, frames, on_progress)
    return Average(image, method, frames, tuple(member.path for member in members))


def hot_pixels(path: Path, image: Image, sigma: float) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a mask: 1 where a pixel of the dark at `path` is not finite or above median + sigma * 1.4826 * MAD.

    MAD is the median absolute deviation from the median of all finite pixels.

    Raises
    ------
    MasterUnfitError
        if the median absolute deviation is 0, or no pixel is finite.
    """
    finite = np.isfinite(image)
    values = image[finite].astype(np.float64)
    median = np.median(values) if values.size else 0.0
    deviation = _MAD_TO_DEVIATION * np.median(np.abs(values - median)) if values.size else 0.0
    if not deviation:
        why = "more than half of its pixels are equal" if values.size else "none of its pixels is a number"
        raise MasterUnfitError(path, f"cannot find hot pixels: {why}", "Average more frames.")
    return (~finite | (image > median + sigma * deviation)).astype(np.uint8)


def _members(paths: Sequence[Path]) -> list[_Member]:
    members: list[_Member] = []
    for path in paths:
        with open_tiff(path) as source:
            _require_raw(source)
            for page in source.structure.pages:
                member = _Member(path, len(source.structure.pages), page.shape, pixel_type(page))
                _require_alike(members[0] if members else member, member)
        members.append(member)
    if not members:
        raise MasterUnfitError(Path(), "cannot average: no frames", "Name at least one file.")
    return members


def _require_raw(source: TiffFile) -> None:
    provenance = read_provenance(source.structure)
    if provenance is not None and provenance.average is None:
        raise MasterUnfitError(
            source.path, f"cannot average: not a raw frame but {provenance.summary}", "Average the raw frames."
        )


def _require_alike(first: _Member, other: _Member) -> None:
    if (first.shape, first.pixel_type) != (other.shape, other.pixel_type):
        raise MasterUnfitError(
            other.path,
            f"cannot average {_size(other)} with {_size(first)} of {first.path}",
            "Average frames of one detector and one pixel type.",
        )


def _size(member: _Member) -> str:
    rows, columns = member.shape
    return f"{rows} x {columns} pixels of {member.pixel_type.name}"


def _images(members: Sequence[_Member]) -> Iterator[Image]:
    """Yield all frames, each valid until the next."""
    for member in members:
        with open_tiff(member.path) as source:
            if len(source.structure.pages) != member.pages:
                raise MasterUnfitError(member.path, "the file changed while it was read", "Average the frames again.")
            for image in source.images():
                found = _Member(member.path, 1, image.shape, image.dtype.newbyteorder("="))
                _require_alike(members[0], found)
                yield image


def _mean(members: Sequence[_Member], frames: int, on_progress: Callable[[int, int], None]) -> Image:
    total = np.zeros(members[0].shape, np.float64)
    for number, image in enumerate(_images(members), 1):
        total += image
        on_progress(number, frames)
    total /= frames
    return total.astype(np.float32)


def _median(members: Sequence[_Member], frames: int, on_progress: Callable[[int, int], None]) -> Image:
    (rows, columns), kind = members[0].shape, members[0].pixel_type
    height = min(rows, max(1, _BAND_BYTES // (frames * columns * kind.itemsize)))
    starts = range(0, rows, height)
    result = np.empty((rows, columns), np.float32)
    read = 0
    for start in starts:
        band = np.empty((frames, min(height, rows - start), columns), kind)
        for number, image in enumerate(_images(members)):
            band[number] = image[start : start + height]
            read += 1
            on_progress(read, frames * len(starts))
        result[start : start + height] = np.median(band, axis=0, overwrite_input=True)
    return result
