"""ESPERANTO's header and pixel encodings, against fabio, which has written and read them for years."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import fabio
import numpy as np
import pytest
from fabio.compression import agi_bitfield
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tango_server.conversion.errors import NotEsperantoError, SourceMissingError, SourceUnreadableError
from tango_server.conversion.esperanto.codec import BitfieldError, decode, encode
from tango_server.conversion.esperanto.header import SIZE, Angles, EsperantoHeader, HeaderError, longest_text
from tango_server.conversion.esperanto.padding import FrameSizeError, margin, padded_side, square
from tango_server.conversion.esperanto.reading import read_esperanto, read_header
from tango_server.recipe.esperanto import Encoding

ENCODINGS: tuple[Encoding, ...] = ("AGI_BITFIELD", "4BYTE_LONG")
HEADER = EsperantoHeader(
    side=256,
    encoding="AGI_BITFIELD",
    exposure=0.25,
    monitor=1234.0,
    pixel_size=0.2,
    timestamp="2026-11-27T01:02:03",
    start=Angles(omega=-30.25, theta=1.5, kappa=0.125, phi=12.0),
    end=Angles(omega=-29.75, theta=1.5, kappa=0.125, phi=12.0),
    origin=(120.5, 131.25),
    distance=350.7,
    wavelength=0.29036,
    history="petif-bluesky 0.1.0",
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
ANGLES = st.builds(Angles, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"'), max_size=200).map(str.strip)
HEADERS = st.builds(
    EsperantoHeader,
    side=st.integers(64, 1024).map(lambda number: 4 * number),
    encoding=st.sampled_from(ENCODINGS),
    exposure=NUMBERS,
    monitor=st.integers(0, 2**31 - 1).map(float),
    pixel_size=NUMBERS,
    timestamp=TEXTS,
    start=ANGLES,
    end=ANGLES,
    origin=st.tuples(NUMBERS, NUMBERS),
    alpha=NUMBERS,
    beta=NUMBERS,
    distance=NUMBERS,
    wavelength=NUMBERS,
    history=TEXTS,
)


def image_of(kind: str, side: int = 256) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(7)
    limits = {"whole range": (-(2**31), 2**31), "two bytes": (-(2**15) - 3, 2**15 + 3), "one byte": (-130, 130)}
    if kind in limits:
        return rng.integers(*limits[kind], (side, side)).astype(np.int32)
    if kind == "constant":
        return np.full((side, side), -1, np.int32)
    spots, count = rng.normal(20, 4, (side, side)), min(50, side)
    spots[rng.integers(0, side, count), rng.integers(0, side, count)] = rng.uniform(1e3, 1e6, count)
    return spots.astype(np.int32)


KINDS = ("whole range", "two bytes", "one byte", "constant", "spots")


def by_fabio(path: Path, image: np.ndarray[Any, Any], header: EsperantoHeader) -> bytes:
    """Return the file that fabio writes for the same frame."""
    frame = fabio.esperantoimage.EsperantoImage(data=image)
    frame.format = header.encoding
    start, end = (dict(zip(("om", "th", "ka", "ph"), angles, strict=True)) for angles in (header.start, header.end))
    frame.header.update(
        {
            "delectronsperadu": 1,
            "dsystemdcdb2gain": 1.0,
            "loverflowthreshold": 1_000_000,
            "dexposuretimeinsec": header.exposure,
            "lmon1": round(header.monitor),
            "drealpixelsizex": header.pixel_size,
            "drealpixelsizey": header.pixel_size,
            "timestampstring": header.timestamp,
            **{f"d{name}_s": value for name, value in start.items()},
            **{f"d{name}_e": value for name, value in end.items()},
            "dxorigininpix": header.origin[0],
            "dyorigininpix": header.origin[1],
            "dalphaindeg": header.alpha,
            "dbetaindeg": header.beta,
            "ddistanceinmm": header.distance,
            **dict.fromkeys(("dalpha1", "dalpha2", "dalpha12", "dbeta1"), header.wavelength),
            "ddvalue-prepolfac": 0.98,
            "orientation-type": "SYNCHROTRON",
            "historystring": header.history,
        }
    )
    frame.write(str(path))
    return path.read_bytes()


def by_us(path: Path, image: np.ndarray[Any, Any], header: EsperantoHeader) -> bytes:
    pixels = encode(image) if header.encoding == "AGI_BITFIELD" else image.tobytes()
    path.write_bytes(header.to_bytes() + pixels)
    return path.read_bytes()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_files_are_fabios_and_are_read_back(tmp_path: Path, kind: str, encoding: Encoding) -> None:
    header, image, path = replace(HEADER, encoding=encoding), image_of(kind), tmp_path / "a.esperanto"
    assert by_us(path, image, header) == by_fabio(tmp_path / "its.esperanto", image, header)
    found, pixels = read_esperanto(path)
    assert found == read_header(path) == header
    assert pixels.dtype == np.int32
    np.testing.assert_array_equal(pixels, image)
    np.testing.assert_array_equal(fabio.open(str(path)).data, image)


@pytest.mark.parametrize("side", [16, 20, 24, 28, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_views_are_encoded_whatever_their_strides_are(kind: str, side: int) -> None:
    image = image_of(kind, side)
    for name, view in {"T": image.T, "upside": image[::-1], "rot90": np.rot90(image), "mirror": image[:, ::-1]}.items():
        data = encode(view)
        np.testing.assert_array_equal(decode(data, view.shape), view, err_msg=name)
        if side < 256:  # fabio takes long
            np.testing.assert_array_equal(
                agi_bitfield.decompress(data, view.shape).astype(np.int32), view, err_msg=name
            )


@given(header=HEADERS)
@example(header=replace(HEADER, history="x" * longest_text("HISTORY")))
def test_every_field_of_a_header_comes_back(header: EsperantoHeader) -> None:
    data = header.to_bytes()
    assert len(data) == SIZE
    lines = [data[start : start + 256] for start in range(0, SIZE, 256)]
    assert all(line.endswith(b"\r\n") for line in lines[:-1])
    assert lines[-1].endswith(b"\r\x1a")
    assert EsperantoHeader.from_bytes(data) == header


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"wavelength": float("nan")}, "wavelength: nan"),
    ({"distance": float("inf")}, "distance: inf"),
    ({"start": Angles(phi=float("nan"))}, "start[3]: nan"),
    ({"origin": (1.0, float("inf"))}, "origin[1]: inf"),
    ({"history": "M\u00fcller"}, "history: 'M\\xfcller' is not printable ASCII"),
    ({"history": 'a"b'}, "history: "),
    ({"timestamp": "a\nb"}, "timestamp: "),
    ({"history": "x" * 300}, "history: 300 characters (at most 244)"),
]


@pytest.mark.parametrize(("change", "text"), WRONG)
def test_a_header_that_can_not_be_written_names_the_field(change: dict[str, Any], text: str) -> None:
    with pytest.raises(HeaderError) as caught:
        replace(HEADER, **change).to_bytes()
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "side", "before"),
    [
        ((2048, 2048), 2048, (0, 0)),
        ((64, 64), 256, (96, 96)),
        ((100, 257), 260, (80, 1)),
        ((4095, 3), 4096, (0, 2046)),
        ((300, 301), 304, (2, 1)),
    ],
    ids=str,
)
def test_frames_stand_in_the_middle_of_a_square(shape: tuple[int, int], side: int, before: tuple[int, int]) -> None:
    assert (padded_side(shape), margin(shape)) == (side, before)
    whole, inner = square(shape)
    inner[:] = 7
    assert whole.shape == (side, side)
    assert (whole == 7).sum() == shape[0] * shape[1]
    assert ((whole == 7) | (whole == -1)).all()
    after = side - shape[0] - before[0], side - shape[1] - before[1]
    assert all(0 <= behind - ahead <= 1 for ahead, behind in zip(before, after, strict=True))


def test_larger_frames_are_refused() -> None:
    with pytest.raises(FrameSizeError, match="4097 x 12 pixels"):
        padded_side((4097, 12))


def test_every_cut_is_noticed_and_so_is_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SourceMissingError):
        read_esperanto(tmp_path / "none.esperanto")
    with pytest.raises(SourceUnreadableError):
        read_esperanto(tmp_path)
    path = tmp_path / "a.esperanto"
    for encoding in ENCODINGS:
        whole = by_us(path, image_of("spots"), replace(HEADER, encoding=encoding))
        for length in (0, 1, 255, SIZE - 1, SIZE, SIZE + 3, SIZE + 4, SIZE + 100, len(whole) - 1025, len(whole) - 1):
            path.write_bytes(whole[:length])
            with pytest.raises(NotEsperantoError, match=r"a\.esperanto"):
                read_esperanto(path)
        path.write_bytes(whole + b"\0")
        with pytest.raises(NotEsperantoError):
            read_esperanto(path)


@given(data=st.data())
@settings(max_examples=100)
def test_damage_ends_in_a_typed_error_or_in_an_image(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["spots", "one byte", "two bytes"]))
    encoded = bytearray(encode(image_of(kind, 44)))
    for _ in range(data.draw(st.integers(1, 20))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BitfieldError):
        assert decode(bytes(encoded), (44, 44)).shape == (44, 44)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (b"ESPERANTO FORMAT   1", b"ESPERANTO FORMAT   2", "ESPERANTO FORMAT"),
        (b"IMAGE 256 256", b"IMAGE 256 260", ": 256 260 1 1"),
        (b'"AGI_BITFIELD"', b'"AGI_BITFOOLS"', "AGI_BITFOOLS"),
        (b"IMAGE 256 256 ", b"IMAGE 9e9 9e9 ", "a side of 9000000000 pixels"),
        (b"IMAGE 256 256 ", b"IMAGE 512 512 ", "bytes of pixels instead of"),
        (b"WAVELENGTH 0.29036", b"WAVELENGTH 0.2x036", "WAVELENGTH: '0.2x036'"),
        (b"TIME 0.25 0 0", b"MITE 0.25 0 0", "TIME: 0 values"),
        (b'HISTORY "petif', b'HISTORY "p\xe9tif', "not ASCII"),
    ],
)
def test_inconsistent_header_is_reported_by_its_line(tmp_path: Path, old: bytes, new: bytes, text: str) -> None:
    path = tmp_path / "a.esperanto"
    whole = by_us(path, image_of("spots"), HEADER)
    assert whole.count(old) == 1
    path.write_bytes(whole.replace(old, new))
    with pytest.raises(NotEsperantoError) as caught:
        read_esperanto(path)
    assert text in str(caught.value)
