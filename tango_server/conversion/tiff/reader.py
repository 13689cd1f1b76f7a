"""Read a file into arrays: QXRD's single uncompressed strip directly, everything else through tifffile.

A file is opened once, so that structure and pixels belong together even if the file is replaced meanwhile.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tango_server.conversion.errors import IncompleteFileError, UnsupportedImageError
from tango_server.conversion.file_state import FileState
from tango_server.conversion.files.frame_file import open_frame_file
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.frame_source import FrameSource, ImageInfo
from tango_server.conversion.image.buffers import Workspace
from tango_server.conversion.image.pixels import Image
from tango_server.conversion.tiff.detector_header import header_in, state_in
from tango_server.conversion.tiff.page_count import all_pages
from tango_server.conversion.tiff.parser import parse_structure, reading
from tango_server.conversion.tiff.record import acquired, read_provenance
from tango_server.conversion.tiff.structure import Page, Structure
from tango_server.conversion.tiff.tifffile_decoder import TifffileDecoder

_KINDS = {1: "u", 2: "i", 3: "f"}
_BITS = {("u", 8), ("u", 16), ("u", 32), ("u", 64), ("i", 8), ("i", 16), ("i", 32), ("i", 64),
         ("f", 16), ("f", 32), ("f", 64)}  # fmt: skip
_UNCOMPRESSED = 1
_BLACK_IS_ZERO = 1
_FILTER_ARRAY = 32803
_BELIEVED_BYTES = 64 * 2**20
_BELIEVED_RATIO = 2000  # more than deflate and LZW can compress
_LARGEST_TILE = 65_536
_ROWS_PER_STRIP = 278
_TILE_WIDTH, _TILE_LENGTH = 322, 323


@dataclass(frozen=True, slots=True)
class TiffFile:
    """An open, complete TIFF file; every page can be converted."""

    path: Path
    file: BinaryIO
    structure: Structure
    workspace: Workspace

    def images(self) -> Iterator[Image]:
        """Yield the pages as arrays (rows, columns) in the file's own pixel type, each valid until the next.

        Raises
        ------
        SourceUnreadableError
            if the pixels cannot be decoded.
        """
        with TifffileDecoder(self.path, self.file) as decoder:
            for number, page in enumerate(self.structure.pages):
                yield self._strip(page) if _is_plain_strip(page) else self._decoded(number, page, decoder)

    @property
    def source(self) -> FrameSource:
        """The pages as one frame."""
        pages = self.structure.pages
        provenance = read_provenance(self.structure)
        dark_is_off = provenance is not None and any(master.kind == "dark" for master in provenance.masters)
        header, own_mask = header_in(self.path, self.file, self.structure)
        taken = header.taken or acquired(pages[0], self.structure.mtime_ns)
        return FrameSource(
            FrameLocation(self.path),
            state_in(self.path, self.file, self.structure),
            tuple(ImageInfo(page.shape, pixel_type(page), page.orientation) for page in pages),
            self.images,
            self.workspace,
            replace(header, taken=taken, dark_is_off=dark_is_off),
            own_mask,
            provenance,
            unusual_layout(pages),
            rows=partial(self._rows, pages[0]) if len(pages) == 1 and _is_plain_strip(pages[0]) else None,
        )

    def _strip(self, page: Page) -> Image:
        return self._read_rows(page, slice(0, page.shape[0]), "frame")

    def _rows(self, page: Page, wanted: slice) -> Image:
        return self._read_rows(page, wanted, "rows")

    def _read_rows(self, page: Page, wanted: slice, use: str) -> Image:
        kind, columns = pixel_type(page).newbyteorder(self.structure.byte_order), page.shape[1]
        place = page.offsets[0] + wanted.start * columns * kind.itemsize
        pixels = self.workspace.array(use, (wanted.stop - wanted.start, columns), kind, file_offset=place)
        self.file.seek(place)
        view = pixels.reshape(-1).view(np.uint8).data
        with reading(self.path):
            while view:
                count = self.file.readinto(view)  # type: ignore[attr-defined]
                if not count:
                    raise IncompleteFileError(self.path, "the file shrank while it was read", "Convert it again.")
                view = view[count:]
        return pixels

    def _decoded(self, number: int, page: Page, decoder: TifffileDecoder) -> Image:
        image = decoder.page(number)
        if image.shape != page.shape or image.dtype.newbyteorder("=") != pixel_type(page):
            raise UnsupportedImageError(
                self.path,
                f"page {number} decodes to {image.dtype} of shape {image.shape}, but its tags say {pixel_type(page)} "
                f"of shape {page.shape}",
                "Convert it to a plain TIFF with another program first.",
            )
        return image


def check_tiff(location: FrameLocation, roots: Roots = ANYWHERE) -> FileState:
    """Return whether a file is a complete TIFF.

    Raises
    ------
    SourceError
        if it does not exist, cannot be opened or is not a TIFF.
    OutsideRootsError
        if a folder of its path has become a symbolic link.
    """
    with reading(location.file), open_frame_file(location.file, roots) as file:
        return state_in(location.file, file, parse_structure(file))


@contextmanager
def open_tiff(path: Path, workspace: Workspace | None = None, roots: Roots = ANYWHERE) -> Iterator[TiffFile]:
    """Open the file at `path`, and check that it is complete and every page can be converted.

    `workspace` is memory to read into (default: a new one). With read roots, the path is resolved and below them.

    Raises
    ------
    SourceError
        one of its subclasses, if not.
    OutsideRootsError
        if a folder of the path has become a symbolic link.
    """
    with reading(path):
        file = open_frame_file(path, roots)
    with file:
        yield tiff_in(path, file, workspace or Workspace())


def tiff_in(path: Path, file: BinaryIO, workspace: Workspace) -> TiffFile:
    """Return the TIFF in an open file, for as long as that is open; raise `SourceError` as `open_tiff` does."""
    with reading(path):
        structure = parse_structure(file)
    structure.require_complete(path)
    if not structure.pages:
        raise UnsupportedImageError(path, "the file has no image", "Check what wrote it.")
    structure = replace(structure, pages=all_pages(path, structure))
    for page in structure.pages:
        _require_convertible(path, page)
    _require_explained(path, structure)
    return TiffFile(path, file, structure, workspace)


def read_first_image(path: Path) -> Image:
    """Return the first image of a file; raise `SourceError` if it is not complete and readable."""
    with open_tiff(path) as tiff:
        return next(tiff.images())


def pixel_type(page: Page) -> np.dtype[Any]:
    """Return the native numpy type of the pixels of a convertible page."""
    return np.dtype(f"{_KINDS[page.sample_formats[0]]}{page.bits[0] // 8}")


def _require_convertible(path: Path, page: Page) -> None:
    found = _unsupported(page)
    if found:
        raise UnsupportedImageError(
            path,
            f"cannot convert {found}: only one grey value per pixel is supported, integers of 8 to 64 bits or floats "
            "of 16 to 64 bits",
            "Convert it with another program first.",
        )
    rows, columns = page.shape
    if len(page.offsets) < _segments_of(page):  # a reader would silently fill the gaps with zeros
        raise IncompleteFileError(
            path,
            f"only {len(page.offsets)} of {_segments_of(page)} strips or tiles for {rows} x {columns} pixels",
            "The file is damaged: copy it again from its origin.",
        )
    needed, held = rows * columns * page.bits[0] // 8, sum(page.counts)
    plain = page.tags.get(259, _UNCOMPRESSED) == _UNCOMPRESSED
    if (plain and held < needed) or 0 in page.counts:
        raise IncompleteFileError(
            path,
            f"its {len(page.counts)} strips or tiles have {held} bytes (or some are empty), but {rows} x {columns} "
            f"pixels need {needed}",
            "The file is damaged or was never filled: copy it again from its origin.",
        )


def _require_explained(path: Path, structure: Structure) -> None:
    """Refuse overlapping strips, and more pixels than any compression could store in the file."""
    pages = structure.pages
    starts = np.array([offset for page in pages for offset in page.offsets], np.uint64)
    ends = starts + np.array([count for page in pages for count in page.counts], np.uint64)
    order = np.argsort(starts, kind="stable")
    found = ""
    if np.any(ends[order][:-1] > starts[order][1:]):
        found = "its strips or tiles overlap"
    needed = sum(rows * columns * page.bits[0] // 8 for page in pages for rows, columns in [page.shape])
    if needed > max(_BELIEVED_BYTES, _BELIEVED_RATIO * structure.size):
        found = f"{needed} bytes of pixels in a file of {structure.size} bytes: no compression achieves that"
    if found:
        raise UnsupportedImageError(path, found, "Check what wrote this file.")


def _segments_of(page: Page) -> int:
    """Return how many strips or tiles a page needs."""
    rows, columns = page.shape
    if _TILE_WIDTH in page.tags:
        width, height = (max(page.tags.get(tag, 1), 1) for tag in (_TILE_WIDTH, _TILE_LENGTH))
        return -(-rows // height) * -(-columns // width)
    return -(-rows // max(min(page.tags.get(_ROWS_PER_STRIP, rows), rows), 1))


def _unsupported(page: Page) -> str:
    """Return why a page cannot be converted; empty if it can."""
    rows, columns = page.shape
    samples, photometric = page.tags.get(277, 1), page.tags.get(262, _BLACK_IS_ZERO)
    predicted = page.tags.get(317, 1) != 1 and page.tags.get(259, _UNCOMPRESSED) == _UNCOMPRESSED
    names = {0: "an image whose zero is white", 2: "an RGB image", 3: "a palette image", 5: "a CMYK image"}
    kind = (_KINDS.get(page.sample_formats[0], "?"), page.bits[0])
    findings = (
        (page.bits[0] == 1, "a bilevel image (1 bit per pixel)"),
        (
            photometric not in {_BLACK_IS_ZERO, _FILTER_ARRAY},
            names.get(photometric, f"photometric interpretation {photometric}"),
        ),
        (samples != 1 or len(set(page.bits)) != 1, f"{samples} samples per pixel"),
        (predicted, f"predictor {page.tags.get(317)} without compression, which programs read differently"),
        (not rows or not columns or not page.offsets, f"a zero-sized image ({rows} x {columns})"),
        (kind not in _BITS, f"pixels of {kind[1]} bits in sample format {page.sample_formats[0]}"),
        (page.tags.get(274, 1) not in range(9), f"an orientation tag of {page.tags.get(274)}"),
        (max(page.tags.get(322, 0), page.tags.get(323, 0)) > _LARGEST_TILE, "tiles larger than any image"),
    )
    return next((text for is_so, text in findings if is_so), "")


def unusual_layout(pages: Sequence[Page]) -> str:
    """Return a note on how pages were read; empty for ordinary ones."""
    if any(page.tags.get(262) == _FILTER_ARRAY for page in pages):
        return "Its photometric tag says colour filter array (CFA); it was read as a grey image."
    return ""


def _is_plain_strip(page: Page) -> bool:
    rows, columns = page.shape
    plain = all(page.tags.get(tag, 1) == 1 for tag in (259, 266, 317)) and _TILE_WIDTH not in page.tags
    return plain and len(page.offsets) == 1 and page.counts[0] >= rows * columns * page.bits[0] // 8
