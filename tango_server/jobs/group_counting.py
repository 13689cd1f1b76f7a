"""Which frames of folders become one: every n, in the natural order of their names.

The order is a rule of our own and not a library's, because it decides what is in a group, on a server and in a shell,
today and in a later version; and since names that differ only in leading zeros keep one order, whichever comes first.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.naming import series_of

_NUMBER = re.compile(r"(\d+)")
_NAMED = 3

NaturalOrder = tuple[tuple[str | int, ...], str]


def natural_order(name: str) -> NaturalOrder:
    """Return the key of a text for sorting: numbers in it count by their values, and everything else as it is.

    >>> sorted(["pat-10", "pat-2", "pat-02", "pat"], key=natural_order)
    ['pat', 'pat-02', 'pat-2', 'pat-10']
    """
    parts = _NUMBER.split(name)  # texts and numbers in turn
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts)), name


def frame_order(frame: FrameLocation) -> tuple[NaturalOrder, str, NaturalOrder, str, int]:
    """Return the key of a frame for sorting: folder, data set, name without suffix, suffix, index in its file.

    >>> names = ["b/a.tif", "a/run-2-1.tif", "a/run-10.tif", "a/run-2.tif"]
    >>> [str(each) for each in sorted(map(FrameLocation.of, names), key=frame_order)]
    ['a/run-2.tif', 'a/run-2-1.tif', 'a/run-10.tif', 'b/a.tif']
    """
    file = frame.file
    index = -1 if frame.index is None else frame.index
    return natural_order(str(file.parent)), frame.data_set, natural_order(file.stem), file.suffix, index


def counted_groups(frames: Iterable[FrameLocation], every: int) -> list[tuple[FrameLocation, ...]]:
    """Return the frames in groups of `every`, in their natural order; each folder and data set by itself.

    The last group of a folder may have fewer.
    """
    series: dict[tuple[Path, str], list[FrameLocation]] = {}
    for frame in sorted(set(frames), key=frame_order):
        series.setdefault((frame.file.parent, frame.data_set), []).append(frame)
    return [tuple(each[start : start + every]) for each in series.values() for start in range(0, len(each), every)]


def gaps_in(frames: Iterable[FrameLocation]) -> list[str]:
    """Return a note for each series of names in which numbers are missing, though fewer than there are.

    A missing frame moves all later ones of its folder to other places in their groups.
    """
    series: dict[tuple[Path, str], set[int]] = {}
    for file in {frame.file for frame in frames}:
        name, number = series_of(file)
        if number is not None:
            series.setdefault((file.parent, name), set()).add(number)
    notes = []
    for (folder, name), numbers in sorted(series.items()):
        span = max(numbers) - min(numbers) + 1
        if len(numbers) < span < 2 * len(numbers):
            missing = [str(number) for number in range(min(numbers), max(numbers)) if number not in numbers]
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            notes.append(
                f"{folder / name}: no frame with number {', '.join(missing[:_NAMED])}{more}. The frames that are there "
                "were counted: all after a gap may be in another group than intended."
            )
    return notes


def mixed_in(frames: Iterable[FrameLocation], every: int) -> list[str]:
    """Return a note for each group with frames of several series of names, as of two samples in one folder."""
    groups = counted_groups(frames, every)
    files = {frame.file for group in groups for frame in group}
    sizes = Counter((file.parent, series_of(file)[0]) for file in files)
    notes = []
    for group in groups:
        names = dict.fromkeys(series_of(frame.file) for frame in group)
        mixed = dict.fromkeys(
            name for name, number in names if number is not None and sizes[group[0].file.parent, name] > 1
        )
        if len(mixed) > 1:
            notes.append(
                f"{group[0]}: its group has frames of {' and '.join(mixed)}: all names of a folder are counted "
                "together. To combine them separately, use --pattern."
            )
    more = len(notes) - _NAMED
    return [*notes[:_NAMED], f"{more} more groups have frames of several names."] if more > 0 else notes
