"""The companion files that CrysAlis needs beside the frames of a scan: parameters, scan, detector with its mask.

For a scan `name` these are `name.par`, `name.run`, `name.set` and `name.ccd`, written by fabio's `xcaliburimage` as
eiger2crysalis does (the text of `.set` is in that program itself). CrysAlis may change them, so existing ones are
kept, except a `.run` that describes fewer frames of the same scan.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tango_server.conversion.esperanto.header import EsperantoHeader
from tango_server.conversion.esperanto.mask import Mask, frame_mask, mask_of, read_mask
from tango_server.conversion.esperanto.rectangles import Rectangle, rectangles_of
from tango_server.conversion.esperanto.scan import Scan, UnevenScanError, headers_in, name_of_scan, scan_of
from tango_server.conversion.files.atomic_write import Attempt, publish, write_parts
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.ownership import PLAIN, Ownership, ownership_of
from tango_server.conversion.files.roots import NO_FIELDS, Roots
from tango_server.conversion.files.sandbox import is_taken, open_file
from tango_server.conversion.formats import open_frame
from tango_server.conversion.image.orientation import Orientation
from tango_server.recipe import Recipe

_POLARISATION = 0.98
_MOST_FRAMES = 65_535  # of one scan, in 16 bits
_MOST_AREAS = 65_535
_LONGEST_NAME = 255  # bytes
_ALIKE = 0.2
"""Relative difference of frame widths between descriptions of one scan: measured angles are not quite even."""
_SCANS = {"omega": "Omega", "phi": "Phi"}


@dataclass(frozen=True, slots=True)
class Companions:
    """The companions of one scan that were `written`, and `notes` on why others were not."""

    written: tuple[str, ...]
    notes: tuple[str, ...]


def companions_of(
    source: FrameLocation,
    output: Path,
    recipe: Recipe,
    roots: Roots,
    token: str,
    *,
    fields: Mapping[str, object] = NO_FIELDS,
) -> Companions:
    """Write the companions of the scan of a converted frame.

    Parameters
    ----------
    source, output: the raw frame, and the ESPERANTO frame
    recipe: of the conversion
    roots: the folders that may be read and written
    token: part of the names of temporary files
    fields: of the frame

    Raises
    ------
    ConversionError
        if the source or its mask cannot be read, or a companion cannot be written.

    """
    name = name_of_scan(output)
    if name is None or recipe.esperanto is None:
        return Companions((), (f"{output}: no companions, because its name is not NAME_1_INDEX.esperanto",))
    with open_frame(source, roots=roots) as opened:
        image, own = opened.images[0], opened.own_mask
    path = mask_of(recipe.esperanto, fields)
    marked = None if path is None else read_mask(path, source.file, image.shape, roots)
    if own is not None and own.pixels is not None and own.always:
        marked = own.pixels if marked is None else marked | own.pixels
    mask = frame_mask(image.shape, image.stored.then(Orientation.of(recipe)), marked)
    ownership = ownership_of(recipe, source.file)
    return write_companions(output.parent, name, mask=mask, roots=roots, token=token, ownership=ownership)


def write_companions(
    folder: Path, name: str, *, mask: Mask, roots: Roots, token: str, ownership: Ownership = PLAIN
) -> Companions:
    """Write the companions of the frames `name_1_INDEX.esperanto` in a folder.

    Parameters
    ----------
    folder: that of the frames
    name: the common name of the frames
    mask: (rows, columns) of the frames, True for pixels to ignore
    roots: the folders that may be read and written
    token: part of the names of temporary files
    ownership: of new files

    Raises
    ------
    ConversionError
        if a companion cannot be written.

    """
    headers = headers_in(folder, name, roots.outputs if roots.write else roots)
    if not headers:
        return Companions((), (f"{folder}: no frames {name}_1_INDEX.esperanto",))
    writer = _Writer(folder, name, roots, Attempt(token, ownership=ownership, exclusive=True))
    first = next(iter(headers.values()))
    notes = []
    width = 0.0
    try:
        scan = scan_of(headers)
        width = abs(scan.width)
        notes += writer.run(scan)
    except UnevenScanError as error:
        notes.append(f"{name}.run was not written: {error}. Make one in CrysAlis: esperanto createrunlist.")
    writer.once(".par", lambda: _par(folder, name, first, width))
    bad = rectangles_of(mask)
    if len(bad) <= _MOST_AREAS:
        writer.once(".ccd", lambda: _ccd(bad))
    else:
        notes.append(f"{name}.ccd was not written: the mask has {len(bad)} areas (at most {_MOST_AREAS})")
    writer.once(".set", lambda: _set(bad))
    return Companions(tuple(writer.written), tuple(notes))


@dataclass(slots=True)
class _Writer:
    folder: Path
    name: str
    roots: Roots
    attempt: Attempt
    written: list[str] = field(default_factory=list)

    def once(self, ending: str, content: Callable[[], bytes]) -> None:
        """Write a file unless it exists."""
        path = self.folder / f"{self.name}{ending}"
        if is_taken(path, self.roots.write):
            return
        try:
            publish(path, write_parts([content()]), self.attempt, self.roots)
        except FileExistsError:
            return
        self.written.append(path.name)

    def run(self, scan: Scan) -> list[str]:
        """Write the description of the scan; return notes."""
        path = self.folder / f"{self.name}.run"
        described = _run(self.folder, self.name, scan)
        if is_taken(path, self.roots.write):
            earlier = self._earlier(path)
            if earlier == described:
                return []
            if not _is_part(earlier, described):
                return [f"{path} exists and describes another scan; it was left unchanged"]
            attempt = Attempt(self.attempt.token, ownership=self.attempt.ownership)
            publish(path, write_parts([described]), attempt, self.roots)
            self.written.append(path.name)
        else:
            self.once(".run", lambda: described)
        if scan.missing:
            some = ", ".join(map(str, scan.missing[:10]))
            return [f"{len(scan.missing)} of {scan.frames} frames of {self.name} are missing: {some}"]
        return []

    def _earlier(self, path: Path) -> bytes:
        readable = self.roots.outputs if self.roots.write else self.roots
        with open_file(path, readable.read) as file:
            return bytes(file.read(2**20) or b"")


def _run(folder: Path, name: str, scan: Scan) -> bytes:
    from fabio.xcaliburimage import SCAN_TYPE, RunDescription, Sweep  # noqa: PLC0415 - TIFFs don't need it

    if scan.scanned not in _SCANS:
        raise UnevenScanError(f"it is a scan of {scan.scanned}, not of omega or phi")
    if scan.frames > _MOST_FRAMES:
        raise UnevenScanError(f"the scan has {scan.frames} frames (at most {_MOST_FRAMES})")
    still = {circle: value for circle, value in scan.header.start._asdict().items() if circle != scan.scanned}
    sweep = Sweep(
        0,
        SCAN_TYPE[_SCANS[scan.scanned]].value,
        domega=still.get("omega", 0.0),
        dtheta=still["theta"],
        dkappa=still["kappa"],
        dphi=still.get("phi", 0.0),
        dstart=scan.start,
        dend=scan.end,
        dwidth=scan.width,
        iunknown3=scan.frames,
        iunknown4=0,
        iunknown5=scan.frames,
        iunknown6=0,
        dexposure=scan.header.exposure,
    )
    return bytes(RunDescription(_cut(name), _cut(str(folder)), pssweep=[sweep]).dumps())


def _is_part(earlier: bytes, described: bytes) -> bool:
    """Return whether a description covers the beginning of the same scan."""
    from fabio.xcaliburimage import RunDescription  # noqa: PLC0415 - as above

    try:
        before, after = RunDescription.loads(earlier), RunDescription.loads(described)
    except Exception:  # noqa: BLE001 - fabio may raise anything for bytes of another program
        return False
    if before.cprefix != after.cprefix or len(before.pssweep) != 1:
        return False
    one, other = before.pssweep[0], after.pssweep[0]
    alike = one.iscantype == other.iscantype and abs(one.dwidth - other.dwidth) <= _ALIKE * abs(other.dwidth)
    return bool(alike and one.iunknown3 < other.iunknown3)


def _par(folder: Path, name: str, header: EsperantoHeader, width: float) -> bytes:
    from fabio.xcaliburimage import XcaliburImage  # noqa: PLC0415 - as above

    image = XcaliburImage(data=np.zeros((header.side, header.side), np.uint8))
    x, y = header.origin
    with tempfile.TemporaryDirectory() as place:  # it writes to a path, and mentions its folder
        image.save_par(
            place,
            name,
            alpha=header.alpha,
            beta=header.beta,
            wavelength=header.wavelength,
            polarization=_POLARISATION,
            distance=header.distance,
            oscil=width,
            center_x=x,
            center_y=y,
        )
        text = (Path(place) / f"{name}.par").read_bytes()
    return text.replace(place.encode(), str(folder).encode("utf-8", "replace"))


def _ccd(bad: Sequence[Rectangle]) -> bytes:
    from fabio import xcaliburimage as xcalibur  # noqa: PLC0415 - as above

    shape = xcalibur.CHIPCHARACTERISTICS_POLYGONTYPE.RECTANGLE.value
    ignore = xcalibur.CHIPCHARACTERISTICS_TREATMENT.IGNORE.value
    polygons = [
        xcalibur.ChipBadPolygon(shape, 4, [area.left, area.right], [area.bottom, area.top])
        for area in bad
        if not area.is_point
    ]
    places = [xcalibur.ChipPoint(area.left, area.bottom) for area in bad if area.is_point]
    points = [xcalibur.ChipBadPoint(place, place, place, ignore) for place in places]
    chip = xcalibur.CcdCharacteristiscs(
        xcalibur.CCD_FILEVERSION_VERS_HIGHEST.value, pschipbadpolygon=polygons, pschipbadpoint=points
    )
    chip.ibadpolygons, chip.ibadpoints = len(polygons), len(points)
    return bytes(chip.dumps())


def _set(bad: Sequence[Rectangle]) -> bytes:
    lines = [
        "#XCALIBUR SYSTEM",
        "#XCALIBUR SETUP FILE",
        "#ALL COORDINATES GO FROM 0 TO N-1",
        "#CHIP IDCODE producer type serial",
        'CHIP IDCODE "n/a" "n/a" "n/a"',
        "#CHIP TAPER producer type serial",
        'CHIP TAPER "" "" ""',
        "#CHIP BADRECTANGLE xl xr yb yt",
    ]
    lines += [f"CHIP BADRECTANGLE {' '.join(map(str, area))}" for area in bad if not area.is_point]
    lines.append("#CHIP BADPOINT x1x1 y1x1 treatment r1x1x1 r1y1x1 r2x1x1 r2y1x1")
    for x, _, y, _ in (area for area in bad if area.is_point):
        lines.append(f"CHIP BADPOINT {x} {y} IGNORE {x} {y} {x} {y}")
    return "\r\n".join([*lines, "#END OF XCALIBUR CHIP CHARACTERISTICS FILE", ""]).encode()


def _cut(text: str) -> str:
    return text.encode("ascii", "replace")[:_LONGEST_NAME].decode()
