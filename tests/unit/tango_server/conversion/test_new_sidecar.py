"""A sidecar of ours is read back, by this program and as an INI file, with the values of the header, turned."""

import configparser
import math
from itertools import product
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tango_server.conversion.frame_header import FrameHeader, Rotation
from tango_server.conversion.image.orientation import AS_STORED, Orientation
from tango_server.conversion.new_sidecar import sidecar_text
from tango_server.conversion.sidecar import Sidecar, read_sidecar, sidecar_path, turned_text
from tango_server.recipe import Flip, Recipe
from tango_server.recipe import Rotation as Turn
from tango_server.recipe.esperanto import HC

SHAPE = (40, 64)
TURNS = [Orientation.of(Recipe(rotation=turn, flip=flip)) for turn, flip in product(get_args(Turn), get_args(Flip))]
ABOVE_ZERO = st.none() | st.floats(1e-9, 1e9)
HEADERS = st.builds(
    FrameHeader,
    exposure=ABOVE_ZERO,
    summed=st.none() | st.integers(1, 1000).map(float),
    wavelength=ABOVE_ZERO,
    distance=ABOVE_ZERO,
    beam_center_x=st.floats(-1e5, 1e5),
    beam_center_y=st.floats(-1e5, 1e5),
    pixel_size_x=ABOVE_ZERO,
    pixel_size_y=ABOVE_ZERO,
    gain=st.none() | st.integers(0, 5).map(float),
    dark_is_off=st.sampled_from([True, False, None]),
)


def read(folder: Path, text: str) -> Sidecar:
    image = folder / "frame.tif"
    sidecar_path(image).write_bytes(text.encode("latin-1"))
    found = read_sidecar(image)
    assert found is not None
    return found


def near(value: float | None) -> object:
    return None if value is None else pytest.approx(value, rel=1e-12, abs=1e-9)


@given(HEADERS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_header_is_read_back(tmp_path: Path, header: FrameHeader) -> None:
    found = read(tmp_path, sidecar_text(header, AS_STORED, SHAPE)).header
    assert found.exposure == near(header.exposure)
    assert found.distance == near(header.distance)
    assert found.wavelength == near(header.wavelength)
    if (header.beam_center_x, header.beam_center_y) != (0, 0):
        assert (found.beam_center_x, found.beam_center_y) == (near(header.beam_center_x), near(header.beam_center_y))
    assert (found.pixel_size_x, found.pixel_size_y) == (near(header.pixel_size_x), near(header.pixel_size_y))
    assert found.gain == header.gain
    if header.exposure is not None or header.summed is not None:
        assert found.summed == (header.summed or 1.0)
    assert found.dark_is_off == bool(header.dark_is_off)


@pytest.mark.parametrize("turned", TURNS)
def test_values_turn_as_those_of_a_copied_sidecar(tmp_path: Path, turned: Orientation) -> None:
    header = FrameHeader(beam_center_x=13.5, beam_center_y=29.0, pixel_size_x=0.2, pixel_size_y=0.1, distance=300.0)
    upright = sidecar_text(header, AS_STORED, SHAPE)
    assert sidecar_text(header, turned, SHAPE) == turned_text(upright, turned, SHAPE)
    found = read(tmp_path, sidecar_text(header, turned, SHAPE)).header
    assert (found.beam_center_x, found.beam_center_y) == turned.point(13.5, 29.0, SHAPE)


def test_text_is_an_ini_file_as_qxrd_writes_it() -> None:
    header = FrameHeader(exposure=3.0, summed=2.0, taken="2024:05:17 12:34:56", wavelength=0.3, saturation=9.0)
    text = sidecar_text(header, AS_STORED, SHAPE)
    assert text.count("\n") == text.count("\r\n")
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    assert dict(parser["metadata"]) == {
        "width": "64", "height": "40", "exposureTime": "1.5", "summedExposures": "2",
        "dateString": "2024.05.17 : 12:34:56.000",
    }  # fmt: skip
    assert dict(parser["centerfinder"]) == {"energy": f"{1000 * HC / 0.3:.15g}"}


@pytest.mark.parametrize(
    "header",
    [
        FrameHeader(),
        FrameHeader(detector="PILATUS", saturation=1e6, rotations=(Rotation("omega", 0.0, 1.0),)),
        FrameHeader(taken="2024:05:17 12:34:56\r\n[centerfinder]"),
        FrameHeader(distance=math.inf, beam_center_x=1.0),
    ],
)
def test_nothing_stated_makes_no_text(header: FrameHeader) -> None:
    assert sidecar_text(header, AS_STORED, SHAPE) == ""
