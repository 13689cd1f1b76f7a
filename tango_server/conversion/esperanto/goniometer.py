"""The sense of rotation of a goniometer's angles in CrysAlis, for frames seen from either side."""

from pathlib import Path

from tango_server.conversion.errors import ExperimentUnfitError
from tango_server.conversion.image.orientation import Orientation
from tango_server.recipe.esperanto import Esperanto

_DIRECTIONS = {"up": (0.0, -1.0), "down": (0.0, 1.0), "left": (-1.0, 0.0), "right": (1.0, 0.0)}
"""In the raw frame: x in the order of columns, y in the order of rows, downwards."""


def rotation_sense(source: Path, wanted: Esperanto, turned: Orientation, *, kappa_rests: bool) -> int:
    """Return 1 if the header counts angles in the recipe's sense, -1 if in the opposite one.

    CrysAlis views frames from the sample, with row 0 at the bottom and column 0 on the left, and counts omega, theta
    and phi clockwise from above (as dxtbx's FormatROD reads its frames). So its right-handed omega axis points to row
    0. A rotation axis turns with the image, and also changes its sense when the image is mirrored.

    Raises
    ------
    ExperimentUnfitError
        if the axis is along the rows, or kappa is not 0 and the goniometer appears mirrored or upside down.

    """
    reversals = turned.transpose + turned.reverse_rows + turned.reverse_columns + (wanted.view == "sample")
    mirrored = reversals % 2 == 1
    x, y = turned.direction(*_DIRECTIONS[wanted.axis])
    if x:
        raise ExperimentUnfitError(
            source,
            f"axis: the omega axis, {wanted.axis!r} in the raw frame, is along the rows of the ESPERANTO frame, but "
            "CrysAlis needs it along the columns",
            "Turn the frame by 90 degrees more or less, or correct the axis.",
        )
    sense = (1 if y < 0 else -1) * (-1 if mirrored else 1)
    if not kappa_rests and (mirrored or sense < 0):
        raise ExperimentUnfitError(
            source,
            "kappa is not 0, and the frame shows the goniometer mirrored or upside down",
            "Choose rotation and flip so that the omega axis points to row 0, unmirrored, or correct axis and view.",
        )
    return sense
