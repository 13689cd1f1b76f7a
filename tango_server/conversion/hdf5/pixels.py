"""Read the pixels of a frame into memory that the conversion uses again."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tango_server.conversion.errors import IncompleteFileError, UnsupportedImageError
from tango_server.conversion.hdf5.bitshuffle import decoded
from tango_server.conversion.hdf5.h5py_access import reading
from tango_server.conversion.hdf5.links import WAIT, linked_path
from tango_server.conversion.hdf5.open_files import OpenFiles
from tango_server.conversion.hdf5.stated_size import require_stated_sizes
from tango_server.conversion.hdf5.storage import byte_range, external_storage, is_stored_as_in_numpy
from tango_server.conversion.hdf5.virtual import Region
from tango_server.conversion.image.pixels import Image


def read_regions(files: OpenFiles, regions: Sequence[Region], image: Image) -> None:
    """Read all regions of a frame into `image`, which has the pixel type of the frame's own data set.

    Raises
    ------
    SourceUnreadableError
        if a chunk does not decode.
    IncompleteFileError
        if a raw file became too short.
    UnsupportedImageError
        if a raw file has pixels that numpy does not have.

    """
    for region in regions:
        rows, columns = region.shape
        target = np.s_[region.top : region.top + rows, region.left : region.left + columns]
        if external_storage(region):
            image[target] = _raw(files, region)
            continue
        wanted = (*region.at, slice(*region.rows), slice(*region.columns))
        with reading(region.place.file.named, f"{region.place.name}: a chunk of the frame does not decode"):
            if not decoded(region, image):
                require_stated_sizes(region)
                region.place.object.read_direct(image, wanted, target)


def _raw(files: OpenFiles, region: Region) -> Any:
    """Return the pixels of a region in external raw storage."""
    data_set = region.place.object
    if not is_stored_as_in_numpy(data_set):
        raise UnsupportedImageError(
            region.place.file.named,
            f"{region.place.name} has raw pixels of fewer bits than {data_set.dtype}",
            "Copy it with h5repack first.",
        )
    first, end = byte_range(region, data_set)
    pixels, begun = bytearray(), 0
    for name, offset, size in external_storage(region):
        start, stop = max(first - begun, 0), min(end - begun, size)
        begun += size
        if start >= stop:
            continue
        path = linked_path(files, region.place.file, name)
        with files.raw(path) as raw, reading(path):
            raw.seek(offset + start)
            pixels += raw.read(stop - start)
    if len(pixels) != end - first:
        raise IncompleteFileError(region.place.file.named, "its raw files shrank while they were read", WAIT)
    rows = np.frombuffer(pixels, data_set.dtype).reshape(region.shape[0], data_set.shape[-1])
    return rows[:, slice(*region.columns)]
