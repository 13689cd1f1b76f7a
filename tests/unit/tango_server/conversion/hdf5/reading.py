"""Short ways to read frames in tests."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tango_server.conversion.file_state import FileState
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.frame_header import FrameHeader
from tango_server.conversion.hdf5.frames import check_hdf5, open_hdf5
from tango_server.conversion.image.buffers import Workspace
from tango_server.conversion.image.own_mask import OwnMask

MADE = Path(__file__).parents[4] / "data" / "made"
"""Our own small files."""
REAL = Path(__file__).parents[6] / "shared" / "data" / "hdf5"
"""Public test data of other projects, which are not in this repository."""


@dataclass
class Read:
    """What was read of a frame."""

    image: np.ndarray[Any, Any]
    header: FrameHeader
    own_mask: OwnMask | None
    note: str

    @property
    def masked(self) -> int:
        return 0 if self.own_mask is None else int(np.count_nonzero(self.own_mask.of(self.image)))


def check(source: str | Path, index: int | None = None, roots: Roots = ANYWHERE) -> FileState:
    return check_hdf5(FrameLocation.of(source, index), roots)


def read(source: str | Path, index: int | None = None, roots: Roots = ANYWHERE) -> Read:
    with open_hdf5(FrameLocation.of(source, index), Workspace(), roots) as frame:
        (image,) = [each.copy() for each in frame.read()]
        assert frame.images[0].shape == image.shape
        assert frame.images[0].pixel_type == image.dtype.newbyteorder("=")
        return Read(image, frame.header, frame.own_mask, frame.note)


def frames(count: int, base: int = 0, pixel_type: str = "uint16") -> np.ndarray[Any, Any]:
    """Return frames like those of the made files."""
    numbers = np.arange(1, count + 1)[:, None, None] * 1000
    rows, columns = np.mgrid[:32, :48]
    return np.asarray((base + numbers + 32 * rows + columns) % 30000, pixel_type)
