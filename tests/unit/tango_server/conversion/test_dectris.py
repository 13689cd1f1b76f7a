"""The text header of Dectris: values in our units, placeholders and odd texts left out, never an error."""

import time
from pathlib import Path

import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from tango_server.conversion.dectris import dectris_header, is_dectris_text
from tango_server.conversion.frame_header import FrameHeader, Rotation

PILATUS = Path(__file__).parents[5] / "shared" / "data" / "pilatus"
TEXT = """# Detector: PILATUS3 1M, S/N 10-0000
# 2023-06-27T10:50:14.622
# Pixel_size 172e-6 m x 171e-6 m
# Exposure_time 0.9990000 s
# Exposure_period 1.0000000 s
# Count_cutoff 1169254 counts
# Beam_xy (24.5, 16) pixels
# Wavelength 0.31003 A
# Detector_distance 0.04 m
"""
HEADER = FrameHeader(
    detector="PILATUS3 1M, S/N 10-0000",
    exposure=0.999,
    wavelength=0.31003,
    distance=40.0,
    beam_center_x=24.5,
    beam_center_y=16.0,
    pixel_size_x=pytest.approx(0.172),
    pixel_size_y=pytest.approx(0.171),
    saturation=1169254.0,
    taken="2023:06:27 10:50:14",
)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_values_are_in_our_units(end: str) -> None:
    text = TEXT.replace("\n", end)
    assert is_dectris_text(text)
    assert dectris_header(text) == HEADER


@pytest.mark.parametrize("line", ["#Beam_xy: (24.5, 16)", "# Beam_xy=24.5 16 pixels", "#  Beam_xy  (24.5,16) pixels"])
def test_spaces_may_be_other_characters(line: str) -> None:
    header = dectris_header(f"{line}\n#Exposure_time=0.5,s")
    assert (header.beam_center_x, header.beam_center_y, header.exposure) == (24.5, 16.0, 0.5)


def rotations(*lines: str) -> tuple[Rotation, ...]:
    return dectris_header("\n".join(f"# {line}" for line in lines)).rotations


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Start_angle 10 deg", "Angle_increment 0.5 deg."], [("omega", 10, 10.5)]),
        (["Start_angle 0 deg", "Angle_increment 0.1 deg", "Oscillation_axis PHI"], [("phi", 0, 0.1)]),
        (["Start_angle 0 deg", "Angle_increment 0.1 deg", "Oscillation_axis Kappa, CW"], [("kappa", 0, 0.1)]),
        (["Start_angle 0 deg", "Angle_increment 0.1 deg", "Oscillation_axis X, CW"], []),
        (["Start_angle 0 deg", "Angle_increment 0 deg"], []),
        (["Start_angle 5 deg"], []),
        (["Phi 30.0 deg.", "Kappa -60.0 deg.", "Omega 0.0 deg."], [("kappa", -60, -60), ("phi", 30, 30)]),
        (["Phi 30 deg", "Phi_increment 2 deg"], [("phi", 30, 32)]),
        (["Chi 45 deg", "Phi 30 deg", "Start_angle 10 deg", "Angle_increment 0.5 deg"], []),
        (["Start_angle east", "Angle_increment 1 deg"], []),
        (["Start_angle 1e9999 deg", "Angle_increment 1 deg"], []),
    ],
)
def test_angles_belong_to_a_named_circle(lines: list[str], expected: list[tuple[str, float, float]]) -> None:
    assert rotations(*lines) == tuple(Rotation(*each) for each in expected)


@pytest.mark.parametrize(
    "line",
    [
        "Exposure_time 0 s", "Exposure_time -1 s", "Exposure_time soon", "Exposure_time 1 parsec", "Exposure_time",
        "Beam_xy (0, 0) pixels", "Beam_xy (3) pixels", "Beam_xy here", "Flux 0", "Count_cutoff 0 counts",
        "Wavelength nan A", "Wavelength 1e9999 A", "Pixel_size x m", "Detector_distance (nil)", "2023-13-45T99:99:99",
        "2023-Xxx-01T00:00:00", "Detector:", "\udce9 \u0661\u0662", "Exposure_time \u0661 s", "",
    ],
)  # fmt: skip
def test_placeholders_and_odd_texts_are_not_stated(line: str) -> None:
    assert dectris_header(f"# {line}") == FrameHeader()


@pytest.mark.parametrize("time_of", ["2011-Nov-01T17:59:04.733", "2011/Nov/01 17:59:04", "2011:11:01 17:59:04"])
def test_times_of_all_versions(time_of: str) -> None:
    assert dectris_header(f"# {time_of}").taken == "2011:11:01 17:59:04"


@pytest.mark.parametrize(
    "text",
    ["", "a frame", "# Detector: HyPix-6000\n# Pixel_size 100e-6 m x 100e-6 m\n# Exposure_time 1 s", "# Pixel_size 1"],
)
def test_other_texts_are_not_dectris(text: str) -> None:
    assert not is_dectris_text(text)


@pytest.mark.skipif(not PILATUS.exists(), reason="the real files are not here")
def test_real_pilatus_tiffs() -> None:
    found = {}
    for name in ("GI2_A9_19_001_0000.tiff", "CeO2_Pilatus1M.tif"):
        with tifffile.TiffFile(PILATUS / name) as tiff:
            text = tiff.pages.first.description
        assert is_dectris_text(text)
        found[name] = dectris_header(text)
    placeholders, real = found.values()
    assert (placeholders.beam_center_x, placeholders.rotations, placeholders.wavelength) == (None, (), None)
    assert (placeholders.saturation, placeholders.exposure, placeholders.distance) == (1380198.0, 1.0, 1000.0)
    assert (real.beam_center_x, real.beam_center_y, real.saturation) == (498.18, 515.77, 1097223.0)
    assert real.distance == pytest.approx(211.43)


@given(st.text(max_size=80) | st.lists(st.sampled_from([*TEXT.split(), "#", "\n# ", "-", "e9", "\x85"])).map("".join))
@settings(max_examples=100)
def test_no_text_raises(text: str) -> None:
    header = dectris_header(text)
    is_dectris_text(text)
    assert header.exposure is None or header.exposure > 0


def test_long_texts_end_in_time() -> None:
    for filling in ("# ", "#\n", "1", " ", "# Beam_xy 1 ", "# Pixel_size " + "x " * 999, "1-" * 9):
        began = time.process_time()
        dectris_header("# " + filling * (5_000_000 // len(filling)))
        assert time.process_time() - began < 1
