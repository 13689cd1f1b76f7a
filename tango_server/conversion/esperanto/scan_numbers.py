"""Which number a frame has in its rotation scan, by its name; and names that do not count frames."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from tango_server.conversion.files.naming import series_of

_FEWEST = 3
"""Frames of a scan, of which more than half are missing, that are too many for chance."""
_NAMED = 3
_EXPECTED = (
    "expected a number that counts the frames. Say which one does (--frame-number; -1 is the last), or give their "
    "angles in a table (--angles)."
)


def numbers_in_scans(sources: Iterable[Path]) -> dict[Path, int]:
    """Return each frame's number in its scan, from 1: that of its name, counted from the first one's.

    A frame that is missing leaves a gap. Without a number in their names frames count in their order.
    """
    scans: dict[tuple[Path, str], list[tuple[int | None, Path]]] = {}
    for source in sources:
        name, number = series_of(source)
        scans.setdefault((source.parent, name), []).append((number, source))
    numbers = {}
    for frames in scans.values():
        known = [number for number, _ in frames if number is not None]
        for place, (number, source) in enumerate(frames, start=1):
            numbers[source] = place if number is None else number - min(known) + 1
    return numbers


def uncounted_names(counted: Mapping[Path, Path], *, gaps_are_meant: bool) -> dict[Path, str]:
    """Return the sources that the number of their `counted` names does not seem to count, each with why.

    That is so where several names are alike but for their numbers (or have none), and each makes a scan of its own, as
    `scan_001_300K.tif` and `scan_002_300K.tif`; and where a scan has more gaps than frames, as times of day make them.
    """
    scans: dict[tuple[Path, str], dict[Path, int | None]] = {}
    for source, named in counted.items():
        name, number = series_of(named)
        scans.setdefault((named.parent, name), {})[source] = number
    alike: dict[tuple[Path, str], list[dict[Path, int | None]]] = {}
    for (folder, name), scan in scans.items():
        shape = "" if None in scan.values() else re.sub(r"\d+", "0", name)
        alike.setdefault((folder, shape), []).append(scan)
    reasons: dict[Path, str] = {}
    for group in alike.values():
        if len(group) > 1 and all(len(scan) == 1 for scan in group):
            sources = [source for scan in group for source in scan]
            some = _names(sources)
            why = f"by the numbers in their names, {some} are scans of one frame each, and all begin at the first angle"
            reasons |= dict.fromkeys(sources, why)
    for scan in scans.values():
        known = [number for number in scan.values() if number is not None]
        missing = max(known) - min(known) + 1 - len(known) if known else 0
        if not gaps_are_meant and len(known) >= _FEWEST and missing > len(known):
            why = f"by the last numbers in their names, {_names(scan)} are a scan in which {missing} frames are missing"
            reasons |= dict.fromkeys(scan, why)
    return {source: f"{source}: {why}; {_EXPECTED}" for source, why in reasons.items()}


def _names(sources: Iterable[Path]) -> str:
    names = [source.name for source in sources]
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
