"""The registry of the formats of frames: by what each is recognised, and how it is checked and opened.

A new format is a package beside this module, with the two functions that `frame_source` describes, and one line here.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tango_server.conversion.cbf.reader import check_cbf, open_cbf
from tango_server.conversion.edf.reader import check_edf, open_edf
from tango_server.conversion.errors import UnsupportedImageError
from tango_server.conversion.file_state import FileState
from tango_server.conversion.files.frame_file import open_frame_file
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.frame_source import FrameSource
from tango_server.conversion.image.buffers import Workspace
from tango_server.conversion.tiff.parser import reading
from tango_server.conversion.tiff.reader import check_tiff, open_tiff

Check = Callable[[FrameLocation, Roots], FileState]
Open = Callable[[FrameLocation, Workspace, Roots], AbstractContextManager[FrameSource]]

_HEAD = 4096  # bytes
_TIFF_SUFFIXES = (".tif", ".tiff")
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Format:
    """A format of frames: its `name`, and how it is recognised by the first bytes, checked and opened.

    `may_crash`: whether a damaged file may kill its reader, so that a process that others need must not open it.
    """

    name: str
    recognises: Callable[[bytes], bool]
    check: Check
    open: Open
    may_crash: bool = False


class OwnProcessNeededError(Exception):
    """A file may kill its reader, and so it was not opened in this process."""


@contextmanager
def _open_tiff(location: FrameLocation, workspace: Workspace, roots: Roots) -> Iterator[FrameSource]:
    require_single(location)
    with open_tiff(location.file, workspace, roots) as tiff:
        yield tiff.source


def _check_hdf5(location: FrameLocation, roots: Roots) -> FileState:
    from tango_server.conversion.hdf5.frames import check_hdf5  # noqa: PLC0415 - most workers never need it
    from tango_server.conversion.lambda_detector.frame import check_lambda, is_lambda_module  # noqa: PLC0415

    if is_lambda_module(location, roots):
        return check_lambda(location, roots, modules=location.modules)
    return check_hdf5(location, roots)


@contextmanager
def _open_hdf5(location: FrameLocation, workspace: Workspace, roots: Roots) -> Iterator[FrameSource]:
    from tango_server.conversion.hdf5.frames import open_hdf5  # noqa: PLC0415 - most workers never need it
    from tango_server.conversion.lambda_detector.frame import is_lambda_module, open_lambda  # noqa: PLC0415

    if is_lambda_module(location, roots):
        with open_lambda(location, workspace, roots, modules=location.modules) as source:
            yield source
    else:
        with open_hdf5(location, workspace, roots) as source:
            yield source


_TIFF = Format("TIFF", lambda head: head[:2] in {b"II", b"MM"}, check_tiff, _open_tiff)
_FORMATS = (
    _TIFF,
    Format("CBF", lambda head: head.lstrip().startswith(b"###CBF"), check_cbf, open_cbf),
    Format("HDF5", lambda head: head.startswith(_HDF5_SIGNATURE), _check_hdf5, _open_hdf5, may_crash=True),
    Format("EDF", lambda head: head.lstrip().startswith(b"{"), check_edf, open_edf),
)

FRAME_SUFFIXES: tuple[str, ...] = _TIFF_SUFFIXES
"""What the names of frames in a folder end with, in any case."""
if find_spec("h5py") is not None:
    FRAME_SUFFIXES += (".cbf", ".edf", ".mccd", ".h5", ".hdf5", ".nxs")


def check_file(location: FrameLocation, roots: Roots = ANYWHERE, *, may_crash: bool = True) -> FileState:
    """Return whether a frame is complete, or with `index=None` a whole file. A file of an unknown format is damaged.

    Raises
    ------
    OwnProcessNeededError
        if its reader might kill this process, and this process may not crash. The same bytes decide that and the
        format: a detector may create the file just now.
    SourceError
        if it does not exist, cannot be opened, or can never be converted.
    OutsideRootsError
        if it, or a file that it refers to, is outside the read roots.
    """
    known = format_of(location.file, roots)
    if known.may_crash and not may_crash:
        raise OwnProcessNeededError(str(location))
    return known.check(location, roots)


@contextmanager
def open_frame(
    location: FrameLocation, workspace: Workspace | None = None, roots: Roots = ANYWHERE
) -> Iterator[FrameSource]:
    """Open a frame of any format; `workspace` is memory to read into (default: a new one). Raises as `check_file` does.

    With read roots, the path is resolved and below them.
    """
    with format_of(location.file, roots).open(location, workspace or Workspace(), roots) as source:
        yield source


def needs_own_process(path: Path, roots: Roots = ANYWHERE) -> bool:
    """Return whether the reader of a file may crash, so that it must not be opened in a process that others need.

    Raises as `check_file` does if the file cannot be read.
    """
    return format_of(path, roots).may_crash


def format_of(path: Path, roots: Roots = ANYWHERE) -> Format:
    """Return the format of a file; TIFF, whose reader reports what is wrong, if none recognises it.

    A name that ends like a TIFF's is believed: to open each frame once more takes long on a file server.
    """
    if _is_named_tiff(path):
        return _TIFF
    head = _head(path, roots)
    return next((known for known in _FORMATS if known.recognises(head)), _TIFF)


def require_single(location: FrameLocation) -> None:
    """Raise `UnsupportedImageError` if a frame of several in a file is named, where there is just one."""
    if location.index is not None or location.data_set:
        raise UnsupportedImageError(
            location.file, f"{location} does not exist: a file of this format is one frame", "Leave out the index."
        )


def _is_named_tiff(path: Path) -> bool:
    return path.suffix.lower() in _TIFF_SUFFIXES


def _head(path: Path, roots: Roots) -> bytes:
    with reading(path), open_frame_file(path, roots) as file:
        return file.read(_HEAD) or b""
