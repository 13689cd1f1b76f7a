"""Lists the frames of a folder, and the changes between two scans."""

import os
import zlib
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.files.sandbox import open_folder
from tango_server.conversion.files.series_names import makes_jobs
from tango_server.conversion.formats import FRAME_SUFFIXES
from tango_server.jobs.clock import now
from tango_server.jobs.state_machine.events import Instant

EXPECTED = f"Expected {', '.join(FRAME_SUFFIXES[:-1])} or {FRAME_SUFFIXES[-1]} files"
"""What to say of a folder without frames."""
_QUIET_AFTER = 60.0
"""Age (s) of the last change of a folder from which on it is listed only after the next change."""
_LISTED_ANYWAY = 60.0
"""Time (s) after which a quiet folder is listed anyway."""


def is_frame_name(name: str, *, skip_dark: bool = True) -> bool:
    """Whether a file of this name counts as one of frames: by its suffix, and not a dark if `skip_dark`.

    >>> is_frame_name("pat-00001.TIF"), is_frame_name("pat-00001.dark.tif"), is_frame_name("pat-00001.tif.metadata")
    (True, False, False)
    """
    lower = name.lower()
    return lower.endswith(FRAME_SUFFIXES) and not name.startswith(".") and not (skip_dark and "dark" in lower)


def frames_in(
    folder: Path, *, recursive: bool = False, skip_dark: bool = True, roots: Roots = ANYWHERE
) -> Iterator[Path]:
    """Yield the files of frames in a folder ordered by name, followed by those of sub-folders if `recursive`.

    Of files whose frames are converted together, such as the modules of a Lambda, only the one that stands for them.
    With read roots, the folder must be a resolved path below them.

    Raises
    ------
    OSError
        if the folder can't be listed.
    OutsideRootsError
        if its path now contains a symbolic link.

    """
    with open_folder(folder, roots.read) as opened, opened.handle() as handle, os.scandir(handle) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
        named = {entry.name: entry for entry in listed if is_frame_name(entry.name, skip_dark=skip_dark)}
        frames = [name for name, entry in named.items() if makes_jobs(name, named) and _is_file(entry)]
        deeper = [entry.name for entry in listed if recursive and entry.is_dir(follow_symlinks=False)]
    yield from (folder / name for name in frames)
    for name in deeper:
        yield from frames_in(folder / name, recursive=True, skip_dark=skip_dark, roots=roots)


@dataclass(frozen=True, slots=True)
class Listing:
    """Result of one scan of a folder. Names are relative to the folder, with `/` between their parts.

    `came` and `gone` are the frames that appeared and vanished since the previous scan. `unlisted` are the sub-folders
    that could not be listed, each with the reason: frames below them neither came nor went. `excluded` are existing
    sub-folders that were not scanned.
    """

    came: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    unlisted: Mapping[str, str] | None = None
    excluded: frozenset[str] = frozenset()


class _Quiet(NamedTuple):
    """A folder that has not changed for a while: its modification time (ns), and its sub-folders."""

    modified: int
    until: float
    """When it is listed again (monotonic s)."""
    deeper: list[str]
    seen: bytes
    """The names that need no second check."""


