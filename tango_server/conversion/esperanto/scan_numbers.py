"""The number of a frame in its rotation scan, by its name; and names that do not count frames."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from tango_server.conversion.files.naming import series_of

_FEWEST = 3
"""From this number of frames on, a scan with more than half of its frames missing is suspicious."""
_NAMED = 3
_ADVICE = (
    "Say which number counts the frames (--frame-number; -1 is the last), or give their angles in a table (--angles)."
)


def numbers_in_scans(sources: Iterable[Path]) -> dict[Path, int]:
    """Return each frame's number in its scan, from 1: the number in its name relative to the first frame's.

    Missing frames leave a gap. Without numbers in their names, frames are counted in their order.
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
    """Return the sources whose numbers in the `counted` names do not seem to count frames, each with the reason.

    That is: several names that differ only in numbers (or have none) and form one scan each, like `scan_001_300K.tif`
    and `scan_002_300K.tif`; and scans with more gaps than frames, for example by times of day.
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
            why = f"by the numbers in their names, {some} are scans of one frame each, all starting at the first angle"
            reasons |= dict.fromkeys(sources, why)
    for scan in scans.values():
        known = [number for number in scan.values() if number is not None]
        missing = max(known) - min(known) + 1 - len(known) if known else 0
        if not gaps_are_meant and len(known) >= _FEWEST and missing > len(known):
            why = f"by the last numbers in their names, {_names(scan)} form a scan with {missing} missing frames"
            reasons |= dict.fromkeys(scan, why)
    return {source: f"{source}: {why}. {_ADVICE}" for source, why in reasons.items()}


def _names(sources: Iterable[Path]) -> str:
    names = [source.name for source in sources]
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
