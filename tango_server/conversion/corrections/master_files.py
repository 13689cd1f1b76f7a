"""Read a master (dark, flat or mask) from a TIFF, EDF, CBF or `.npy` file, or an HDF5 data set.

The format is recognised by the first bytes, since Dioptas names its masks, which are TIFFs, `.mask`.
"""

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BufferedReader
from os import fstat, stat_result
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.errors import (
    ConversionError,
    MasterMissingError,
    MasterUnreadableError,
    PathError,
)
from tango_server.conversion.files.frame_file import open_frame_file
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.frame_header import NO_HEADER, FrameHeader
from tango_server.conversion.image.buffers import Workspace
from tango_server.conversion.image.orientation import Orientation
from tango_server.conversion.sidecar import header_of
from tango_server.conversion.tiff.reader import tiff_in
from tango_server.recipe import Recipe
from tango_server.recipe.corrections import split_master

_LARGEST = 2**31  # bytes of one master
_ATTEMPTS = 3
_CBF_BINARY = b"\x0c\x1a\x04\xd5"
_READER_ERRORS = (OSError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, AttributeError,
                  AssertionError, MemoryError, EOFError, SyntaxError)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class MasterImage:
    """A master as it was read: `image` has (rows, columns) or (frames, rows, columns); `sha256` of its bytes.

    `turned`: the orientation in which this program wrote it, None for files of others. `modified`: in Unix s.
    """

    path: str
    sha256: str
    image: NDArray[Any]
    header: FrameHeader
    turned: Orientation | None = None
    modified: float = 0.0


Identity = tuple[int, int, int]
"""Inode, size and modification time (ns) of a file."""


def split(text: str, source: Path) -> tuple[Path, str]:
    """Return the file and the data set that the path of a master names; `::/x` is in the frame's own file `source`.

    >>> split("/data/run.h5::/exchange/dark", Path("/data/frame.h5"))
    (PosixPath('/data/run.h5'), '/exchange/dark')
    """
    file, data_set = split_master(text)
    return (Path(file) if file else source), data_set


def identity_of(path: Path, roots: Roots = ANYWHERE) -> Identity:
    """Return the identity of a master's file now; raise as `read_master` does."""
    with _opened(path, roots) as file:
        return _identity(fstat(file.fileno()))


def read_master(text: str, roots: Roots = ANYWHERE, source: Path = Path()) -> tuple[MasterImage, Identity]:
    """Return a master and the identity of the file that was read.

    Parameters
    ----------
    text: its path, with `::/data/set` for HDF5
    roots: the folders that may be read; if there are any, the path is resolved and below them
    source: the frame to be corrected, for `::/data/set` in its own file

    Raises
    ------
    MasterMissingError
        if there is no such file.
    MasterUnreadableError
        if it cannot be read, is not an image, or changes again and again while it is read.
    OutsideRootsError
        if it is outside the read roots.

    """
    path, data_set = split(text, source)
    for _ in range(_ATTEMPTS):
        with _opened(path, roots) as file:
            before = _identity(fstat(file.fileno()))
            if before[1] > _LARGEST and not data_set:
                raise _unreadable(text, f"it has {before[1]} bytes, more than any master")
            master = _read(text, path, data_set, file, roots)
            if _identity(fstat(file.fileno())) == before:
                return replace(master, modified=before[2] / 1e9), before
    raise _unreadable(text, "it changes while it is read")


def _read(text: str, path: Path, data_set: str, file: BufferedReader, roots: Roots) -> MasterImage:
    head = file.read(16)
    file.seek(0)
    if data_set or head.startswith(b"\x89HDF"):
        image = _guarded(text, lambda: _hdf5(text, path, data_set))
        return MasterImage(text, hashlib.sha256(image.tobytes()).hexdigest(), image, NO_HEADER)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    if head[:2] in {b"II", b"MM"}:
        image, header, turned = _tiff(text, path, file, roots)
        return MasterImage(text, digest, image, header, turned)
    if head.startswith(b"\x93NUMPY"):
        image = _guarded(text, lambda: np.load(file, allow_pickle=False))
    elif head.lstrip().startswith((b"{", b"###CBF")):
        kind = "cbf" if head.lstrip().startswith(b"#") else "edf"
        image = _guarded(text, lambda: _fabio(file.read(), kind))
    else:
        raise _unreadable(text, "it is none of TIFF, EDF, CBF, .npy and HDF5")
    return MasterImage(text, digest, _image(text, image), NO_HEADER)


