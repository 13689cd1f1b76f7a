"""The header of a MarCCD frame: 3072 bytes at byte 1024 of its TIFF; the pixels are one strip at byte 4096.

Format: the C structure of MarUSA (now Rayonix) that fabio's `marccdimage` quotes. Lengths, times and angles are
integers: nm, um, ms, fm (1e-5 Angstrom), 1e-3 pixels and 1e-3 degrees. Circles that never
moved from 0 are left out; with a chi, no circle is stated, for then they are no kappa goniometer's.
"""

import struct
from typing import NamedTuple

from tango_server.conversion.frame_header import FrameHeader, Rotation, written_time

HEAD = 4096
"""Bytes before the pixels."""

_HEADER = 1024
_NAME = slice(1028, 1044)
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_SHAPE, _COMPRESSION, _SATURATED = 80, 48, 104
_GONIOMETER = 640  # 28 integers, the first six from distance to readout time
_DETECTOR = 768
_SOURCE = 896
_ACQUIRED = slice(2368, 2400)  # MMDDhhmmYYYY.ss
_AXES = ("twotheta", "omega", "chi", "kappa", "phi", "delta", "gamma")
_CIRCLES = ("omega", "kappa", "phi")
_DEPTHS = frozenset({1, 2, 4})
_MOST_TURNED = 3_600_000  # 1e-3 degrees; beyond it, nobody has set the angle


class _Goniometer(NamedTuple):
    distance: int
    beam_x: int
    beam_y: int
    integration: int
    exposure: int
    starts: dict[str, int]
    start_distance: int
    ends: dict[str, int]
    axis: str
    turned: int


def marccd_size(head: bytes) -> int | None:
    """Return the size of the whole file in bytes; None if this is no MarCCD, or a compressed one.

    `head` has the first `HEAD` bytes of the file.
    """
    order = _order(head)
    if order is None or struct.unpack_from(f"{order}I", head, _HEADER + _COMPRESSION)[0]:
        return None
    columns, rows, depth = struct.unpack_from(f"{order}3I", head, _HEADER + _SHAPE)
    return HEAD + int(columns) * int(rows) * int(depth)


def marccd_header(head: bytes) -> FrameHeader | None:
    """Return what the first `HEAD` bytes of a file state; None if this is no MarCCD."""
    order = _order(head)
    if order is None:
        return None
    (saturated,) = struct.unpack_from(f"{order}I", head, _HEADER + _SATURATED)
    kind, x_size, y_size = struct.unpack_from(f"{order}3i", head, _HEADER + _DETECTOR)
    (wavelength,) = struct.unpack_from(f"{order}i", head, _HEADER + _SOURCE + 12)
    place = _goniometer(head, order)
    return FrameHeader.stated(
        detector=f"MarCCD type {kind}" if kind > 0 else "MarCCD",
        exposure=(place.exposure or place.integration) / 1000,
        wavelength=wavelength / 1e5,
        distance=(place.distance or place.start_distance) / 1000,
        beam_center_x=place.beam_x / 1000,
        beam_center_y=place.beam_y / 1000,
        pixel_size_x=x_size / 1e6,
        pixel_size_y=y_size / 1e6,
        saturation=float(saturated),
        rotations=_rotations(place),
        taken=_taken(head),
    )


def _order(head: bytes) -> str | None:
    """Return the byte order of the header, None if there is none."""
    usual = _ORDERS.get(head[:4])
    if usual is None or len(head) < HEAD or not head[_NAME].startswith(b"MMX"):
        return None
    for order in (usual, "<", ">"):
        columns, rows, depth = struct.unpack_from(f"{order}3I", head, _HEADER + _SHAPE)
        if 0 < columns < 2**16 and 0 < rows < 2**16 and depth in _DEPTHS:
            return order
    return None


def _goniometer(head: bytes, order: str) -> _Goniometer:
    numbers = struct.unpack_from(f"{order}28i", head, _HEADER + _GONIOMETER)
    distance, beam_x, beam_y, integration, exposure = numbers[:5]
    return _Goniometer(
        distance,
        beam_x,
        beam_y,
        integration,
        exposure,
        starts=dict(zip(_AXES, numbers[7:14], strict=True)),
        start_distance=numbers[14],
        ends=dict(zip(_AXES, numbers[15:22], strict=True)),
        axis=_AXES[numbers[23]] if 0 <= numbers[23] < len(_AXES) else "",
        turned=numbers[24],
    )


def _rotations(place: _Goniometer) -> tuple[Rotation, ...]:
    if place.starts["chi"] or place.ends["chi"]:
        return ()
    ranges = {name: (place.starts[name], _end(place, name)) for name in _CIRCLES}
    if any(abs(angle) > _MOST_TURNED for each in ranges.values() for angle in each):
        return ()
    return tuple(Rotation(name, first / 1000, last / 1000) for name, (first, last) in ranges.items() if first or last)


def _end(place: _Goniometer, name: str) -> int:
    """Return the angle at the end, for programs that write only the axis and the range of the scan, too."""
    start, end = place.starts[name], place.ends[name]
    if not place.turned or end:
        return end
    return start + place.turned if name == place.axis else start


def _taken(head: bytes) -> str:
    text = head[_ACQUIRED].split(b"\0")[0].decode("latin-1")
    parts = (text[8:12], text[:2], text[2:4], text[4:6], text[6:8], text[13:15] or "0")
    if not all(part.isascii() and part.isdigit() for part in parts):
        return ""
    return written_time(*map(int, parts))
