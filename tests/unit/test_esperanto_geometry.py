"""The geometry as a whole: a simulated crystal, converted, is indexed by ImageD11 from the ESPERANTO files alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tango_server.conversion import convert_file
from tango_server.recipe import Recipe
from tests.unit.crystal import BEAM, CELL, LEFT, UP, Experiment
from tests.unit.indexing import Indexed, index_frames

STEP = 0.5
ANGLES = np.arange(-15, 15, STEP)
CASES = [
    # view, columns, motor axis, rotation, flip
    ("detector", LEFT, UP, 180, "none"),  # as the preset has it; the axis points up in the raw frame
    ("detector", LEFT, -UP, 180, "none"),
    ("detector", -LEFT, UP, 0, "none"),  # a raw frame that stands upside down
    ("detector", UP, UP, 90, "none"),
    ("detector", -UP, LEFT, 180, "none"),  # a horizontal axis, and a raw frame that lies on its side
    ("detector", LEFT, -LEFT, 270, "none"),
    ("detector", LEFT, UP, 180, "0"),  # mirror images
    ("detector", LEFT, UP, 180, "1"),
    ("sample", -LEFT, UP, 180, "1"),
    ("sample", -LEFT, -UP, 0, "0"),
    ("sample", UP, UP, 90, "0"),
    ("sample", -LEFT, UP, 180, "none"),  # one more
]


def experiment(view: str, columns: Any, axis: Any, **changes: Any) -> Experiment:
    """Return the experiment of a raw frame that is seen so: rows go down where columns go to the right."""
    looking = -BEAM if view == "detector" else BEAM
    return Experiment(axis=axis, columns=columns, rows=np.cross(looking, columns), **changes)


def seen_axis(setup: Experiment) -> str:
    """Return where the axis points in the raw frame."""
    directions = {"right": setup.columns, "left": -setup.columns, "down": setup.rows, "up": -setup.rows}
    return next(name for name, vector in directions.items() if vector @ setup.axis > 0.5)


def geometry(setup: Experiment) -> dict[str, Any]:
    return {
        "wavelength": setup.wavelength,
        "distance": setup.distance,
        "pixel_size": setup.pixel,
        "beam_center": setup.center,
        "exposure": 1.0,
        "axis": seen_axis(setup),
    }


def converted(folder: Path, setup: Experiment, made: Recipe) -> list[Path]:
    """Write a raw frame for each angle, and return the ESPERANTO frames."""
    raw = folder / "raw"
    raw.mkdir()
    outputs = []
    for number, angle in enumerate(ANGLES, start=1):
        source = raw / f"crystal-{number:05d}.tif"
        tifffile.imwrite(source, setup.frame(angle))
        outputs.append(Path(str(convert_file(source, made, fields={"motor": float(angle)}).output)))
    return outputs


def assert_is_the_crystal(found: Indexed) -> None:
    assert found.spots > 250
    assert found.indexed > 0.97 * found.spots
    assert found.cell == pytest.approx(CELL, rel=0.003)


@pytest.mark.parametrize(("view", "columns", "axis", "rotation", "flip"), CASES)
def test_the_lattice_is_found(tmp_path: Path, view: str, columns: Any, axis: Any, rotation: Any, flip: Any) -> None:
    setup = experiment(view, columns, axis, shape=(250, 256))
    made = Recipe.preset(
        "esperanto",
        rotation=rotation,
        flip=flip,
        esperanto={"omega": {"center": "motor", "width": STEP}, "view": view, **geometry(setup)},
    )
    assert_is_the_crystal(index_frames(converted(tmp_path, setup, made), CELL))


WRONG: list[dict[str, Any]] = [
    {"axis": "down"},
    {"omega": {"center": "motor", "width": STEP, "sign": -1}},
    {"beam_center": (125.3, 121.7)},
    {"distance": 175.0},
    {"wavelength": 0.306},
    {"view": "sample"},
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: next(iter(wrong)))
def test_a_single_wrong_number_would_be_noticed(tmp_path: Path, wrong: dict[str, Any]) -> None:
    setup = experiment("detector", LEFT, UP)
    assert seen_axis(setup) == "up"
    wanted = {"omega": {"center": "motor", "width": STEP}, **geometry(setup), **wrong}
    found = index_frames(converted(tmp_path, setup, Recipe.preset("esperanto", esperanto=wanted)), CELL)
    assert found.indexed < 0.9 * found.spots or found.cell != pytest.approx(CELL, rel=0.003)
