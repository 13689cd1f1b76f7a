"""What an ESPERANTO frame says beside its pixels: from where it is taken, in which unit, and what is refused."""

import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tango_server.conversion.errors import ExperimentError, ExperimentMissingError, ExperimentUnfitError
from tango_server.conversion.esperanto.experiment import Experiment, awaits_sidecar, experiment_of
from tango_server.conversion.esperanto.header import Angles
from tango_server.conversion.frame_header import NO_HEADER, FrameHeader
from tango_server.conversion.image.orientation import Orientation
from tango_server.recipe import Flip, Recipe, Rotation
from tango_server.recipe.esperanto import Esperanto

SOURCE = Path("/data/raw/pat-00017.tif")
PRESET = Orientation.of(Recipe.preset("esperanto"))
SIDECAR = FrameHeader(
    beam_center_x=1000.5,
    beam_center_y=990.25,
    distance=350.0,
    wavelength=12.398419843320026 / 42.7,
    pixel_size_x=0.2,
    pixel_size_y=0.2,
    exposure=0.5,
)
GEOMETRY: dict[str, Any] = {
    "wavelength": 0.2905,
    "distance": 400.0,
    "pixel_size": 0.2,
    "beam_center": (1020.0, 1030.0),
    "exposure": 1.0,
}


def found(
    wanted: dict[str, Any],
    metadata: dict[str, Any] | None = None,
    header: FrameHeader = NO_HEADER,
    turned: Orientation = PRESET,
) -> Experiment:
    return experiment_of(SOURCE, Esperanto(**wanted), metadata or {}, header, turned)


def test_recipe_overrides_metadata_and_metadata_overrides_sidecar() -> None:
    metadata = {"detector_distance": 0.36, "wavelength": 0.3, "units": {"detector_distance": "m"}}
    by_sidecar = found({"omega": 0.0}, {}, SIDECAR)
    by_metadata = found({"omega": 0.0}, metadata, SIDECAR)
    by_recipe = found({"omega": 0.0, **GEOMETRY}, metadata, SIDECAR)
    assert by_sidecar.wavelength == pytest.approx(12.398419843320026 / 42.7)
    assert (by_sidecar.distance, by_sidecar.pixel_size, by_sidecar.exposure) == (350.0, 0.2, 0.5)
    assert by_sidecar.beam_center == (1000.5, 990.25)
    assert (by_metadata.wavelength, by_metadata.distance, by_metadata.exposure) == (0.3, 360.0, 0.5)
    assert (by_recipe.wavelength, by_recipe.distance, by_recipe.exposure) == (0.2905, 400.0, 1.0)
    assert by_recipe.beam_center == (1020.0, 1030.0)


@pytest.mark.parametrize(
    ("circle", "metadata", "expected"),
    [
        ("om", {"om": 12.5}, (12.5, 12.5)),
        (12.5, {}, (12.5, 12.5)),
        ({"start": 10}, {}, (10.0, 10.0)),
        ({"start": "a", "end": "b"}, {"a": 10.0, "b": 10.5}, (10.0, 10.5)),
        ({"center": "om", "width": 0.5}, {"om": 10.0}, (9.75, 10.25)),
        ({"start": -30, "step": 0.5}, {"seq_num": 1}, (-30.0, -29.5)),
        ({"start": -30, "step": 0.5}, {"seq_num": 7}, (-27.0, -26.5)),
        ({"start": "a", "end": "b", "sign": -1, "offset": 90}, {"a": 10.0, "b": 10.5}, (80.0, 79.5)),
        ("om", {"om": math.pi / 6, "units": {"om": "rad"}}, (30.0, 30.0)),
        ("om", {"om": 12, "units": {"om": "degrees"}}, (12.0, 12.0)),
    ],
)
def test_angles_of_a_frame(circle: Any, metadata: dict[str, Any], expected: tuple[float, float]) -> None:
    experiment = found({"phi": circle, **GEOMETRY}, metadata)
    assert experiment.start == pytest.approx(Angles(phi=expected[0]))
    assert experiment.end == pytest.approx(Angles(phi=expected[1]))


