"""A sidecar follows its image: turned where it describes the image, verbatim elsewhere."""

import configparser
import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import tifffile

from petif_bluesky.sim.qxrd_file import write_frame
from petif_bluesky.sim.qxrd_sidecar import Sidecar, write_sidecar
from tango_server.conversion import convert_file
from tango_server.conversion.orientation import Orientation
from tango_server.conversion.sidecar import read_sidecar, sidecar_path, turned_angle, turned_text
from tango_server.recipe import Flip, Recipe, Rotation

SHAPE = (40, 64)
CENTER = (13, 29)
ACQUIRED = datetime(2024, 5, 17, 12, 34, 56)
REAL = Path(__file__).parents[3] / "shared" / "data" / "qxrd"
Write = Callable[[np.ndarray[Any, Any]], Path]


@pytest.fixture
def frame(tmp_path: Path) -> Write:
    """Write a QXRD file with its sidecar."""

    def write(image: np.ndarray[Any, Any]) -> Path:
        path = tmp_path / "raw" / "frame-00001.tif"
        path.parent.mkdir(exist_ok=True)
        write_frame(path, image, document_name=str(path), acquired=ACQUIRED)
        described = Sidecar(
            shape=SHAPE,
            pixel_type="float32",
            exposure_time=0.1,
            acquired=ACQUIRED,
            center=CENTER,
            distance=300.0,
            energy=4e4,
        )
        write_sidecar(path, described)
        return path

    return write


def parsed(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path, encoding="latin-1")
    return parser


@pytest.mark.parametrize("rotation", get_args(Rotation))
@pytest.mark.parametrize("flip", get_args(Flip))
def test_the_pixel_at_the_beam_centre_stays_at_the_beam_centre(frame: Write, rotation: int, flip: str) -> None:
    image = np.zeros(SHAPE, np.float32)
    image[CENTER[1], CENTER[0]] = 1000
    report = convert_file(frame(image), Recipe.preset("xdi", rotation=rotation, flip=flip))
    assert report.sidecar == "carried"
    assert report.output is not None
    output = tifffile.imread(report.output)
    carried = parsed(sidecar_path(Path(report.output)))
    x, y = (float(carried["centerfinder"][name]) for name in ("centerX", "centerY"))
    assert output[round(y), round(x)] == 1000
    assert (x, y) == (round(x), round(y))
    size = (int(carried["metadata"]["height"]), int(carried["metadata"]["width"]))
    assert size == output.shape


STEPS = [(rotation, flip) for rotation in get_args(Rotation) for flip in get_args(Flip)]


@pytest.mark.parametrize("first", STEPS, ids=str)
def test_after_any_two_steps_the_pixel_is_still_at_the_beam_centre(
    frame: Write, tmp_path: Path, first: tuple[int, str]
) -> None:
    image = np.zeros(SHAPE, np.float32)
    image[CENTER[1], CENTER[0]] = 1000
    source = frame(image)
    for number, second in enumerate(STEPS):
        path = source
        for rotation, flip in (first, second):
            folder = tmp_path / str(number) / path.parent.name
            recipe = Recipe.preset(
                "xdi", rotation=rotation, flip=flip, output={"folder": str(folder / "next"), "force": True}
            )
            path = Path(convert_file(path, recipe).output or "")
        centre = parsed(sidecar_path(path))["centerfinder"]
        assert tifffile.imread(path)[int(centre["centerY"]), int(centre["centerX"])] == 1000


@pytest.mark.parametrize("rotation", get_args(Rotation))
@pytest.mark.parametrize("flip", get_args(Flip))
def test_everything_else_stays_to_the_letter(frame: Write, rotation: int, flip: str) -> None:
    path = frame(np.zeros(SHAPE, np.float32))
    report = convert_file(path, Recipe.preset("xdi", rotation=rotation, flip=flip))
    assert report.output is not None
    before = sidecar_path(path).read_bytes().splitlines(keepends=True)
    after = sidecar_path(Path(report.output)).read_bytes().splitlines(keepends=True)
    turned = (
        b"width=",
        b"height=",
        b"centerX=",
        b"centerY=",
        b"detectorXPixelSize=",
        b"detectorYPixelSize=",
        b"tiltPlaneRotation=",
    )
    for old, new in zip(before, after, strict=True):
        assert old == new or old.startswith(turned)


