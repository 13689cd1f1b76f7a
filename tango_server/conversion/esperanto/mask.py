"""The mask of a detector, for raw frames and, turned and with a margin, for ESPERANTO frames."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.errors import ExperimentUnfitError
from tango_server.conversion.esperanto.padding import margin, padded_side
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.image.orientation import Orientation
from tango_server.conversion.tiff.reader import open_source
from tango_server.recipe.esperanto import RESOLVED_MASK, Esperanto

Mask = NDArray[np.bool_]


def mask_of(wanted: Esperanto, fields: Mapping[str, object]) -> Path | None:
    """Return the mask of a frame with these fields, None if its recipe has none."""
    if wanted.mask is None:
        return None
    kept = fields.get(RESOLVED_MASK)
    return Path(kept if isinstance(kept, str) else wanted.mask)


def read_mask(path: Path, source: Path, shape: tuple[int, int], roots: Roots) -> Mask:
    """Return which pixels of the raw frame `source`, of `shape` (rows, columns), a TIFF marks by not being 0.

    Raises
    ------
    ExperimentUnfitError
        if it has another shape.
    SourceError
        if it can't be read.
    OutsideRootsError
        if it lies beyond the read roots.

    """
    readable = roots.named
    with open_source(readable.source(path), roots=readable) as opened:
        image: NDArray[Any] = next(opened.images())
    if image.shape != shape:
        raise ExperimentUnfitError(
            source,
            f"mask: {path} has {' x '.join(map(str, image.shape))} pixels",
            f"{' x '.join(map(str, shape))}, as the raw frame",
            "Give the mask of this detector, not turned.",
        )
    marked: Mask = image != 0
    return marked


def frame_mask(shape: tuple[int, int], turned: Orientation, marked: Mask | None) -> Mask:
    """Return the mask of the ESPERANTO frame of a raw one of `shape`: its margin, and what is marked in the raw one."""
    rows, columns = turned.shape(shape)
    above, left = margin((rows, columns))
    whole = np.ones((padded_side(shape),) * 2, np.bool_)
    whole[above : above + rows, left : left + columns] = False if marked is None else turned.apply(marked)
    return whole
