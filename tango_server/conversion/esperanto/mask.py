"""A detector's mask, for raw frames and (turned, with a margin) for ESPERANTO frames."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.errors import ExperimentUnfitError
from tango_server.conversion.esperanto.padding import margin, padded_side
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.image.orientation import Orientation
from tango_server.conversion.tiff.reader import open_tiff
from tango_server.recipe.esperanto import RESOLVED_MASK, Esperanto

Mask = NDArray[np.bool_]


def mask_of(wanted: Esperanto, fields: Mapping[str, object]) -> Path | None:
    """Return the path of the mask for a frame with these fields, None without one."""
    if wanted.mask is None:
        return None
    kept = fields.get(RESOLVED_MASK)
    return Path(kept if isinstance(kept, str) else wanted.mask)


def read_mask(path: Path, source: Path, shape: tuple[int, int], roots: Roots) -> Mask:
    """Return the mask for the raw frame `source` of `shape` (rows, columns): True where the TIFF at `path` is not 0.

    Raises
    ------
    ExperimentUnfitError
        if it has another shape.
    SourceError
        if it cannot be read.
    OutsideRootsError
        if it is outside the read roots.

    """
    readable = roots.named
    with open_tiff(readable.source(path), roots=readable) as opened:
        image: NDArray[Any] = next(opened.images())
    if image.shape != shape:
        raise ExperimentUnfitError(
            source,
            f"mask: {path} has {' x '.join(map(str, image.shape))} pixels, the raw frame {' x '.join(map(str, shape))}",
            "Give the mask of this detector, not turned.",
        )
    marked: Mask = image != 0
    return marked


def frame_mask(shape: tuple[int, int], turned: Orientation, marked: Mask | None) -> Mask:
    """Return the mask of the ESPERANTO frame for a raw one of `shape`: the margin, and the `marked` raw pixels."""
    rows, columns = turned.shape(shape)
    above, left = margin((rows, columns))
    whole = np.ones((padded_side(shape),) * 2, np.bool_)
    whole[above : above + rows, left : left + columns] = False if marked is None else turned.apply(marked)
    return whole