MISSING: list[tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = [
    ({"omega": "omega_readback", **GEOMETRY}, {}, ("omega.center", "'omega_readback'")),
    ({"omega": {"start": "a", "end": "b"}, **GEOMETRY}, {"a": 1.0}, ("omega.end", "'b'")),
    ({"omega": {"start": 0, "step": 1}, **GEOMETRY}, {}, ("omega.step", "seq_num")),
    ({**GEOMETRY}, {}, ("an angle", "omega, theta, kappa, phi")),
    ({"omega": 0, **GEOMETRY, "distance": "det_z"}, {}, ("distance", "'det_z'")),
    ({"omega": "om"}, {}, ("omega", "wavelength", "distance", "pixel_size", "beam_center", "exposure")),
]


@pytest.mark.parametrize(("wanted", "metadata", "named"), MISSING)
def test_everything_that_is_missing_is_listed(
    wanted: dict[str, Any], metadata: dict[str, Any], named: tuple[str, ...]
) -> None:
    with pytest.raises(ExperimentMissingError) as caught:
        found(wanted, metadata)
    assert str(SOURCE) in str(caught.value)
    for name in named:
        assert name in str(caught.value)
    given = set(GEOMETRY) - {"distance"} if "distance" in wanted else set()
    assert not [name for name in given if name in caught.value.problem]


UNFIT: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"omega": "om", **GEOMETRY}, {"om": "12"}, "omega.center: 'om' is '12'"),
    ({"omega": "om", **GEOMETRY}, {"om": math.nan}, "omega.center: 'om' is nan"),
    (
        {"omega": "om", **GEOMETRY},
        {"om": 12.0, "units": {"om": "mm"}},
        "omega.center: 'om' has the unit 'mm', not one of deg",
    ),
    (
        {"omega": 0, **GEOMETRY, "wavelength": "wl"},
        {"wl": 0.3, "units": {"wl": "keV"}},
        "wavelength: 'wl' has the unit 'keV'",
    ),
    ({"omega": 0, **GEOMETRY, "wavelength": "wl", "energy": 42.7}, {"wl": 0.31}, "0.31 Angstrom"),
    (
        {"omega": 0, **GEOMETRY, "wavelength": None},
        {"wavelength": 0.31, "energy": 42.7, "units": {"energy": "keV"}},
        "0.31 Angstrom, but 42.7 keV",
    ),
    (
        {"omega": 0, **GEOMETRY, "wavelength": None},
        {"energy": 42.7},
        "energy: 'energy' in the frame's metadata has no unit",
    ),
    (
        {"omega": 0, **GEOMETRY, "pixel_size": None},
        {"x_pixel_size": 0.2, "y_pixel_size": 0.1},
        "pixel_size: pixels of 0.2 x 0.1 mm are not square",
    ),
    ({"omega": 0, **GEOMETRY, "distance": "z"}, {"z": -3.0}, "distance = -3 mm"),
    (
        {"omega": {"start": 0, "step": 1}, **GEOMETRY},
        {"seq_num": 2, "number": 1},
        "omega.step needs one frame per event",
    ),
    ({"omega": 0, **GEOMETRY, "axis": "left"}, {}, "axis: the omega axis, 'left'"),
    ({"omega": 0, **GEOMETRY, "kappa": 10, "view": "sample"}, {}, "kappa is not 0"),
    ({"omega": 0, **GEOMETRY, "kappa": 10, "axis": "up"}, {}, "kappa is not 0"),
]


@pytest.mark.parametrize(("wanted", "metadata", "text"), UNFIT)
def test_what_can_not_be_right_is_refused_by_its_name(
    wanted: dict[str, Any], metadata: dict[str, Any], text: str
) -> None:
    with pytest.raises(ExperimentUnfitError) as caught:
        found(wanted, metadata)
    assert text in str(caught.value)


def test_pixels_of_the_sidecar_that_are_not_square_are_refused() -> None:
    with pytest.raises(ExperimentUnfitError, match="square"):
        found({"omega": 0}, {}, replace(SIDECAR, pixel_size_y=0.1))


@pytest.mark.parametrize(
    ("wanted", "metadata", "awaited"),
    [
        ({"omega": 0, **GEOMETRY}, {}, False),
        ({"omega": 0, **GEOMETRY, "distance": None}, {}, True),
        ({"omega": 0, **GEOMETRY, "distance": None}, {"detector_distance": 300.0}, False),
        ({"omega": "om", **GEOMETRY}, {}, False),
        ({"omega": "om", **GEOMETRY}, {"om": "text"}, False),
        ({"omega": 0}, {}, True),
    ],
)
def test_sidecar_is_awaited_if_it_is_the_only_source(
    wanted: dict[str, Any], metadata: dict[str, Any], awaited: bool
) -> None:
    assert awaits_sidecar(SOURCE, Esperanto(**wanted), metadata) is awaited


def test_errors_survive_the_way_between_processes() -> None:
    with pytest.raises(ExperimentError) as caught:
        found({"omega": 0})
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.in_sidecar


def rim_in_the_frame(turned: Orientation, view: str, axis: str) -> tuple[float, float]:
    """Return along which direction (columns, rows) of the ESPERANTO frame the rim of a wheel moves.

    The wheel turns right-handedly about the axis; it is the point of its rim that is nearest to the source.
    """
    picture = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}[axis]
    exchanged = -1 if view == "detector" else 1  # left and right, for whoever looks at the sample
    # As one sees it from the sample, with the source in the back: x to the right, y up, z to the source.
    direction = np.array([exchanged * picture[0], -picture[1], 0.0])
    moves = np.cross(direction, [0.0, 0.0, 1.0])
    return turned.direction(exchanged * moves[0], -moves[1])


@given(
    rotation=st.sampled_from([0, 90, 180, 270]),
    flip=st.sampled_from(["none", "0", "1", "both"]),
    axis=st.sampled_from(["up", "down", "left", "right"]),
    view=st.sampled_from(["detector", "sample"]),
)
def test_the_sense_follows_rotation_flip_axis_and_view(rotation: Rotation, flip: Flip, axis: str, view: str) -> None:
    turned = Orientation.of(Recipe(rotation=rotation, flip=flip))
    wanted = {"omega": {"start": 1.0, "end": 3.0}, **GEOMETRY, "axis": axis, "view": view}
    across, along = rim_in_the_frame(turned, view, axis)
    if along:
        with pytest.raises(ExperimentUnfitError, match="axis"):
            found(wanted, turned=turned)
        return
    sense = -across  # CrysAlis counts clockwise seen from above, which moves that rim to the left
    experiment = found(wanted, turned=turned)
    assert (experiment.start.omega, experiment.end.omega) == (sense, 3 * sense)
