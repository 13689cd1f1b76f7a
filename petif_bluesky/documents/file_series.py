"""Files of one resource, numbered by the points that a detector has taken."""

from dataclasses import dataclass

from petif_bluesky.documents.templates import Namer
from petif_bluesky.documents.uris import tidy

MOST_FRAMES = 100_000
"""Of one document; more is a mistake in it, which must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Series:
    """TIFF files: `count` of them for each point, numbered from `count` times the number of the point."""

    namer: Namer
    count: int = 1

    def paths(self, point: int) -> list[str]:
        """Return the files of a point."""
        return [tidy(self.namer(number)) for number in range(point * self.count, (point + 1) * self.count)]


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
