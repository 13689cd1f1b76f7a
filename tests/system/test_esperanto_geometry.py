"""The geometry as a whole: a simulated crystal, converted, is indexed by ImageD11 from the ESPERANTO files alone."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tango_server.conversion import convert_file
from tango_server.recipe import Recipe
from tests.unit.crystal import BEAM, CELL, LEFT, UP, Experiment
from tests.unit.indexing import Indexed, index_frames

STEP = 1.0
ANGLES = np.arange(-15, 15, STEP)
DIRECTIONS = {"left": LEFT, "right": -LEFT, "up": UP, "down": -UP}
CASES = [
    # view, columns, motor axis, rotation, flip
    ("detector", "left", "up", 180, "none"),  # as the preset has it; the axis points up in the raw frame
    ("detector", "left", "down", 180, "none"),
    ("detector", "right", "up", 0, "none"),  # a raw frame that stands upside down
    ("detector", "up", "up", 90, "none"),
    ("detector", "down", "left", 180, "none"),  # a horizontal axis, and a raw frame that lies on its side
    ("detector", "left", "right", 270, "none"),
    ("detector", "left", "up", 180, "0"),  # mirror images
    ("detector", "left", "up", 180, "1"),
    ("sample", "right", "up", 180, "1"),
    ("sample", "right", "down", 0, "0"),
    ("sample", "up", "up", 90, "0"),
    ("sample", "right", "up", 180, "none"),
]


@cache
def experiment(view: str, columns: str, axis: str) -> Experiment:
    """Return the experiment of a raw frame that is seen so: rows go down where columns go to the right."""
    looking = -BEAM if view == "detector" else BEAM
    right = DIRECTIONS[columns]
    return Experiment(axis=DIRECTIONS[axis], columns=right, rows=np.cross(looking, right), shape=(250, 256))


@cache
def raw_frames(view: str, columns: str, axis: str) -> list[Any]:
    setup = experiment(view, columns, axis)
    return [setup.frame(angle) for angle in ANGLES]


def seen_axis(setup: Experiment) -> str:
    """Return where the axis points in the raw frame."""
    directions = {"right": setup.columns, "left": -setup.columns, "down": setup.rows, "up": -setup.rows}
    return next(name for name, vector in directions.items() if vector @ setup.axis > 0.5)


def indexed(folder: Path, seen: tuple[str, str, str], wanted: dict[str, Any], **changes: Any) -> Indexed:
    """Convert a raw frame for each angle, and index the ESPERANTO frames."""
    setup = experiment(*seen)
    settings = {
        "omega": {"center": "motor", "width": STEP},
        "wavelength": setup.wavelength,
        "distance": setup.distance,
        "pixel_size": setup.pixel,
        "beam_center": setup.center,
        "exposure": 1.0,
        "axis": seen_axis(setup),
        "view": seen[0],
        "encoding": "4BYTE_LONG",  # which fabio reads fast
    }
    made = Recipe.preset("esperanto", esperanto={**settings, **wanted}, **changes)
    (folder / "raw").mkdir()
    outputs = []
    for number, (angle, image) in enumerate(zip(ANGLES, raw_frames(*seen), strict=True), start=1):
        source = folder / "raw" / f"crystal-{number:05d}.tif"
        tifffile.imwrite(source, image)
        outputs.append(Path(str(convert_file(source, made, fields={"motor": float(angle)}).output)))
    return index_frames(outputs, CELL)


@pytest.mark.parametrize(("view", "columns", "axis", "rotation", "flip"), CASES)
def test_the_lattice_is_found(tmp_path: Path, view: str, columns: str, axis: str, rotation: Any, flip: Any) -> None:
    found = indexed(tmp_path, (view, columns, axis), {}, rotation=rotation, flip=flip)
    assert found.spots > 250
    assert found.indexed > 0.97 * found.spots
    assert found.cell == pytest.approx(CELL, rel=0.003)


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
    seen = ("detector", "left", "up")
    assert seen_axis(experiment(*seen)) == "up"
    found = indexed(tmp_path, seen, wrong)
    assert found.indexed < 0.9 * found.spots or found.cell != pytest.approx(CELL, rel=0.003)
