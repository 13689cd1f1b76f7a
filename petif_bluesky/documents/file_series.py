"""Where the frames of a resource or stream resource are: in files of their own, or several in one file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from petif_bluesky.documents.templates import Namer
from petif_bluesky.documents.uris import tidy

MOST_FRAMES = 100_000
"""Limit per document; a higher number is an error that must not fill the memory."""
NO_POINT = -1
"""The point of a datum that states none."""

DatumPoint = int | tuple[int, int]
"""The point of a datum or the index of a stream datum; for one image of an Eiger, its sequence and the image in it."""

_FRAME_AXES = 3
"""Frames, rows, columns."""


class FramePlace(NamedTuple):
    """A file, with `::/data/set` if the documents name one, and for one of several frames its index in it."""

    path: str
    frame: int | None = None


@dataclass(frozen=True, slots=True)
class FileSeries:
    """Numbered files, `count` per point; the first file of point p has the number `first` + `count` * p.

    If `count` is None, it follows from the shape in the descriptor and `frames_per_file`. `data_key` is that of a
    stream resource; a resource has none. `indexed`: how many frames each HDF5 file has, None if that follows from the
    shape; 0 for files of other formats, whose frames have no index.
    """

    namer: Namer
    count: int | None = 1
    frames_per_file: int = 1
    data_key: str = ""
    first: int = 0
    data_set: str = ""
    indexed: int | None = 0

    def places(self, point: DatumPoint, described: Sequence[Any]) -> list[FramePlace]:
        """Return the frames of a point, where `described` is the shape of the image in the descriptor.

        A two-dimensional shape is one frame (bluesky's consolidator would count its rows as frames).
        """
        count = self.count
        if count is None:
            count = max(1, _frames_in(described) // self.frames_per_file)
        start = self.first + max(_number(point), 0) * count
        files = [_in_file(tidy(self.namer(number)), self.data_set) for number in range(start, start + count)]
        if self.indexed == 0:
            return [FramePlace(file) for file in files]
        each = self.indexed or max(1, _frames_in(described) // count)
        return [FramePlace(file, index) for file in files for index in range(each)]

    def fits(self, described: Sequence[Any]) -> bool:
        """Return whether the described images are frames; for files of their own, this is left to the server."""
        return self.indexed == 0 or _is_of_frames(described)


@dataclass(frozen=True, slots=True)
class FrameStack:
    """One file with the frames of many points: those of point p are `count` * p to `count` * (p + 1) - 1.

    If `count` is None, it follows from the shape in the descriptor. `chunk_axes` is the number of axes of a chunk, 0 if
    unknown.
    """

    file: str
    data_set: str = ""
    count: int | None = 1
    data_key: str = ""
    chunk_axes: int = 0

    def places(self, point: DatumPoint, described: Sequence[Any]) -> list[FramePlace]:
        """Return the frames of a point, where `described` is the shape of the image in the descriptor."""
        number, count = _number(point), _frames_in(described) if self.count is None else self.count
        if number == NO_POINT:
            raise ValueError(f"the datum of {self.file} has no point_number, so its frames in the file are unknown")
        path = _in_file(self.file, self.data_set)
        return [FramePlace(path, index) for index in range(number * count, (number + 1) * count)]

    def fits(self, described: Sequence[Any]) -> bool:
        """Return whether the described images are frames; in two dimensions, they may be spectra, one in each row."""
        return _is_of_frames(described) and (len(described) == _FRAME_AXES or self.chunk_axes != len(described))


@dataclass(frozen=True, slots=True)
class EigerMasters:
    """The master files of an Eiger, one for each sequence: `{prefix}_{sequence}_master.h5`.

    `sequence` is None if each datum names its own. A datum without an image means all images of the event.
    """

    prefix: str
    sequence: int | None = None
    data_key: str = ""

    def places(self, point: DatumPoint, described: Sequence[Any]) -> list[FramePlace]:
        """Return the frames of a point, where `described` is the shape of the image in the descriptor."""
        number, image = point if isinstance(point, tuple) else (point, None)
        sequence = number if self.sequence is None else self.sequence
        if sequence == NO_POINT:
            raise ValueError(f"the datum of {self.prefix} has no seq_id, so its master file is unknown")
        path = tidy(f"{self.prefix}_{sequence}_master.h5")
        indices = range(_frames_in(described)) if image is None else [image]
        return [FramePlace(path, index) for index in indices]

    def fits(self, described: Sequence[Any]) -> bool:
        """Return whether the described images are frames."""
        return _is_of_frames(described)


FrameFiles = FileSeries | FrameStack | EigerMasters


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A resource whose files are not converted."""

    reason: str
    data_key: str = ""


def frame_count(value: object) -> int:
    """Return the number of files or frames per point; raise ValueError if it is out of range."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError(f"{value!r} frames per point")
    count = int(value.__index__())
    if not 0 < count <= MOST_FRAMES:
        raise ValueError(f"{count} frames per point")
    return count


def _frames_in(described: Sequence[Any]) -> int:
    return frame_count(described[0]) if len(described) >= _FRAME_AXES else 1


def _is_of_frames(described: Sequence[Any]) -> bool:
    """Return whether a shape is (frames, rows, columns) or (rows, columns)."""
    sides = described[-2:]
    return len(described) in {2, _FRAME_AXES} and all(hasattr(side, "__index__") and side > 0 for side in sides)


def _number(point: DatumPoint) -> int:
    return point[0] if isinstance(point, tuple) else point


def _in_file(file: str, data_set: str) -> str:
    return f"{file}::{data_set}" if data_set else file
