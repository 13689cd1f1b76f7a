"""What a TIFF file is made of, as far as its header and directories tell; and whether it is complete.

A writer that works as libtiff does for QXRD puts the image file directory (IFD) last, so the file is complete exactly
when every directory parses and every strip, tile and out-of-line value lies inside of the file.
For writers that put the IFD first, structure proves nothing about the pixels: `Structure.ifd_last` tells which it is.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tango_server.conversion.errors import IncompleteFileError, NotATiffError, SourceUnreadableError

DESCRIPTION = 270
KEPT_TAGS = frozenset({DESCRIPTION, 271, 272, 315, 316})
"""Beside private tags: ImageDescription, Make, Model, Artist, HostComputer."""

State = Literal["complete", "incomplete", "damaged", "not_tiff"]
"""What a look at a file finds: `incomplete` may still become complete, `damaged` and `not_tiff` never do."""


@dataclass(frozen=True, slots=True)
class TagPlace:
    """Where the value of a tag lies: `number` values of TIFF's field type `kind`, `length` bytes from `offset` on."""

    code: int
    kind: int
    number: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Page:
    """One image file directory: integer tags by number, text tags by name, and where the pixels lie in the file."""

    tags: dict[int, int]
    bits: tuple[int, ...]
    sample_formats: tuple[int, ...]
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    texts: dict[str, str]
    kept: tuple[TagPlace, ...] = ()
    """What a conversion in place keeps; a private tag may point outside of the file."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns; 0 where the tag is missing."""
        return self.tags.get(257, 0), self.tags.get(256, 0)


@dataclass(frozen=True, slots=True)
class Structure:
    """What the header and the directories of a file say."""

    state: State
    problem: str
    size: int
    mtime_ns: int
    inode: int = 0
    byte_order: Literal["<", ">"] = "<"
    big: bool = False
    ifd_last: bool = False
    pages: tuple[Page, ...] = field(default=())

    def require_complete(self, path: Path) -> None:
        """Raise the typed error if the file is not a complete TIFF."""
        if self.state == "not_tiff":
            raise NotATiffError(path, self.problem, "a TIFF file (II*, MM* or BigTIFF)", "Check what wrote this file.")
        if self.state == "damaged":
            raise SourceUnreadableError(path, self.problem, "an intact TIFF", "Check what wrote this file.")
        if self.state == "incomplete":
            raise IncompleteFileError(
                path,
                self.problem,
                "a TIFF with its directory and every strip inside of the file",
                "If it is still being written, wait; else it was cut off: copy it again from its origin.",
            )
