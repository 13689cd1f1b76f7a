"""Read the structure of a TIFF file from its header and directories, without the pixels.

Pages, entries, values and texts are limited, so that no file can exhaust the memory.

Format: TIFF Revision 6.0 (Adobe, 1992), section 2; BigTIFF as libtiff writes it.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from tango_server.conversion.errors import SourceMissingError, SourceUnreadableError
from tango_server.conversion.files.frame_file import open_frame_file
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.tiff.structure import KEPT_TAGS, Page, State, Structure, TagPlace

MAX_PAGES = 65_536
MAX_ENTRIES = 4_096
MAX_TEXT = 65_536
MAX_SEGMENTS = 1_000_000
MAX_VALUES = 4_000_000
_NO_MORE = {0, 2**32 - 1, 2**64 - 1}  # the end of the chain of directories; some writers use -1
_FIRST_PRIVATE_TAG = 32_768
_FIELD_TYPES = {  # TIFF field type -> bytes per value, struct code
    1: (1, "B"), 2: (1, "s"), 3: (2, "H"), 4: (4, "I"), 5: (8, None), 6: (1, "b"), 7: (1, None), 8: (2, "h"),
    9: (4, "i"), 10: (8, None), 11: (4, "f"), 12: (8, "d"), 13: (4, "I"), 16: (8, "Q"), 17: (8, "q"), 18: (8, "Q"),
}  # fmt: skip
_TEXT_TAGS = {269: "document_name", 270: "description", 305: "software", 306: "datetime"}
_SEGMENT_OFFSETS = {273, 324}
_SEGMENT_COUNTS = {279, 325}
_SCALAR_TAGS = {256, 257, 259, 262, 266, 274, 277, 278, 284, 317, 322, 323}
_PLAIN = (
    (257, 0),
    (256, 0),
    (258, 1),
    (277, 1),
)  # tags of rows, columns, bits and samples, with their defaults
_WANTED = {*_TEXT_TAGS, *_SCALAR_TAGS, *_SEGMENT_OFFSETS, *_SEGMENT_COUNTS, 258, 339}


class _Incomplete(Exception):  # noqa: N818 - it carries a finding between two functions of this module
    """The file ends too early; the message says where."""


class _Damaged(Exception):  # noqa: N818 - as above
    """The file can never become complete; the message says why."""


def read_structure(path: Path, roots: Roots = ANYWHERE) -> Structure:
    """Return the structure of the file at `path`, resolved and below the read roots if there are any.

    Raises
    ------
    SourceMissingError, SourceUnreadableError
        if it does not exist or cannot be opened. Damage raises nothing: see `Structure.state`.
    OutsideRootsError
        if a folder of the path has become a symbolic link.

    """
    with reading(path), open_frame_file(path, roots) as file:
        return parse_structure(file)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Translate errors of the operating system while reading `path`."""
    try:
        yield
    except FileNotFoundError:
        raise SourceMissingError(path, "no such file", "Check the path.") from None
    except OSError as error:
        raise SourceUnreadableError(
            path, f"cannot read the file ({error.strerror})", "Check its permissions and the disk."
        ) from error


def parse_structure(file: BinaryIO) -> Structure:
    """Return the structure of an open file; raise `OSError` if it cannot be read."""
    status = os.fstat(file.fileno())
    parsed = _Parser(file, status.st_size)
    state, problem = parsed.run()
    return Structure(
        state=state,
        problem=problem,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        inode=status.st_ino,
        byte_order=parsed.order,
        big=parsed.big,
        ifd_last=parsed.ifd_last,
        pages=tuple(parsed.pages),
    )


