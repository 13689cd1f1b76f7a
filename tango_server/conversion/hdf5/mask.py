"""The detector's own mask, which always holds.

- `pixel_mask`, any bit, of the detector or its `detectorSpecific`.
- A detector of Dectris also marks pixels in the image: by negatives, and in unsigned types by the two highest values.
  Beside a `pixel_mask` the highest value is an overexposed pixel, since invalid ones are in the mask.
"""

from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.errors import UnsupportedImageError
from tango_server.conversion.hdf5.detector import Description
from tango_server.conversion.hdf5.links import Place, child
from tango_server.conversion.hdf5.open_files import OpenFiles
from tango_server.conversion.hdf5.pixels import read_regions
from tango_server.conversion.hdf5.stack import Stack, stack_of
from tango_server.conversion.hdf5.storage import require_written
from tango_server.conversion.hdf5.virtual import Region, regions_of
from tango_server.conversion.image.own_mask import OwnMask

_NAMES = ("pixel_mask", "detectorSpecific/pixel_mask")


def own_mask_of(files: OpenFiles, described: Description, stack: Stack) -> OwnMask | None:
    """Return the mask of the frames of a data set; the same object for all of them while their file is unchanged.

    Raises
    ------
    SourceError
        if there is a mask that cannot be read or has another shape than the frames.
    OutsideRootsError
        if it is outside the folders that may be read.

    """
    notes = described.entry.file.notes
    key = (
        "mask",
        described.entry.name,
        stack.place.name,
        stack.rows,
        stack.columns,
        stack.pixel_type.str,
        stack.threshold,
    )
    if key not in notes:
        notes[key] = _read(files, described, stack)
    mask: OwnMask | None = notes[key]
    return mask


def require_mask(files: OpenFiles, described: Description, stack: Stack) -> None:
    """Raise as `own_mask_of` does unless the mask, if there is one, is written."""
    place = _pixel_mask(files, described)
    if place:
        _regions(files, place, stack)


def _read(files: OpenFiles, described: Description, stack: Stack) -> OwnMask | None:
    place = _pixel_mask(files, described)
    pixels: NDArray[np.bool_] | None = None
    identity: Hashable = None
    if place:
        mask, regions = _regions(files, place, stack)
        image = np.empty((mask.rows, mask.columns), mask.pixel_type)
        read_regions(files, regions, image)
        pixels, identity = image != 0, (str(place.file.path), place.file.identity, place.name, stack.threshold)
    codes: tuple[int, ...] = ()
    if described.dectris and stack.pixel_type.kind == "u":
        highest = int(np.iinfo(stack.pixel_type).max)
        codes = (highest - 1,) if place else (highest, highest - 1)
    negatives = described.dectris and stack.pixel_type.kind != "u"
    if pixels is None and not codes and not negatives:
        return None
    return OwnMask(identity, pixels, negatives, codes)


def _pixel_mask(files: OpenFiles, described: Description) -> Place | None:
    for detector in described.detectors:
        for name in _NAMES:
            found = child(files, detector, name)
            if found and found.is_data_set:
                return found
    return None


def _regions(files: OpenFiles, place: Place, stack: Stack) -> tuple[Stack, list[Region]]:
    """Return the data set of a mask, and where its pixels are stored; require that they are written."""
    mask = stack_of(place)
    if (mask.rows, mask.columns) != (stack.rows, stack.columns):
        raise UnsupportedImageError(
            place.file.named,
            f"{place.name} has {mask.rows} x {mask.columns} pixels, the frames {stack.rows} x {stack.columns}",
            "Check what wrote this file.",
        )
    at = mask.at(min(stack.threshold or 0, mask.frames - 1))  # one for all thresholds, or one for each
    regions = regions_of(files, Region(place, at, (0, mask.rows), (0, mask.columns)))
    for each in regions:
        require_written(files, each)
    return mask, regions
