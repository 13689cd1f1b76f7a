"""HDF5 files that a worker keeps open (see `keep_open`), since opening one for each frame takes long.

- Read-only and without locks, so that the writer, which may be the detector, is never in the way of a reader, nor the
  reader in the way of the writer. A file that is open for SWMR writing is opened as its reader.
- A handle is used again while inode, size and modification time of its file are the same. When one file has changed,
  all handles are closed before any is opened: HDF5 shares what it knows of a file between its handles, and would give
  old data through new ones (HDF5 issue 6374).
- HDF5 itself opens no other file: links, virtual sources and raw storage are followed by `links`, `virtual` and
  `pixels`, each path checked against the roots. A file is opened without following symbolic links below its root.
"""

import contextlib
import hashlib
import os
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from tango_server.conversion.errors import (
    ConversionError,
    IncompleteFileError,
    SourceMissingError,
    SourceUnreadableError,
)
from tango_server.conversion.files.frame_file import open_frame_file
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.hdf5.h5py_access import READER_ERRORS, h5py_for, reading, reason
from tango_server.conversion.hdf5.swmr import open_as_reader

Identity = tuple[int, int, int]
"""Inode, size and modification time (ns) of a file."""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SMALLEST = 96  # bytes of a superblock and the root group's header
_REMEMBERED = 1000
LARGEST_CACHE = 512 * 2**20
"""Bytes of decoded chunks that are kept for one data set."""
_lock = threading.RLock()
_kept: dict[Path, "HDF5File"] = {}
_most_kept = 0


@dataclass(slots=True, eq=False)
class HDF5File:
    """An open file.

    Parameters
    ----------
    path, named: resolved, and as it was given
    file: h5py's
    swmr: whether its writer has it open, or left it so
    identity: when it was opened
    objects: those that were read before
    notes: what was found out about it, for as long as no kept file changes

    """

    path: Path
    named: Path
    file: Any
    swmr: bool
    identity: Identity
    objects: dict[str, Any] = field(default_factory=dict)
    notes: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes now: a growing file has more than when it was opened."""
        with reading(self.path):
            return self.path.stat().st_size

    def object(self, name: str) -> Any:
        """Return the object at a path without links to other files (see `links`); a data set is ready to be read.

        Its chunk cache holds the chunks of one frame if they hold further frames too.
        """
        found = self.objects.get(name)
        if found is None:
            with reading(self.path, f"{name} cannot be read"):
                found = self.file[name]
                if isinstance(found, h5py_for(self.path).Dataset):
                    found = _with_cache(found)
                if len(self.objects) < _REMEMBERED:
                    self.objects[name] = found
        return found

    def refresh(self) -> None:
        """Notice what the writer has appended since."""
        self.notes.clear()
        if self.swmr:
            for each in self.objects.values():
                if isinstance(each, h5py_for(self.path).Dataset):
                    with reading(self.path):
                        each.id.refresh()


class OpenFiles:
    """The files that are read for one frame, below `roots`."""

    def __init__(self, roots: Roots) -> None:
        self.roots = roots
        self._opened: dict[Path, HDF5File] = {}
        self._used: dict[Path, Identity] = {}

    def use(self, file: HDF5File) -> None:
        """Note that pixels come from a file."""
        self._used[file.path] = file.identity

    def open(self, path: Path) -> HDF5File:
        """Return the open file at `path`.

        Raises
        ------
        OutsideRootsError
            if it is outside the folders that may be read.
        SourceMissingError
            if there is no such file.
        IncompleteFileError
            if it may still become readable.
        SourceUnreadableError
            if it is not an HDF5 file, or damaged.

        """
        resolved = self.roots.named.source(path)
        found = self._opened.get(resolved)
        if found is None:
            kept = _kept.pop(resolved, None)
            found = kept or _opened(resolved, path, self.roots)
            found.named = path
            _kept[resolved] = self._opened[resolved] = found  # the latest last
        return found

    @contextmanager
    def raw(self, path: Path) -> Iterator[FileIO]:
        """Open a file that is not HDF5: external raw storage; raises as `open` does."""
        resolved = self.roots.named.source(path)
        with reading(path):
            file = open_frame_file(resolved, self.roots.named)
        with file:
            self._used[resolved] = _identity(os.fstat(file.fileno()))
            yield file

    @property
    def identity(self) -> Identity:
        """Of the only file that was used; of several, numbers that change when one of them does."""
        every = self._used
        if len(every) == 1:
            return next(iter(every.values()))
        digest = hashlib.blake2b(repr(sorted(every.items())).encode(errors="surrogateescape"), digest_size=7).digest()
        size, modified = (sum(each[1] for each in every.values()), max((each[2] for each in every.values()), default=0))
        return int.from_bytes(digest, "big"), size, modified

    def identity_with(self, path: Path) -> Identity:
        """Return the same, of the file at `path` if none could be opened; zeros if there is none."""
        if self._used:
            return self.identity
        with contextlib.suppress(OSError):
            return _identity(path.stat())
        return 0, 0, 0


@contextmanager
def open_files(roots: Roots) -> Iterator[OpenFiles]:
    """Give access to HDF5 files below `roots`, for one frame; files that changed since the last one are reopened.

    One thread at a time: h5py itself does nothing in parallel. After an error no handle is kept, so that the next
    attempt sees what the file has become even if its size and time are still the same.
    """
    with _lock:
        if any(_changed(each) for each in _kept.values()):
            close_all()
        if any(each.swmr for each in _kept.values()):
            for each in _kept.values():
                each.refresh()
        files = OpenFiles(roots)
        try:
            yield files
        except (ConversionError, *READER_ERRORS):
            close_all()
            raise
        while len(_kept) > _most_kept:
            _close(_kept.pop(next(iter(_kept))))
            for each in _kept.values():  # the notes may be about the file that is no longer watched for changes
                each.notes.clear()


def keep_open(files: int = 8) -> None:
    """Keep this number of files open between frames: for a process that converts frame after frame, and nothing else.

    By default none is: while a file is open, h5py refuses to open it in another way in the same process, with locks for
    example. On Windows none is at all: a SWMR writer could not close its file.
    """
    global _most_kept  # noqa: PLW0603 - handles are the process's
    _most_kept = 0 if os.name == "nt" else files


def close_all() -> None:
    """Close all files that this process keeps open."""
    with _lock:
        while _kept:
            _close(_kept.popitem()[1])


def _close(each: HDF5File) -> None:
    each.objects.clear()
    each.file.close()


def _changed(kept: HDF5File) -> bool:
    try:
        return _identity(os.stat(kept.path)) != kept.identity  # noqa: PTH116 - for each frame
    except OSError:
        return True


def _identity(status: os.stat_result) -> Identity:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _opened(path: Path, named: Path, roots: Roots) -> HDF5File:
    with reading(path):
        file = open_frame_file(path, roots.named)
    with file:
        with reading(path):
            identity = _identity(os.fstat(file.fileno()))
            head = file.read(_SMALLEST)
        if len(head) < _SMALLEST or not head.strip(b"\0"):
            raise IncompleteFileError(path, f"only {identity[1]} bytes of an HDF5 file, or nothing but zeros", _WAITING)
        return HDF5File(path, named, *_handle(path, _name_of(file, path), head), identity)


def _handle(path: Path, name: str, head: bytes) -> tuple[Any, bool]:
    """Return h5py's file, and whether it is open as the reader of a SWMR writer."""
    h5py = h5py_for(path)
    try:
        return h5py.File(name, "r", locking=False), False
    except READER_ERRORS as error:
        if "locking flag" in str(error):  # open in this process already, with locks
            with reading(path):
                return h5py.File(name, "r"), False
        if "already open for write" not in str(error):
            raise _unreadable(path, head, error) from error
    try:
        return open_as_reader(h5py, name), True
    except READER_ERRORS as error:
        what = "it is still being written, or was left open by its writer (h5clear on a copy)"
        raise IncompleteFileError(path, what, _WAITING) from error


