"""MarCCD frames, made here from the description of the format and read back by fabio."""

import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import fabio
import numpy as np
import pytest
from fabio.marccdimage import MarccdImage
from hypothesis import given, settings
from hypothesis import strategies as st

from tango_server.conversion.frame_header import FrameHeader, Rotation
from tango_server.conversion.marccd.header import HEAD, marccd_header, marccd_size

IMAGE = np.arange(48 * 32, dtype=np.uint16).reshape(32, 48)
PLACES = {  # of the integers, from the start of the header
    "header_type": 0, "header_byte_order": 28, "data_byte_order": 32, "header_size": 36, "frame_type": 40,
    "nheaders": 76, "nfast": 80, "nslow": 84, "depth": 88, "record_length": 92, "signif_bits": 96, "data_type": 100,
    "saturated_value": 104, "nimages": 112, "xtal_to_detector": 640, "beam_x": 644, "beam_y": 648,
    "integration_time": 652, "exposure_time": 656, "start_omega": 672, "start_chi": 676, "start_kappa": 680,
    "start_phi": 684, "start_xtal_to_detector": 696, "end_omega": 704, "end_chi": 708, "end_kappa": 712,
    "end_phi": 716, "rotation_axis": 732, "rotation_range": 736, "detector_type": 768, "pixelsize_x": 772,
    "pixelsize_y": 776, "source_wavelength": 908,
}  # fmt: skip
STATED = {
    "xtal_to_detector": 150_250, "beam_x": 1_024_500, "beam_y": 1_000_000, "exposure_time": 2_500,
    "integration_time": 2_600, "saturated_value": 65_535, "pixelsize_x": 79_346, "pixelsize_y": 79_400,
    "source_wavelength": 97_950, "detector_type": 3, "start_omega": 10_000, "end_omega": 10_000, "start_phi": 30_000,
    "end_phi": 30_500, "start_kappa": -60_000, "end_kappa": -60_000,
}  # fmt: skip
HEADER = FrameHeader(
    detector="MarCCD type 3",
    exposure=2.5,
    wavelength=0.9795,
    distance=150.25,
    beam_center_x=1024.5,
    beam_center_y=1000.0,
    pixel_size_x=0.079346,
    pixel_size_y=0.0794,
    saturation=65535.0,
    rotations=(Rotation("omega", 10.0, 10.0), Rotation("kappa", -60.0, -60.0), Rotation("phi", 30.0, 30.5)),
    taken="2009:07:21 16:39:05",
)


def made(
    stated: Mapping[str, int] = MappingProxyType(STATED), order: str = "<", acquired: bytes = b"072116392009.05"
) -> bytes:
    """Return a MarCCD file: TIFF header and directory, the detector's header at 1024, the pixels at 4096."""
    rows, columns = IMAGE.shape
    entries = [
        (256, 4, columns), (257, 4, rows), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, HEAD), (274, 3, 1),
        (277, 3, 1), (278, 4, rows), (279, 4, IMAGE.nbytes),
    ]  # fmt: skip
    directory = struct.pack(f"{order}H", len(entries))
    for tag, kind, value in entries:
        directory += struct.pack(f"{order}HHI", tag, kind, 1)
        directory += struct.pack(f"{order}I" if kind == 4 else f"{order}H2x", value)
    head = bytearray(HEAD)
    head[:8] = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    head[8 : 8 + len(directory) + 4] = directory + bytes(4)
    head[1028:1032] = b"MMX\0"
    number = 1234 if order == "<" else 4321
    fixed = {
        "header_type": 2, "header_byte_order": number, "data_byte_order": number, "header_size": 3072, "frame_type": 1,
        "nheaders": 1, "nfast": columns, "nslow": rows, "depth": 2, "record_length": columns, "signif_bits": 16,
        "nimages": 1,
    }  # fmt: skip
    for name, value in {**fixed, **stated}.items():
        struct.pack_into(f"{order}{'i' if value < 0 else 'I'}", head, 1024 + PLACES[name], value)
    head[2368 : 2368 + len(acquired)] = acquired
    return bytes(head) + IMAGE.astype(f"{order}u2").tobytes()


@pytest.mark.parametrize("order", "<>")
def test_values_are_in_our_units(order: str) -> None:
    content = made(order=order)
    assert marccd_header(content[:HEAD]) == HEADER
    assert marccd_size(content[:HEAD]) == len(content)


def test_fabio_reads_the_same_from_what_is_made_here(tmp_path: Path) -> None:
    path = tmp_path / "frame.mccd"
    path.write_bytes(made())
    theirs = fabio.open(str(path))
    assert isinstance(theirs, MarccdImage)
    np.testing.assert_array_equal(theirs.data, IMAGE)
    with path.open("rb") as file:  # its reading of the header is not reached through `open`
        theirs._readheader(file)
    found: dict[str, Any] = {name: theirs.header[name] for name in STATED}
    assert found == STATED


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"exposure_time": 0}, {"exposure": 2.6}),
        ({"xtal_to_detector": 0, "start_xtal_to_detector": 90_000}, {"distance": 90.0}),
        ({"xtal_to_detector": 0}, {"distance": None}),
        ({"beam_x": 0, "beam_y": 0}, {"beam_center_x": None, "beam_center_y": None}),
        ({"source_wavelength": -9999, "saturated_value": 0}, {"wavelength": None, "saturation": None}),
        ({"detector_type": 0}, {"detector": "MarCCD"}),
        ({"start_chi": 1}, {"rotations": ()}),
        ({"end_phi": 2_000_000_000}, {"rotations": ()}),
        (
            {"start_omega": 0, "end_omega": 0, "end_kappa": 0, "end_phi": 0, "rotation_axis": 4, "rotation_range": 500},
            {"rotations": (Rotation("kappa", -60.0, -60.0), Rotation("phi", 30.0, 30.5))},
        ),
    ],
)
def test_placeholders_are_left_out_or_replaced(changes: dict[str, int], expected: dict[str, Any]) -> None:
    header = marccd_header(made({**STATED, **changes})[:HEAD])
    assert {name: getattr(header, name) for name in expected} == expected


@pytest.mark.parametrize("acquired", [b"", b"never", b"992116392009.05", b"07211639\xb2009.05"])
def test_odd_times_are_not_stated(acquired: bytes) -> None:
    header = marccd_header(made(acquired=acquired)[:HEAD])
    assert header is not None
    assert header.taken == ""


def test_others_are_no_marccd() -> None:
    content = made()
    others = [b"", content[:2000], content[:HEAD].replace(b"MMX", b"abc"), b"\x89HDF" + content[4:HEAD]]
    assert [marccd_header(other) for other in others] == 4 * [None]
    assert [marccd_size(other) for other in others] == 4 * [None]


def test_size_of_compressed_frames_is_unknown() -> None:
    content = bytearray(made()[:HEAD])
    content[1024 + 48] = 1
    assert marccd_size(bytes(content)) is None


@given(st.lists(st.tuples(st.integers(1024, HEAD - 1), st.integers(0, 255)), max_size=60), st.binary(max_size=5000))
@settings(max_examples=100)
def test_no_header_raises(changes: list[tuple[int, int]], noise: bytes) -> None:
    content = bytearray(made()[:HEAD])
    for place, value in changes:
        content[place] = value
    header = marccd_header(bytes(content))
    assert header is None or header.exposure is None or header.exposure > 0
    assert marccd_header(b"II*\0" + noise) is None or b"MMX" in noise
