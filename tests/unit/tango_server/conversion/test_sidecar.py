"""A sidecar follows its image: turned where it describes the image, verbatim elsewhere."""

import configparser
import math
from collections.abc import Callable
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import tifffile

from petif_bluesky.sim.qxrd_file import write_frame
from petif_bluesky.sim.qxrd_sidecar import Sidecar, write_sidecar
from tango_server.conversion import convert_file
from tango_server.conversion.image.orientation import Orientation
from tango_server.conversion.sidecar import read_sidecar, sidecar_path, turned_angle, turned_text
from tango_server.recipe import Flip, Recipe, Rotation

SHAPE = (40, 64)
CENTER = (13, 29)
ACQUIRED = datetime(2024, 5, 17, 12, 34, 56)
REAL = Path(__file__).parents[5] / "shared" / "data" / "qxrd"
Write = Callable[[np.ndarray[Any, Any]], Path]


STEPS = list(product(get_args(Rotation), get_args(Flip)))


def spot() -> np.ndarray[Any, Any]:
    """Return an image of which the pixel at the beam centre alone is bright."""
    image = np.zeros(SHAPE, np.float32)
    image[CENTER[1], CENTER[0]] = 1000
    return image


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


TURNED = (b"width=", b"height=", b"centerX=", b"centerY=", b"detectorXPixel", b"detectorYPixel", b"tiltPlaneRotation=")


@pytest.mark.parametrize(("rotation", "flip"), STEPS)
def test_the_beam_centre_is_turned_and_all_else_stays(frame: Write, rotation: int, flip: str) -> None:
    source = frame(spot())
    report = convert_file(source, Recipe.preset("xdi", rotation=rotation, flip=flip))
    assert report.sidecar == "carried"
    assert report.output is not None
    output = tifffile.imread(report.output)
    sidecar = sidecar_path(Path(report.output))
    carried = parsed(sidecar)
    x, y = (float(carried["centerfinder"][name]) for name in ("centerX", "centerY"))
    assert output[round(y), round(x)] == 1000
    assert (x, y) == (round(x), round(y))
    size = (int(carried["metadata"]["height"]), int(carried["metadata"]["width"]))
    assert size == output.shape
    before = sidecar_path(source).read_bytes().splitlines(keepends=True)
    for old, new in zip(before, sidecar.read_bytes().splitlines(keepends=True), strict=True):
        assert old == new or old.startswith(TURNED)


@pytest.mark.parametrize("first", STEPS, ids=str)
def test_any_two_steps_keep_the_pixel_at_the_beam_centre(frame: Write, tmp_path: Path, first: tuple[Any, Any]) -> None:
    def converted(source: Path, step: tuple[Any, Any], folder: str) -> Path:
        output = {"folder": str(tmp_path / folder), "force": True}
        recipe = Recipe.preset("xdi", rotation=step[0], flip=step[1], output=output)
        return Path(convert_file(source, recipe).output or "")

    once = converted(frame(spot()), first, "once")
    for number, second in enumerate(STEPS):
        twice = converted(once, second, str(number))
        centre = parsed(sidecar_path(twice))["centerfinder"]
        assert tifffile.imread(twice)[int(centre["centerY"]), int(centre["centerX"])] == 1000, second


@pytest.mark.parametrize(("rotation", "flip"), STEPS)
def test_the_tilt_keeps_the_scattering_angle_of_every_pixel(rotation: int, flip: str) -> None:
    """QXRD's own formula, before and after, at points all over the image."""

    def radius(x: float, y: float, center: tuple[float, float], degrees: float) -> float:
        cos, sin, tilt, distance = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), 0.3, 500.0
        along = (x - center[0]) * cos + (y - center[1]) * sin
        across = -(x - center[0]) * sin + (y - center[1]) * cos
        bottom = distance + along * math.sin(tilt)
        return math.hypot(distance * along * math.cos(tilt) / bottom, distance * across / bottom)

    orientation = Orientation.of(Recipe(rotation=rotation, flip=flip))
    turned_center = orientation.point(*CENTER, SHAPE)
    for (x, y), angle in product([(0, 0), (63, 39), (5, 30), (60, 2)], [0.0, 30.0, 90.0, 269.224]):
        new_x, new_y = orientation.point(x, y, SHAPE)
        found = radius(new_x, new_y, turned_center, turned_angle(angle, orientation))
        assert found == pytest.approx(radius(x, y, CENTER, angle)), (x, y, angle)


def test_sizes_change_places_and_other_sections_stay() -> None:
    text = "[centerfinder]\r\ndetectorXPixelSize=200\r\ndetectorYPixelSize=100\r\n"
    turned = turned_text(text, Orientation.of(Recipe(rotation=90)), SHAPE)
    assert turned == "[centerfinder]\r\ndetectorXPixelSize=100\r\ndetectorYPixelSize=200\r\n"
    assert turned_text(text, Orientation.of(Recipe(rotation=180)), SHAPE) == text
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
        assert (sidecar.header.beam_center_x, sidecar.header.beam_center_y) == (1035.714, 1020.702)
        turned = turned_text(sidecar.text, Orientation.of(Recipe(rotation=90)), (2048, 2048))
        assert "centerX=1020.702\r\n" in turned
        assert "centerY=1011.286\r\n" in turned
        assert len(turned.splitlines()) == len(text.splitlines())
    assert turned_text(sidecar.text, Orientation.of(Recipe()), (2048, 2048)).encode("latin-1") == text
