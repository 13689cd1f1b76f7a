"""The scan in a folder of ESPERANTO frames, from their headers: one circle moving in even steps."""

import re
from dataclasses import dataclass
from pathlib import Path

from tango_server.conversion.errors import ConversionError
from tango_server.conversion.esperanto.header import EsperantoHeader
from tango_server.conversion.esperanto.reading import read_header
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.recipe.esperanto import CIRCLES, CircleName

_NAME = re.compile(r"(?P<name>.+)_1_(?P<index>\d{1,9})\.esperanto")
_STILL = 1e-3
"""Tolerance in degrees for a circle at rest."""
_UNEVEN = 0.2
"""Tolerance of a frame's start, relative to its width."""


@dataclass(frozen=True, slots=True)
class Scan:
    """Frames `first` to `last`, in each of which the circle `scanned` moves by `width` degrees, from `start` on.

    `header` is that of the first frame. `missing` are the indices in between without a frame.
    """

    header: EsperantoHeader
    scanned: CircleName
    first: int
    last: int
    start: float
    width: float
    missing: tuple[int, ...]

    @property
    def frames(self) -> int:
        """The number of frames, including missing ones."""
        return self.last - self.first + 1

    @property
    def end(self) -> float:
        """The end of the last frame, in degrees."""
        return self.start + self.frames * self.width


class UnevenScanError(ValueError):
    """The frames are not a scan of one circle in even steps; the message says why."""


def headers_in(folder: Path, name: str, roots: Roots = ANYWHERE) -> dict[int, EsperantoHeader]:
    """Return the headers of the frames `name_1_INDEX.esperanto` of a folder, by index; damaged frames are left out."""
    found = {}
    for path in folder.iterdir():
        named = _NAME.fullmatch(path.name)
        if named is None or named["name"] != name:
            continue
        try:
            found[int(named["index"])] = read_header(path, roots)
        except ConversionError:  # of another program, or just removed
            continue
    return dict(sorted(found.items()))


def name_of_scan(frame: Path) -> str | None:
    """Return the common name of a scan's frames, None if the name is not in CrysAlis's form.

    >>> name_of_scan(Path("/data/pat_1_17.esperanto"))
    'pat'
    """
    named = _NAME.fullmatch(frame.name)
    return named["name"] if named else None


def scan_of(headers: dict[int, EsperantoHeader]) -> Scan:
    """Return the scan of frames, by index.

    Raises
    ------
    UnevenScanError
        if there are fewer than two, not exactly one circle moves, or it moves unevenly.

    """
    if len(headers) < 2:  # noqa: PLR2004 - one frame has no step
        raise UnevenScanError(f"a scan needs at least two frames, not {len(headers)}")
    indices = sorted(headers)
    first, last = headers[indices[0]], headers[indices[-1]]
    moved = [circle for circle in CIRCLES if _moves(first, last, circle)]
    if len(moved) != 1:
        raise UnevenScanError(f"a scan moves one circle, not {', '.join(moved) or 'none'}")
    (scanned,) = moved
    span = getattr(last.start, scanned) - getattr(first.start, scanned)
    scan = Scan(
        header=first,
        scanned=scanned,
        first=indices[0],
        last=indices[-1],
        start=getattr(first.start, scanned),
        width=span / (indices[-1] - indices[0]),
        missing=tuple(sorted(set(range(indices[0], indices[-1])) - headers.keys())),
    )
    for index, header in headers.items():
        _require_even(scan, index, header)
    return scan


def _moves(first: EsperantoHeader, last: EsperantoHeader, circle: str) -> bool:
    return bool(abs(getattr(last.start, circle) - getattr(first.start, circle)) > _STILL)


def _require_even(scan: Scan, index: int, header: EsperantoHeader) -> None:
    place = scan.start + (index - scan.first) * scan.width
    found = getattr(header.start, scan.scanned)
    if abs(found - place) > _UNEVEN * abs(scan.width):
        raise UnevenScanError(
            f"frame {index} has {scan.scanned} = {found:g} instead of {place:g} (steps of {scan.width:g})"
        )
    for circle in CIRCLES:
        if circle != scan.scanned and abs(getattr(header.start, circle) - getattr(scan.header.start, circle)) > _STILL:
            raise UnevenScanError(f"in frame {index}, {circle} moves besides {scan.scanned}")
