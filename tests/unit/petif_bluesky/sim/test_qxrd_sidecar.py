"""The simulator's sidecar against ConfigParser, the calendar and, where it is at hand, a real sidecar."""

import re
import struct
from configparser import ConfigParser
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from petif_bluesky.sim.qxrd_sidecar import Sidecar, sidecar_path, write_sidecar

REAL = Path(__file__).parents[5] / "shared" / "data" / "qxrd" / "sidecar_0.11.1.tif.metadata"
BERLIN_SUMMER = timezone(timedelta(hours=2))


def make(**changes):
    values = {
        "shape": (100, 200),
        "pixel_type": "float32",
        "exposure_time": 0.1,
        "acquired": datetime(2024, 5, 17, 12, 34, 56, 789_000, tzinfo=BERLIN_SUMMER),
        "center": (1105.92, 942.08),
        "distance": 500.25,
        "energy": 42_700.0,
        "image_number": 3,
    }
    return Sidecar(**{**values, **changes})


def parse(path):
    parser = ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str
    parser.read_string(path.read_bytes().decode("latin-1"))
    return parser


def lines(path):
    return path.read_bytes().decode("ascii").split("\r\n")


def keys(text):
    return re.findall(r"^(\[\w+\]|[\w\\]+(?==))", text, re.MULTILINE)


def test_values_are_read_back_in_the_units_of_qxrd(tmp_path):
    frame = tmp_path / "sample_0001-00003.tif"
    path = write_sidecar(frame, make(comment="50% CeO2"))
    assert path == sidecar_path(frame) == tmp_path / "sample_0001-00003.tif.metadata"
    metadata = parse(path)["metadata"]
    assert (metadata.getint("width"), metadata.getint("height")) == (200, 100)
    assert (metadata["dataType"], metadata["dataTypeName"]) == ("5", "Subtracted Data")
    assert metadata["fileBase"] == metadata["title"] == frame.name
    assert metadata["fileName"] == frame.as_posix()
    assert metadata["exposureTime"] == "0.1"
    assert metadata["summedExposures"] == "1"
    assert metadata["imageNumber"] == "3"
    assert metadata["dateString"] == "2024.05.17 : 12:34:56.789"
    assert metadata.getfloat("timeStamp") == datetime(2024, 5, 17, 10, 34, 56, 789_000, tzinfo=UTC).timestamp()
    assert metadata["userComment1"] == "50% CeO2"
    center_finder = parse(path)["centerfinder"]
    assert center_finder["centerX"] == "1105.92"
    assert center_finder["centerY"] == "942.08"
    assert center_finder["detectorXPixelSize"] == center_finder["detectorYPixelSize"] == "200"
    assert center_finder["detectorDistance"] == "500.25"
    assert center_finder["energy"] == "42700"
    assert center_finder.getboolean("implementTilt") is False


@pytest.mark.parametrize(
    ("pixel_type", "code", "name"), [("uint16", "1", "16 Bit Raw Data"), ("uint32", "2", "32 Bit Raw Data")]
)
def test_raw_frames_are_labelled_raw(pixel_type, code, name, tmp_path):
    metadata = parse(write_sidecar(tmp_path / "a.tif", make(pixel_type=pixel_type)))["metadata"]
    assert (metadata["dataType"], metadata["dataTypeName"]) == (code, name)


def unescape(text):
    """Undo Qt's escapes as its manual describes them."""
    named = {"0": 0, "a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
    pieces = re.findall(r"\\x([0-9a-f]+)|\\(.)|(.)", text)
    return "".join(chr(int(x, 16)) if x else chr(named.get(e, ord(e))) if e else plain for x, e, plain in pieces)


@pytest.mark.parametrize(
    ("moment", "julian_day"),
    [
        (datetime(2000, 1, 1, 0, 0, 0, 1000), 2_451_545),
        (datetime(1970, 1, 1, 23, 59, 59, 999_999), 2_440_588),
        (datetime(2024, 2, 29, 12, 34, 56, 789_000), 2_460_370),
    ],
)
def test_date_time_is_encoded_correctly(moment, julian_day, tmp_path):
    value = unescape(parse(write_sidecar(tmp_path / "a.tif", make(acquired=moment)))["metadata"]["dateTime"])
    packed = re.fullmatch(r'"?@Variant\((.*)\)"?', value, re.DOTALL)[1].encode("latin-1")
    kind, day, milliseconds, _ = struct.unpack(">IIIB", packed)
    assert (kind, day) == (16, julian_day)
    assert timedelta(milliseconds=milliseconds) == timedelta(
        hours=moment.hour, minutes=moment.minute, seconds=moment.second, milliseconds=moment.microsecond // 1000
    )


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("plain-1.tif", "plain-1.tif"),
        ("a, b; c=d.tif", '"a, b; c=d.tif"'),
        ("back\\slash.tif", "back\\\\slash.tif"),
        ("\xe91g.tif", "\\xe9\\x31g.tif"),
        ("\u03a9.tif", "\\x3a9.tif"),
        ("@home.tif", "@@home.tif"),
        (" blank.tif", '" blank.tif"'),
        ("50%.tif", "50%.tif"),
    ],
)
def test_names_are_escaped_as_qt_escapes_them(name, written, tmp_path):
    sidecar = write_sidecar(tmp_path / "x.tif", make(comment=name))
    assert f"userComment1={written}" in lines(sidecar)
    assert parse(sidecar)["metadata"]["userComment1"] == written


@pytest.mark.skipif(not REAL.is_file(), reason="the real sidecar is not in the repository")
class TestAgainstTheRealOne:
    def test_keys_and_their_order(self, tmp_path):
        real = keys(REAL.read_bytes().decode("latin-1"))
        scripts = {"userGeometryScript", "userAbsorptionScript"}
        ours = keys(write_sidecar(tmp_path / "a.tif", make()).read_bytes().decode("latin-1"))
        assert ours == [key for key in real if key not in scripts]

    def test_same_time_gives_the_same_line(self, tmp_path):
        sidecar = write_sidecar(tmp_path / "a.tif", make(acquired=datetime(2014, 7, 2, 17, 7, 53, 659_000)))
        real = REAL.read_bytes().decode("latin-1").split("\r\n")
        ours = lines(sidecar)
        for key in ("dateTime", "dateString", "normalization", "extraInputs", "markedPoints", "used", "qxrdVersion"):
            assert [line for line in ours if line.startswith(f"{key}=")] == [
                line for line in real if line.startswith(f"{key}=")
            ]
