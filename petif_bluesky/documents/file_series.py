"""The numbered files of a resource or stream resource."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from petif_bluesky.documents.templates import Namer
from petif_bluesky.documents.uris import tidy

MOST_FRAMES = 100_000
"""Limit per document; a higher number is an error that must not fill the memory."""


@dataclass(frozen=True, slots=True)
class FileSeries:
    """TIFF files, `count` per point; the first file of point p has the number `count` * p.

    If `count` is None, it follows from the shape in the descriptor and `frames_per_file`. `data_key` is that of a
    stream resource; a resource has none.
    """

    namer: Namer
    count: int | None = 1
    frames_per_file: int = 1
    data_key: str = ""

    def paths(self, point: int, described: Sequence[Any]) -> list[str]:
        """Return the files of a point, where `described` is the shape of the image in the descriptor.

        A two-dimensional shape is one frame (bluesky's consolidator would count its rows as frames).
        """
        count = self.count
        if count is None:
            frames = frame_count(described[0]) if len(described) > 2 else 1  # noqa: PLR2004 - rows and columns
            count = max(1, frames // self.frames_per_file)
        return [tidy(self.namer(number)) for number in range(point * count, (point + 1) * count)]


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A resource whose files are not converted."""

    reason: str
    data_key: str = ""


def frame_count(value: object) -> int:
    """Return the number of files per point; raise ValueError if it is out of range."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError(f"{value!r} files per point")
    count = int(value.__index__())
    if not 0 < count <= MOST_FRAMES:
        raise ValueError(f"{count} files per point")
    return count