class FrameLister:
    """Scans the names in a folder repeatedly, with as few file system calls as possible.

    One listing per folder and scan, which gives names and types; files are not touched. Of a quiet folder only the
    modification time is read, and it is listed once a minute anyway: some file systems keep no such time, or a coarse
    one. Hidden folders and links to folders are left out. `known` are the frames that were there at the last scan of an
    earlier lister.
    """

    def __init__(
        self, root: Path, known: Iterable[str] = (), *, recursive: bool = False, clock: Callable[[], Instant] = now
    ) -> None:
        self._root = root
        self._clock = clock
        self._quiet: dict[str, _Quiet] = {}
        self._recursive = recursive
        self._seen: dict[str, set[str]] = {}
        """The names in each folder that need no second check: frames and irrelevant files."""
        for name in known:
            folder, _, last = name.rpartition("/")
            self._seen.setdefault(folder, set()).add(last)

    def scan(self, excluded: Collection[Path] = ()) -> Listing:
        """Return the changes since the last scan. Folders in `excluded` (absolute) are ignored.

        Raises
        ------
        OSError
            if the folder itself can't be listed; the scan then has no effect.

        """
        came: list[str] = []
        gone: list[str] = []
        unlisted: dict[str, str] = {}
        left: set[str] = set()
        reached: set[str] = set()
        to_list = [""]
        while to_list:
            folder = to_list.pop()
            reached.add(folder)
            try:
                deeper = self._deeper(folder, came, gone)
            except OSError as error:
                if not folder:
                    raise
                if not isinstance(error, FileNotFoundError | NotADirectoryError):  # else it has just vanished
                    unlisted[folder] = error.strerror or str(error)
                continue
            left.update(path for path in deeper if self._root / path in excluded)
            to_list += [path for path in deeper if path not in left]
        gone += self._gone_with_their_folders(reached, unlisted)
        return Listing(tuple(came), tuple(gone), unlisted, frozenset(left))

    def _deeper(self, folder: str, came: list[str], gone: list[str]) -> list[str]:
        """Record what came and went in one folder, if it may have changed, and return its sub-folders."""
        modified = os.stat(self._root / folder).st_mtime_ns  # noqa: PTH116 - as the listing below, without a Path
        reading, quiet = self._clock(), self._quiet.get(folder)
        if quiet is not None and quiet.modified == modified and reading.monotonic < quiet.until:
            return quiet.deeper
        entries = _entries(self._root / folder)
        self._wake(folder)
        deeper, undecided = self._compare(folder, entries, came, gone)
        if not undecided and reading.wall - modified / 1e9 >= _QUIET_AFTER:
            seen = packed_names(self._seen.pop(folder))
            self._quiet[folder] = _Quiet(modified, reading.monotonic + _LISTED_ANYWAY, deeper, seen)
        return deeper

    def _wake(self, folder: str) -> None:
        quiet = self._quiet.pop(folder, None)
        if quiet is not None:
            self._seen[folder] = unpacked_names(quiet.seen)

    def _compare(
        self, folder: str, entries: dict[str, "os.DirEntry[str]"], came: list[str], gone: list[str]
    ) -> tuple[list[str], bool]:
        """Record what came and went in one folder.

        Return its sub-folders, in reverse order, and whether an entry may become a frame although the folder stays.
        """
        seen = self._seen.setdefault(folder, set())
        deeper = []
        undecided = False
        for name in sorted(entries.keys() - seen):
            entry = entries[name]
            if self._recursive and not name.startswith(".") and entry.is_dir(follow_symlinks=False):
                deeper.append(_below(folder, name))
            elif not _counts(name, entries):
                seen.add(name)
            elif _is_file(entry):  # if not, it may become one: a link whose target does not exist yet
                seen.add(name)
                came.append(_below(folder, name))
            else:
                undecided = True
        vanished = seen - entries.keys()
        if vanished:
            gone += [_below(folder, name) for name in sorted(vanished) if _counts(name, seen)]
            seen -= vanished
        return deeper[::-1], undecided

    def _gone_with_their_folders(self, reached: set[str], unlisted: Mapping[str, str]) -> list[str]:
        gone = []
        for folder in (self._seen.keys() | self._quiet.keys()) - reached:
            if any(folder.startswith(f"{other}/") for other in unlisted):
                continue
            self._wake(folder)
            seen = self._seen.pop(folder)
            gone += [_below(folder, name) for name in seen if _counts(name, seen)]
        return gone


def _counts(name: str, beside: Container[str]) -> bool:
    """Whether the frames of a file are converted from this file, and not from another one beside it."""
    return is_frame_name(name) and makes_jobs(name, beside)


def _entries(folder: Path) -> dict[str, "os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        return {entry.name: entry for entry in entries}


def _is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link loop, or no permission
        return False


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def packed_names(names: set[str]) -> bytes:
    """Return names, which need not be valid Unicode, in compressed form.

    >>> unpacked_names(packed_names({"a.tif", "b.tif"})) == {"a.tif", "b.tif"}
    True
    """
    return zlib.compress("\0".join(sorted(names)).encode("utf-8", "surrogatepass"))


def unpacked_names(packed: bytes) -> set[str]:
    """Return the names of `packed_names`."""
    text = zlib.decompress(packed).decode("utf-8", "surrogatepass")
    return set(text.split("\0")) if text else set()