class _Parser:
    """Walks the chain of directories of one open file; the results so far are attributes."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self.order: Literal["<", ">"] = "<"
        self.big = False
        self.pages: list[Page] = []
        self._last_ifd = 0
        self._values_left = MAX_VALUES
        self._bytes_left = size
        """How many bytes more out-of-line values may use: more than the file has only if they overlap."""

    @property
    def ifd_last(self) -> bool:
        """Whether all pixels precede the last directory, so that it was written after them."""
        ends = [end for page in self.pages for end in map(sum, zip(page.offsets, page.counts, strict=True))]
        return bool(ends) and max(ends) <= self._last_ifd

    def run(self) -> tuple[State, str]:
        try:
            offset = self._header()
            if offset is None:
                return "not_tiff", self._strange_start()
            seen: set[int] = set()
            while offset not in _NO_MORE:
                if offset in seen or len(seen) >= MAX_PAGES:
                    return "damaged", f"its directories form a loop, or there are more than {MAX_PAGES}"
                seen.add(offset)
                self._last_ifd = max(self._last_ifd, offset)
                offset = self._directory(offset)
        except _Incomplete as finding:
            return "incomplete", str(finding)
        except _Damaged as finding:
            return "damaged", str(finding)
        return "complete", ""

    def _read(self, offset: int, length: int, what: str) -> bytes:
        if offset + length > self._size:
            raise _Incomplete(
                f"{what} should be at bytes {offset} to {offset + length}, but the file ends at {self._size}"
            )
        self._file.seek(offset)
        data = b""
        while len(data) < length:
            more = self._file.read(length - len(data))
            if not more:
                raise _Incomplete(f"{what} ends early: the file shrank while it was read")
            data += more
        return data

    def _header(self) -> int | None:
        """Return the offset of the first directory, None if this is not a TIFF."""
        start = self._read(0, min(self._size, 4), "the header")
        kinds: dict[bytes, tuple[Literal["<", ">"], bool]] = {
            b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True),
        }  # fmt: skip
        if len(start) < 4:  # noqa: PLR2004 - the magic number has four bytes
            if any(magic.startswith(start) for magic in kinds):
                raise _Incomplete(f"it has only {self._size} bytes")
            return None
        if start == bytes(4):
            raise _Incomplete("it starts with zeros: the header is not written yet")
        if start not in kinds:
            return None
        self.order, self.big = kinds[start]
        offset = self._numbers(8, "Q", "the header")[0] if self.big else self._numbers(4, "I", "the header")[0]
        if not offset:
            raise _Incomplete("the directory is not written yet (its offset is 0)")
        return offset

    def _numbers(self, offset: int, codes: str, what: str) -> tuple[int, ...]:
        layout = struct.Struct(self.order + codes)
        return layout.unpack(self._read(offset, layout.size, what))

    def _directory(self, offset: int) -> int:
        """Parse the directory at `offset` and return the offset of the next one, 0 at the end of the chain."""
        what = f"directory {len(self.pages)}"
        count_code, entry_code, word = ("Q", "HHQ8s", 8) if self.big else ("H", "HHI4s", 4)
        (count,) = self._numbers(offset, count_code, what)
        entry = struct.Struct(self.order + entry_code)
        if count == 0:  # no TIFF has an empty directory: this is a hole
            raise _Incomplete(f"{what} at byte {offset} is not written yet")
        body = offset + struct.calcsize("=" + count_code)
        if count > MAX_ENTRIES and body + count * entry.size <= self._size:
            raise _Damaged(f"{what} has {count} entries (at most {MAX_ENTRIES})")
        data = self._read(body, count * entry.size + word, what)
        values: dict[int, tuple[int, ...] | bytes] = {}
        kept: dict[int, TagPlace] = {}
        for place, (tag, kind, number, inline) in enumerate(entry.iter_unpack(data[: count * entry.size])):
            if not kind:
                raise _Incomplete(f"{what} at byte {offset} is only partly written")
            value = self._value(tag, kind, number, inline)
            if value is not None and values.setdefault(tag, value) != value:
                raise _Damaged(f"{what} has tag {tag} twice, with different values")
            if tag >= _FIRST_PRIVATE_TAG or tag in KEPT_TAGS:
                self._spend(1, 0)
                at = body + (place + 1) * entry.size - len(inline)
                kept.setdefault(tag, self._place(tag, kind, number, inline, at))
        self.pages.append(self._page(values, tuple(kept.values())))
        return int(struct.unpack(self.order + ("Q" if self.big else "I"), data[-word:])[0])

    def _value(self, tag: int, kind: int, number: int, inline: bytes) -> tuple[int, ...] | bytes | None:
        """Return a value that we use, None for one that only has to be inside the file."""
        width, code = _FIELD_TYPES.get(kind, (0, None))
        length = width * number
        outside = length > len(inline)
        where = struct.unpack(self.order + ("Q" if self.big else "I"), inline)[0] if outside else 0
        if where + length > self._size and tag < _FIRST_PRIVATE_TAG:
            raise _Incomplete(
                f"the value of tag {tag} should end at byte {where + length}, but the file ends at {self._size}"
            )
        if code is None or code in "fd" or tag not in _WANTED:
            return None
        if code == "s":
            length = min(length, MAX_TEXT)
        elif number > MAX_SEGMENTS:
            raise _Damaged(f"tag {tag} has {number} values (at most {MAX_SEGMENTS})")
        if outside:
            self._spend(number, length)
        data = self._read(where, length, f"tag {tag}") if outside else inline[:length]
        return data if code == "s" else struct.unpack(f"{self.order}{number}{code}", data)

    def _place(self, tag: int, kind: int, number: int, inline: bytes, at: int) -> TagPlace:
        """Return the location of a value whose entry has `inline` at byte `at`."""
        length = _FIELD_TYPES.get(kind, (0, None))[0] * number
        if length > len(inline):
            at = struct.unpack(self.order + ("Q" if self.big else "I"), inline)[0]
        return TagPlace(tag, kind, number, at, length)

    def _spend(self, number: int, length: int) -> None:
        """Count out-of-line values before they are read."""
        self._values_left -= number
        self._bytes_left -= length
        if self._bytes_left < 0:
            raise _Damaged("values of its tags overlap")
        if self._values_left < 0:
            raise _Damaged(f"it has more than {MAX_VALUES} strips and tiles")

    def _page(self, values: dict[int, tuple[int, ...] | bytes], kept: tuple[TagPlace, ...]) -> Page:
        numbers = {tag: value for tag, value in values.items() if not isinstance(value, bytes)}
        offsets = next((numbers[tag] for tag in _SEGMENT_OFFSETS if tag in numbers), ())
        counts = next((numbers[tag] for tag in _SEGMENT_COUNTS if tag in numbers), ())
        if len(offsets) == 1 and counts in {(), (0,)}:
            counts = (_plain_bytes(numbers),)  # as other readers do
        if len(offsets) != len(counts):
            raise _Damaged(f"it has {len(offsets)} strips or tiles, but {len(counts)} lengths")
        for start, length in zip(offsets, counts, strict=True):
            if start + length > self._size:
                raise _Incomplete(f"the pixels should end at byte {start + length}, but the file ends at {self._size}")
        return Page(
            tags={tag: value[0] for tag, value in numbers.items() if tag in _SCALAR_TAGS and value},
            bits=numbers.get(258) or (1,),
            sample_formats=numbers.get(339) or (1,),
            offsets=offsets,
            counts=counts,
            texts={
                _TEXT_TAGS[tag]: value.split(b"\0")[0].decode("latin-1")
                for tag, value in values.items()
                if tag in _TEXT_TAGS and isinstance(value, bytes)
            },
            kept=kept,
        )

    def _strange_start(self) -> str:
        return f"it starts with {self._read(0, min(self._size, 4), 'the start')!r}"


def _plain_bytes(numbers: dict[int, tuple[int, ...]]) -> int:
    """Return the size of an uncompressed image in bytes, 0 for a compressed one."""
    rows, columns, bits, samples = (numbers.get(tag) or (default,) for tag, default in _PLAIN)
    compressed = (numbers.get(259) or (1,))[0] != 1
    return 0 if compressed else rows[0] * columns[0] * samples[0] * bits[0] // 8
