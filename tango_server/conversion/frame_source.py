"""An open frame, whatever its format: what the conversion needs to know, and a function that reads its pixels.

A format is a folder of this package with two functions, listed in `formats`:

`check_NAME(location, roots) -> FileState`
    whether the frame is complete; raises `SourceError` for what can never be converted, `OutsideRootsError`
`open_NAME(location, workspace, roots) -> context manager of FrameSource`
    the frame while its file is open; raises likewise, `IncompleteFileError` where it may still become complete

Both get the location of one frame, or with `index=None` of a file, which for the second is an error in a file of
several frames.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tango_server.conversion.file_state import FileState
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.frame_header import NO_HEADER, FrameHeader
from tango_server.conversion.image.buffers import Workspace
from tango_server.conversion.image.orientation import AS_STORED, Orientation
from tango_server.conversion.image.own_mask import OwnMask
from tango_server.conversion.image.pixels import Image
from tango_server.conversion.provenance import Provenance


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """One image: `shape` (rows, columns) and native `pixel_type` as stored, `stored`: the orientation by its tag."""

    shape: tuple[int, int]
    pixel_type: np.dtype[Any]
    stored: Orientation = AS_STORED


@dataclass(frozen=True, slots=True, eq=False)
class FrameSource:
    """An open, complete frame. Several `images` are the pages of one TIFF, which become one output.

    Parameters
    ----------
    location: where it is
    state: of its file
    images: what is known of each image before it is read
    read: yields the images as arrays (rows, columns) in the file's own pixel type and byte order, each valid until the
        next; raises `SourceError` if the pixels cannot be decoded
    workspace: memory that the conversion reuses
    rows: reads some rows of the only image, valid until the next; None where it has to be decoded as a whole
    header: what the file itself states
    own_mask: the file's own mask, for all images; None without one
    provenance: of a file that we wrote; None for every other file
    note: on how it was read, for the report

    """

    location: FrameLocation
    state: FileState
    images: tuple[ImageInfo, ...]
    read: Callable[[], Iterator[Image]]
    workspace: Workspace
    header: FrameHeader = NO_HEADER
    own_mask: OwnMask | None = None
    provenance: Provenance | None = None
    note: str = ""
    rows: Callable[[slice], Image] | None = None

    @property
    def bytes_in(self) -> int:
        """Bytes read for this frame: the size of its file, or of its pixels if the file has several frames."""
        if self.location.index is None:
            return self.state.size
        return sum(
            rows * columns * image.pixel_type.itemsize for image in self.images for rows, columns in [image.shape]
        )
