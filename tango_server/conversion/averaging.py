"""The mean or median of frames, in bounded memory, and the hot pixels of a dark."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tango_server.conversion.combining.combine import BAND_BYTES, Combination, Frames, OnProgress, no_progress
from tango_server.conversion.errors import MasterUnfitError
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.formats import open_frame
from tango_server.conversion.frame_source import FrameSource
from tango_server.conversion.image.pixels import Image, InexactPixelsError
from tango_server.conversion.image.transform import Turning
from tango_server.recipe import Recipe

Method = Literal["mean", "median"]

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
    location: FrameLocation
    pages: int
    shape: tuple[int, int]
    pixel_type: np.dtype[Any]


def average(
    sources: Sequence[Path | FrameLocation],
    method: Method = "mean",
    on_progress: OnProgress = no_progress,
    *,
    band_bytes: int = BAND_BYTES,
) -> Average:
    """Return the average of frames, all pages of a TIFF. A pixel that is NaN or Inf in one is not a number in it.

    A mean keeps one frame of float64 in memory; a median reads the files several times if they are many.
    `on_progress` gets how many frames were read, and how many there are to read.

    Raises
    ------
    MasterUnfitError
        if there is no file, two files differ in shape or pixel type, or one was converted already.
    SourceError
        if a file cannot be read.
    """
    members = _members([each if isinstance(each, FrameLocation) else FrameLocation.of(each) for each in sources])
    first, count = members[0], sum(member.pages for member in members)
    frames = Frames(count, first.shape, first.pixel_type, lambda _: ([each] for each in _frames(members)))
    try:
        combined = Combination(method, strict=True, band_bytes=band_bytes).of(frames, on_progress)
    except InexactPixelsError as error:
        raise MasterUnfitError(
            first.location.file, f"cannot average: {error}", "Average frames of at most 32 bits."
        ) from error
    with np.errstate(over="ignore"):
        image = combined.values.astype(np.float32)
    return Average(image, method, count, tuple(dict.fromkeys(member.location.file for member in members)))


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


def _members(locations: Sequence[FrameLocation]) -> list[_Member]:
    members: list[_Member] = []
    for location in locations:
        with open_frame(location) as source:
            _require_raw(source)
            for image in source.images:
                member = _Member(location, len(source.images), image.shape, image.pixel_type)
                _require_alike(members[0] if members else member, member)
        members.append(member)
    if not members:
        raise MasterUnfitError(Path(), "cannot average: no frames", "Name at least one file.")
    return members


def _require_raw(source: FrameSource) -> None:
    provenance = source.provenance
    if provenance is not None and provenance.average is None:
        raise MasterUnfitError(
            source.location.file, f"cannot average: not a raw frame but {provenance.summary}", "Average the raw frames."
        )


def _require_alike(first: _Member, other: _Member) -> None:
    if (first.shape, first.pixel_type) != (other.shape, other.pixel_type):
        raise MasterUnfitError(
            other.location.file,
            f"cannot average {_size(other)} with {_size(first)} of {first.location}",
            "Average frames of one detector and one pixel type.",
        )


def _size(member: _Member) -> str:
    rows, columns = member.shape
    return f"{rows} x {columns} pixels of {member.pixel_type.name}"


def _frames(members: Sequence[_Member]) -> Iterator[Turning]:
    """Yield all frames in the geometry of the files, each valid until the next."""
    for member in members:
        with open_frame(member.location) as source:
            if len(source.images) != member.pages:
                raise MasterUnfitError(
                    member.location.file, "the file changed while it was read", "Average the frames again."
                )
            for image in source.read():
                found = _Member(member.location, 1, (image.shape[0], image.shape[1]), image.dtype.newbyteorder("="))
                _require_alike(members[0], found)
                yield Turning(image, Recipe(), workspace=source.workspace)
