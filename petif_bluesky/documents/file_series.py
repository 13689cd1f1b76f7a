"""Files of one resource or stream resource, numbered by the points that a detector has taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from petif_bluesky.documents.templates import Namer
from petif_bluesky.documents.uris import tidy

MOST_FRAMES = 100_000
"""Of one document; more is a mistake in it, which must not fill the memory."""


@dataclass(frozen=True, slots=True)
class FileSeries:
    """TIFF files: `count` of them for each point, numbered from `count` times the number of the point.

    With `count` None that depends on how the descriptor describes the image, and on `frames_per_file`. `data_key`: that
    of a stream resource; a resource is known by its datums.
    """

    namer: Namer
    count: int | None = 1
    frames_per_file: int = 1
    data_key: str = ""

    def paths(self, point: int, described: Sequence[Any]) -> list[str]:
        """Return the files of a point of an image that the descriptor describes with the shape `described`.

        A shape of two dimensions is one frame. (bluesky's consolidator takes its rows for frames.)
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
    """Return how many files belong to one point; raise ValueError if that is no sensible number."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError(f"{value!r} files for a point")
    count = int(value.__index__())
    if not 0 < count <= MOST_FRAMES:
        raise ValueError(f"{count} files for a point")
    return count
