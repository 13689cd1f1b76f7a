"""In which sense CrysAlis counts the angles of a goniometer, which the raw frame shows from one side or the other."""

from pathlib import Path

from tango_server.conversion.errors import ExperimentUnfitError
from tango_server.conversion.image.orientation import Orientation
from tango_server.recipe.esperanto import Esperanto

_DIRECTIONS = {"up": (0.0, -1.0), "down": (0.0, 1.0), "left": (-1.0, 0.0), "right": (1.0, 0.0)}
"""In the raw frame: x along its columns' order, y along its rows', which is down."""


def rotation_sense(source: Path, wanted: Esperanto, turned: Orientation, *, kappa_rests: bool) -> int:
    """Return 1 if the header counts as the recipe does, -1 if the other way round.

    CrysAlis sees the scene from the sample, with row 0 at the bottom and column 0 at the left, and counts omega, theta
    and phi clockwise seen from above (as dxtbx's FormatROD reads its frames). So its omega axis, right-handed, points
    to row 0. An axis of rotation goes with the picture when that is turned, and also changes its sense when that is
    mirrored.

    Raises
    ------
    ExperimentUnfitError
        if the axis lies along the rows, or kappa is not 0 where the goniometer is seen mirrored or upside down.

    """
    reversals = turned.transpose + turned.reverse_rows + turned.reverse_columns + (wanted.view == "sample")
    mirrored = reversals % 2 == 1
    x, y = turned.direction(*_DIRECTIONS[wanted.axis])
    if x:
        raise ExperimentUnfitError(
            source,
            f"axis: the omega axis, {wanted.axis!r} in the raw frame, lies along the rows of the ESPERANTO frame",
            "it along the columns, where CrysAlis has it",
            "Turn the frame by 90 degrees more or less, or correct the axis.",
        )
    sense = (1 if y < 0 else -1) * (-1 if mirrored else 1)
    if not kappa_rests and (mirrored or sense < 0):
        raise ExperimentUnfitError(
            source,
            "kappa: it is not 0, and the frame shows the goniometer mirrored or upside down",
            "a frame turned so that its omega axis points to row 0, without a mirror image",
            "Choose rotation and flip so, or correct axis and view.",
        )
    return sense
