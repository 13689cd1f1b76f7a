"""Points and pyFAI geometries under a recipe, against pyFAI itself."""

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from tango_server.conversion.geometry import GeometryError, transform_point, transform_poni
from tango_server.recipe import Flip, Recipe, Rotation
from tests.unit.reference import oriented

SHAPE = (11, 17)
ALL = [(rotation, flip) for rotation in get_args(Rotation) for flip in get_args(Flip)]


@pytest.fixture(autouse=True)
def nothing_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the tests pyFAI's full collections of garbage: one at each file that it reads."""
    from pyFAI.geometry import Geometry

    monkeypatch.setattr(Geometry, "collect_garbage", lambda *_, **__: None)


@pytest.mark.parametrize(("rotation", "flip"), ALL)
def test_a_point_goes_where_its_pixel_goes(rotation: int, flip: str) -> None:
    rows, columns = np.indices(SHAPE)
    turned_rows, turned_columns = oriented(rows, rotation, flip), oriented(columns, rotation, flip)
    for (new_y, new_x), y in np.ndenumerate(turned_rows):
        x = turned_columns[new_y, new_x]
        assert transform_point(int(x), int(y), SHAPE, Recipe(rotation=rotation, flip=flip)) == (new_x, new_y)


# Each orientation with each rotation and with each flip.
TURNS_BY_ORIENTATION = [(*turn, (number + number // 4) % 4 + 1) for number, turn in enumerate(ALL)]


@pytest.mark.parametrize(("rotation", "flip", "orientation"), TURNS_BY_ORIENTATION)
def test_pixels_keep_their_angle_and_the_azimuth_turns(
    tmp_path: Path, rotation: int, flip: str, orientation: int
) -> None:
    from pyFAI.detectors import Detector
    from pyFAI.geometry import Geometry

    detector = Detector(100e-6, 150e-6, max_shape=SHAPE, orientation=orientation)
    before = Geometry(
        dist=0.01, poni1=3e-4, poni2=9e-4, rot1=0.15, rot2=-0.25, rot3=0.4, detector=detector, wavelength=1e-10
    )
    before.save(str(tmp_path / "before.poni"))
    turned = transform_poni((tmp_path / "before.poni").read_text(), Recipe(rotation=rotation, flip=flip))
    (tmp_path / "after.poni").write_text(turned)
    after = Geometry.sload(str(tmp_path / "after.poni"))
    expected = oriented(before.center_array(SHAPE, unit="2th_rad"), rotation, flip)
    np.testing.assert_allclose(after.center_array(expected.shape, unit="2th_rad"), expected, atol=1e-9)
    assert after.wavelength == before.wavelength
    assert after.dist == before.dist
    azimuth = oriented(before.center_array(SHAPE, unit="chi_rad"), rotation, flip)
    new_azimuth = after.center_array(expected.shape, unit="chi_rad")
    differences = [np.angle(np.exp(1j * (new_azimuth - sign * azimuth))) for sign in (1, -1)]
    spread = [float(np.abs(np.angle(np.exp(1j * (part - part.flat[0])))).max()) for part in differences]
    assert min(spread) < 1e-6, "the azimuth is neither turned nor mirrored as a whole"


def test_a_file_of_version_1_and_a_shape_given(tmp_path: Path) -> None:
    from pyFAI.geometry import Geometry

    text = (
        "PixelSize1: 0.0001\nPixelSize2: 0.0002\nDistance: 0.1\nPoni1: 0.001\nPoni2: 0.002\nRot1: 0\nRot2: 0\nRot3: 0\n"
    )
    turned = transform_poni(text, Recipe(rotation=180), (100, 200))
    (tmp_path / "v1.poni").write_text(turned)
    geometry = Geometry.sload(str(tmp_path / "v1.poni"))
    assert (geometry.poni1, geometry.poni2) == (pytest.approx(0.01 - 0.001), pytest.approx(0.04 - 0.002))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Distance: 1\n", "max_shape"),
        ('Detector_config: {"max_shape": [4, 4]}\nPoni1: 0\n', "PixelSize1"),
        ('Detector_config: {"max_shape": [4, 4], "pixel1": 1, "pixel2": 1}\nPoni1: x\nPoni2: 0\n', "Poni1 .*'x'"),
        (
            'Detector_config: {"max_shape": [4, 4], "orientation": 7, "pixel1": 1, "pixel2": 1}\n',
            "orientation 7",
        ),
        ("Detector_config: {\n", "Detector_config"),
        ('Detector_config: {"max_shape": [4, 4], "pixel1": 1, "pixel2": 1}\nPoni1: nan\nPoni2: 0\n', "finite"),
    ],
)
def test_what_is_missing_is_named(text: str, word: str) -> None:
    with pytest.raises(GeometryError, match=word):
        transform_poni(text, Recipe(rotation=90))


def test_the_turned_file_says_what_it_is() -> None:
    config = '{"max_shape": [4, 6], "pixel1": 1e-4, "pixel2": 2e-4}'
    text = f"Detector: Perkin\nDetector_config: {config}\nDistance: 0.1\nPoni1: 0\nPoni2: 0\n"
    turned = dict(
        line.split(": ", 1) for line in transform_poni(text, Recipe(rotation=90)).splitlines() if ": " in line
    )
    assert turned["Detector"] == "Detector"
    assert json.loads(turned["Detector_config"]) == {
        "pixel1": 2e-4,
        "pixel2": 1e-4,
        "max_shape": [6, 4],
        "orientation": 3,
    }