@pytest.mark.parametrize("rotation", get_args(Rotation))
@pytest.mark.parametrize("flip", get_args(Flip))
@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, 269.224])
def test_the_tilt_keeps_the_scattering_angle_of_every_pixel(rotation: int, flip: str, angle: float) -> None:
    """QXRD's own formula, before and after, at points all over the image."""

    def radius(x: float, y: float, center: tuple[float, float], degrees: float) -> float:
        cos, sin, tilt, distance = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), 0.3, 500.0
        along = (x - center[0]) * cos + (y - center[1]) * sin
        across = -(x - center[0]) * sin + (y - center[1]) * cos
        bottom = distance + along * math.sin(tilt)
        return math.hypot(distance * along * math.cos(tilt) / bottom, distance * across / bottom)

    orientation = Orientation.of(Recipe(rotation=rotation, flip=flip))
    turned_center = orientation.point(*CENTER, SHAPE)
    for x, y in [(0, 0), (63, 39), (5, 30), (60, 2)]:
        new_x, new_y = orientation.point(x, y, SHAPE)
        expected = radius(x, y, CENTER, angle)
        assert radius(new_x, new_y, turned_center, turned_angle(angle, orientation)) == pytest.approx(expected)


def test_pixel_sizes_change_places_with_the_axes() -> None:
    text = "[centerfinder]\r\ndetectorXPixelSize=200\r\ndetectorYPixelSize=100\r\n"
    turned = turned_text(text, Orientation.of(Recipe(rotation=90)), SHAPE)
    assert turned == "[centerfinder]\r\ndetectorXPixelSize=100\r\ndetectorYPixelSize=200\r\n"
    assert turned_text(text, Orientation.of(Recipe(rotation=180)), SHAPE) == text


def test_keys_of_other_sections_are_left_alone() -> None:
    text = "[metadata]\nwidth=64\n[other]\ncenterX=5\nwidth=7\n"
    assert (
        turned_text(text, Orientation.of(Recipe(rotation=90)), SHAPE)
        == "[metadata]\nwidth=40\n[other]\ncenterX=5\nwidth=7\n"
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00\xff\xfe", b"[metadata]\nwidth=64", b"no sections\n"],
    ids=["empty", "garbage", "unfinished", "no sections"],
)
def test_a_damaged_sidecar_is_no_error_and_not_carried(frame: Write, content: bytes) -> None:
    path = frame(np.ones(SHAPE, np.float32))
    sidecar_path(path).write_bytes(content)
    report = convert_file(path, Recipe.preset("xdi"))
    assert (report.outcome, report.sidecar) == ("converted", "absent")
    assert not sidecar_path(Path(report.output or "")).exists()


@pytest.mark.parametrize("value", ["nan", "inf", "", "1,5", "@Invalid()"])
def test_a_number_that_is_none_stays_as_it_is(value: str) -> None:
    text = f"[centerfinder]\ncenterX={value}\ncenterY=3\n"
    assert turned_text(text, Orientation.of(Recipe(rotation=90)), SHAPE) == text


def test_in_place_leaves_the_sidecar_alone(frame: Write) -> None:
    path = frame(np.ones(SHAPE, np.float32))
    before = sidecar_path(path).read_bytes()
    assert convert_file(path, Recipe.preset("xdi", rotation=90, output={"mode": "in_place"})).sidecar == "absent"
    assert sidecar_path(path).read_bytes() == before


@pytest.mark.parametrize("name", ["sidecar_0.11.1.tif.metadata", "sidecar_early.tif.metadata"])
@pytest.mark.skipif(not REAL.exists(), reason="the real sidecars lie beside the project")
def test_real_sidecars_of_qxrd(frame: Write, name: str) -> None:
    path = frame(np.ones(SHAPE, np.float32))
    text = (REAL / name).read_bytes()
    sidecar_path(path).write_bytes(text)
    sidecar = read_sidecar(path)
    assert sidecar is not None
    if "0.11.1" in name:
        assert (sidecar.center_x, sidecar.center_y) == (1035.714, 1020.702)
        turned = turned_text(sidecar.text, Orientation.of(Recipe(rotation=90)), (2048, 2048))
        assert "centerX=1020.702\r\n" in turned
        assert "centerY=1011.286\r\n" in turned
        assert len(turned.splitlines()) == len(text.splitlines())
    assert turned_text(sidecar.text, Orientation.of(Recipe()), (2048, 2048)).encode("latin-1") == text
