"""The data files of an Eiger: the links `data_000001`, `data_000002`, ... of its master are one stack.

A file that is missing keeps its frame numbers, which follow from `image_nr_low` of the others, or from their lengths;
from the lengths alone where these numbers contradict each other.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

from tango_server.conversion.errors import IncompleteFileError, SourceUnreadableError
from tango_server.conversion.hdf5.links import WAIT, Place, child
from tango_server.conversion.hdf5.open_files import OpenFiles
from tango_server.conversion.hdf5.stack import MOST_FRAMES, Stack, stack_of
from tango_server.conversion.hdf5.values import attribute, numbers
from tango_server.text import counted

_AXES = ("frame", "threshold", "y", "x")


@dataclass(frozen=True, slots=True)
class Part:
    """Frames `first` to `first + length - 1` of the series: in a `stack`, or missing or damaged: the `problem`."""

    first: int | None
    length: int
    stack: Stack | None = None
    problem: IncompleteFileError | SourceUnreadableError | None = None

    def holds(self, frame: int) -> bool:
        """Whether a frame of the series is one of these."""
        return self.first is not None and 0 <= frame - self.first < self.length


@dataclass(frozen=True, slots=True)
class Series:
    """The frames behind the links with these `names` in a group; `planned`: their number, 0 if unknown."""

    group: Place
    names: tuple[str, ...]
    threshold: int | None
    planned: int = 0

    def locate(self, files: OpenFiles, frame: int) -> tuple[Stack, int]:
        """Return the data set that has a frame of the series, and the frame's index there.

        Raises
        ------
        IncompleteFileError
            if its file is missing, or the series has no such frame.
        SourceUnreadableError
            if its file is damaged.

        """
        found = self._guessed(files, frame) or next((part for part in self.parts(files) if part.holds(frame)), None)
        if found is None or found.first is None:
            count = self.frames(files)
            have = f"only {counted(count, 'frame')}" if frame >= count else f"no frame {frame}, by their image_nr_low"
            problem = f"its data files have {have}"
            raise IncompleteFileError(self.group.file.named, problem, WAIT)
        if found.stack is None:
            raise found.problem or IncompleteFileError(self.group.file.named, "a data file is missing", WAIT)
        return found.stack, frame - found.first

    def frames(self, files: OpenFiles) -> int:
        """Return the number of frames, with those of missing files."""
        return max((part.first or 0) + part.length for part in self.parts(files))

    def parts(self, files: OpenFiles) -> list[Part]:
        """Return all parts in order, each with its first frame."""
        found = [self._part(files, name) for name in self.names]
        if _overlap(found):
            found = [replace(part, first=None) for part in found]
        usual = next((part.length for part in found if part.stack), 0)
        if not usual:
            usual = -(-self.planned // len(found))
        placed: list[Part] = []
        end = 0
        for number, part in enumerate(found):
            if part.stack:
                placed.append(part if part.first is not None else replace(part, first=end))
            else:
                placed.append(replace(part, first=end, length=max(self._room(found, number, end, usual), 0)))
            end = (placed[-1].first or 0) + placed[-1].length
        return placed

    def _room(self, found: list[Part], number: int, end: int, usual: int) -> int:
        """Return the length of a missing part: the usual one, or what is left before the next part or the end."""
        missing = 1
        for part in found[number + 1 :]:
            if part.stack:
                known = part.first
                break
            missing += 1
        else:
            known = self.planned or None
        if known is None:
            return usual
        return known - end if missing == 1 else min(usual or known - end, known - end)

    def _guessed(self, files: OpenFiles, frame: int) -> Part | None:
        """Return the part that has a frame if all are as long as the first, and say so: only that one is opened."""
        first = self._part(files, self.names[0])
        number = frame // first.length if first.length else 0
        if not 0 <= number < len(self.names):
            return None
        part = self._part(files, self.names[number])
        return part if part.first == number * first.length and part.holds(frame) else None

    def _part(self, files: OpenFiles, name: str) -> Part:
        try:
            place = child(files, self.group, name)
        except (IncompleteFileError, SourceUnreadableError) as problem:
            return Part(None, 0, None, problem)
        if place is None:
            return Part(None, 0, None, IncompleteFileError(self.group.file.named, f"{name} is missing", WAIT))
        stack = stack_of(place, self.threshold, _AXES)
        low = attribute(place, "image_nr_low")
        first = int(low[0]) - 1 if low and low[0].isdecimal() and len(low[0]) < 9 else None  # noqa: PLR2004 - digits
        return Part(first if first is not None and 0 <= first < MOST_FRAMES else None, stack.frames, stack)


def _overlap(parts: list[Part]) -> bool:
    """Whether files claim the same frames, as those of several series behind one master do."""
    spans = sorted((part.first, part.first + part.length) for part in parts if part.stack and part.first is not None)
    return any(stop > start for (_, stop), (start, _) in pairwise(spans))


def series_in(files: OpenFiles, group: Place, names: tuple[str, ...], threshold: int | None) -> Series:
    """Return the series of the links with these names in a group of a master."""
    detector = Place(group.file, group.name.rsplit("/", 1)[0] + "/instrument/detector/detectorSpecific")
    planned = 1.0
    for name in ("nimages", "ntrigger"):
        stated = _from(files, detector, name)
        planned *= stated if stated is not None else (0 if name == "nimages" else 1)
    return Series(group, names, threshold, int(planned) if 0 < planned < MOST_FRAMES else 0)


def _from(files: OpenFiles, detector: Place, name: str) -> float | None:
    found = numbers(files, Place(detector.file, "/"), f"{detector.name}/{name}")
    return float(found[0]) if found.size == 1 else None