_WAITING = "If it is no longer being written, check what wrote it."


def _unreadable(path: Path, head: bytes, error: BaseException) -> ConversionError:
    if "truncated" in str(error):
        return IncompleteFileError(path, f"it is cut off ({reason(error)})", _WAITING)
    if isinstance(error, FileNotFoundError):
        return SourceMissingError(path, "no such file", "Check the path.")
    what = "HDF5 cannot open it" if head.startswith(_SIGNATURE) else "not an HDF5 file"
    return SourceUnreadableError(path, f"{what} ({reason(error)})", "Check what wrote this file.")


def _name_of(file: FileIO, path: Path) -> str:
    """Return the name of a file that was opened without following links, for a library that opens it by name."""
    by_descriptor = f"/proc/self/fd/{file.fileno()}"
    return by_descriptor if os.path.exists(by_descriptor) else str(path)  # noqa: PTH110 - a link


def _with_cache(dataset: Any) -> Any:
    """Return a data set whose chunk cache holds all chunks that cut a frame, if they are encoded with other frames."""
    chunk, shape = dataset.chunks, dataset.shape
    if not chunk or all(side == 1 for side in chunk[:-2]) or not dataset.id.get_create_plist().get_nfilters():
        return dataset
    across = -(-shape[-2] // chunk[-2]) * -(-shape[-1] // chunk[-1])
    needed = across * dataset.dtype.itemsize
    for side in chunk:
        needed *= side
    if not 0 < needed <= LARGEST_CACHE:
        return dataset
    h5py = h5py_for(Path(dataset.file.filename))
    file, name = dataset.file, dataset.name.encode()
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_chunk_cache(max(521, 10 * across), needed, 0.75)
    dataset.id.close()  # as long as it is open, another handle shares its cache
    return h5py.Dataset(h5py.h5d.open(file.id, name, access))