def _tiff(
    text: str, path: Path, file: BufferedReader, roots: Roots
) -> tuple[NDArray[Any], FrameHeader, Orientation | None]:
    try:
        source = tiff_in(path, file, Workspace()).source
        pages = [image.astype(image.dtype.newbyteorder("="), copy=True) for image in source.read()]
        header = header_of(source, roots.named)
    except PathError:
        raise
    except ConversionError as error:
        raise _unreadable(text, error.problem) from error
    if len({page.shape for page in pages}) > 1:
        raise _unreadable(text, "its pages have different shapes")
    made = source.provenance
    turned = None
    if made is not None and made.recipe is not None:
        turning = {name: made.recipe[name] for name in ("rotation", "flip") if name in made.recipe}
        turned = Orientation.of(Recipe.model_validate(turning))
    return (pages[0] if len(pages) == 1 else np.stack(pages)), header, turned


def _fabio(data: bytes, kind: str) -> NDArray[Any]:
    """Return the frames of an EDF or the frame of a CBF file."""
    from fabio.cbfimage import CbfImage  # noqa: PLC0415 - half a second of import that most masters don't need
    from fabio.edfimage import EdfImage  # noqa: PLC0415
    from fabio.fabioutils import BytesIO  # noqa: PLC0415

    if kind == "cbf":
        _require_sum(data)
    opened = (CbfImage() if kind == "cbf" else EdfImage()).read(BytesIO(data))
    frames = [opened.data, *(opened.getframe(number).data for number in range(1, opened.nframes))]
    if any(frame is None for frame in frames) or any(
        getattr(frame, "incomplete_data", False) for frame in getattr(opened, "_frames", ())
    ):
        raise ValueError("it is damaged or cut off")
    return np.asarray(frames[0] if len(frames) == 1 else frames)


def _require_sum(cbf: bytes) -> None:
    """Raise `ValueError` if the binary section of a CBF is not what its header says; fabio only logs that."""
    header, mark, rest = cbf.partition(_CBF_BINARY)
    stated = dict(re.findall(rb"(X-Binary-Size|Content-MD5): *(\S+)", header))
    size = int(stated.get(b"X-Binary-Size", -1))
    if not mark or not 0 <= size <= len(rest):
        raise ValueError("it is damaged or cut off")
    if b"Content-MD5" in stated:
        found = base64.b64encode(hashlib.md5(rest[:size], usedforsecurity=False).digest())
        if found != stated[b"Content-MD5"]:
            raise ValueError("the MD5 of its pixels differs from that in its header")


def _hdf5(text: str, path: Path, data_set: str) -> NDArray[Any]:
    """Return a data set; read without a lock, so that a detector may go on writing the file."""
    try:
        import h5py  # noqa: PLC0415 - of the extra `formats`
        import hdf5plugin  # noqa: F401, PLC0415 - registers the compressions of detectors
    except ImportError as error:
        raise _unreadable(text, "HDF5 needs the extra `formats`: pip install petif-bluesky[formats]") from error
    if not data_set:
        raise _unreadable(text, "the data set is not named: add it as FILE::/PATH")
    with h5py.File(path, "r", locking=False) as file:
        place: Any = file
        for name in filter(None, data_set.split("/")):
            link = place.get(name, getlink=True) if isinstance(place, h5py.Group) else None
            if not isinstance(link, h5py.HardLink):
                raise _unreadable(text, f"{name!r} is not a data set of the file itself")
            place = place[name]
        if not isinstance(place, h5py.Dataset) or place.is_virtual or place.external:
            raise _unreadable(text, "it is not a data set with its values in the file itself")
        if place.size * place.dtype.itemsize > _LARGEST:
            raise _unreadable(text, f"it has shape {place.shape}, more than any master")
        return _image(text, place[()])


def _image(text: str, values: Any) -> NDArray[Any]:
    """Return an image of native numbers; raise `MasterUnreadableError` if these are not an image's."""
    image = np.asarray(values)
    if image.dtype.kind == "b":
        image = image.astype(np.uint8)
    if image.dtype.kind not in "iuf" or image.ndim not in {2, 3} or not image.size:
        raise _unreadable(text, f"not an image but {image.dtype} of shape {image.shape}")
    return image.astype(image.dtype.newbyteorder("="), copy=False)


def _guarded(text: str, read: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    try:
        return read()
    except _READER_ERRORS as error:
        raise _unreadable(text, f"{type(error).__name__}: {error}") from error


def _opened(path: Path, roots: Roots) -> BufferedReader:
    readable = roots.named
    try:
        return BufferedReader(open_frame_file(readable.source(path), readable))
    except FileNotFoundError:
        raise MasterMissingError(path, "no such master", "Check the recipe's corrections.") from None
    except OSError as error:
        raise _unreadable(str(path), f"{error.strerror}") from error


def _identity(status: stat_result) -> Identity:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _unreadable(text: str, problem: str) -> MasterUnreadableError:
    return MasterUnreadableError(text, f"cannot be used as a master: {problem}", "Check the recipe's corrections.")
