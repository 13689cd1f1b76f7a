"""The scan that a folder of ESPERANTO frames holds, read from their headers: one circle that goes on evenly."""

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
"""Degrees by which a circle that stands still may differ."""
_UNEVEN = 0.2
"""Part of a frame's width by which a frame may begin before or after its place."""


@dataclass(frozen=True, slots=True)
class Scan:
    """Frames `first` to `last`, of which the circle `scanned` goes `width` degrees in each, from `start` on.

    `header` is that of the first frame. `missing` are the indices that lie between and have no frame.
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
        """How many frames the scan has, with those that are missing."""
        return self.last - self.first + 1

    @property
    def end(self) -> float:
        """Where the last frame ends, in degrees."""
        return self.start + self.frames * self.width


class UnevenScanError(ValueError):
    """Frames are no scan of one circle in even steps; the message tells which is not."""


def headers_in(folder: Path, name: str, roots: Roots = ANYWHERE) -> dict[int, EsperantoHeader]:
    """Return the headers of the frames `name_1_INDEX.esperanto` of a folder, by index; damaged frames are left out."""
    found = {}
    for path in folder.iterdir():
        named = _NAME.fullmatch(path.name)
        if named is None or named["name"] != name:
            continue
        try:
            found[int(named["index"])] = read_header(path, roots)
        except ConversionError:  # somebody else's, or one that has just been removed
            continue
    return dict(sorted(found.items()))


def name_of_scan(frame: Path) -> str | None:
    """Return the common name of a scan's frames, None if the frame is not named as CrysAlis names them.

    >>> name_of_scan(Path("/data/pat_1_17.esperanto"))
    'pat'
    """
    named = _NAME.fullmatch(frame.name)
    return named["name"] if named else None


def scan_of(headers: dict[int, EsperantoHeader]) -> Scan:
    """Return the scan that frames, by index, make together.

    Raises
    ------
    UnevenScanError
        if there are fewer than two, not just one circle moves, or it does not move evenly.

    """
    if len(headers) < 2:  # noqa: PLR2004 - one frame has no step
        raise UnevenScanError(f"found {len(headers)} frames; expected two at least")
    indices = sorted(headers)
    first, last = headers[indices[0]], headers[indices[-1]]
    moved = [circle for circle in CIRCLES if _moves(first, last, circle)]
    if len(moved) != 1:
        raise UnevenScanError(f"found {', '.join(moved) or 'no circle'} moving; expected one circle")
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
            f"frame {index}: found {scan.scanned} = {found:g}; expected {place:g}, as steps of {scan.width:g} make it"
        )
    for circle in CIRCLES:
        if circle != scan.scanned and abs(getattr(header.start, circle) - getattr(scan.header.start, circle)) > _STILL:
            raise UnevenScanError(f"frame {index}: found {circle} moving besides {scan.scanned}; expected one circle")
