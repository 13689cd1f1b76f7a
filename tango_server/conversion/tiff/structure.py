"""The structure of a TIFF file by its header and directories, and whether it is complete.

libtiff, as QXRD uses it, writes the image file directory (IFD) last, so the file is complete exactly when every
directory parses and every strip, tile and out-of-line value is inside the file.
If the IFD comes first, structure proves nothing about the pixels: see `Structure.ifd_last`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tango_server.conversion.errors import NotATiffError
from tango_server.conversion.file_state import FileState
from tango_server.conversion.image.orientation import Orientation

DESCRIPTION = 270
_PHOTOMETRIC = 262  # QXRD writes none
_DIRECTORY_LAST = "the directory follows the pixels and parses"
KEPT_TAGS = frozenset({DESCRIPTION, 271, 272, 315, 316})
"""In addition to private tags: ImageDescription, Make, Model, Artist, HostComputer."""

State = Literal["complete", "incomplete", "damaged", "not_tiff"]
"""`incomplete` files may still become complete, `damaged` and `not_tiff` never do."""


@dataclass(frozen=True, slots=True)
class TagPlace:
    """The location of a tag's value: `number` values of TIFF's field type `kind`, `length` bytes from `offset` on."""

    code: int
    kind: int
    number: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Page:
    """One image file directory: integer tags by number, text tags by name, and where the pixels are in the file."""

    tags: dict[int, int]
    bits: tuple[int, ...]
    sample_formats: tuple[int, ...]
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    texts: dict[str, str]
    kept: tuple[TagPlace, ...] = ()
    """Tags that a conversion in place keeps; a private tag may point outside the file."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns; 0 where the tag is missing."""
        return self.tags.get(257, 0), self.tags.get(256, 0)

    @property
    def orientation(self) -> Orientation:
        """The orientation by its tag; as stored where the tag is missing or invalid."""
        tag = self.tags.get(274, 1)
        return Orientation.of_tag(tag if tag in range(1, 9) else 1)


@dataclass(frozen=True, slots=True)
class Structure:
    """The structure of one file by its header and directories."""

    state: State
    problem: str
    size: int
    mtime_ns: int
    inode: int = 0
    byte_order: Literal["<", ">"] = "<"
    big: bool = False
    ifd_last: bool = False
    pages: tuple[Page, ...] = field(default=())

    @property
    def file_state(self) -> FileState:
        """The state of the file; one that is not a TIFF counts as damaged."""
        page = self.pages[0] if self.pages else None
        return FileState(
            "damaged" if self.state == "not_tiff" else self.state,
            self.problem,
            self.size,
            self.mtime_ns,
            self.inode,
            proof=_DIRECTORY_LAST if self.state == "complete" and self.ifd_last else "",
            sidecar_expected=page is not None and _PHOTOMETRIC not in page.tags and "document_name" in page.texts,
        )

    def require_complete(self, path: Path) -> None:
        """Raise the typed error if the file is not a complete TIFF."""
        if self.state == "not_tiff":
            raise NotATiffError(path, f"not a TIFF file: {self.problem}", "Check what wrote this file.")
        self.file_state.require_complete(path)
