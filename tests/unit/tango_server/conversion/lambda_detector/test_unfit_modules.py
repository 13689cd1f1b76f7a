"""Files that lie, lack something or are of something else: refused or awaited, each by its name."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tango_server.conversion.errors import (
    ConversionError,
    IncompleteFileError,
    OutsideRootsError,
    SourceError,
    SourceUnreadableError,
    UnsupportedImageError,
)
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.frame_header import FrameHeader
from tango_server.conversion.hdf5.open_files import close_all
from tango_server.conversion.image.buffers import Workspace
from tango_server.conversion.lambda_detector.frame import check_lambda, is_lambda_module, open_lambda
from tests.unit.tango_server.conversion.lambda_detector.made_files import (
    DETECTOR,
    SHAPE,
    change,
    frames_of,
    write_detector,
    write_module,
)

Change = Callable[[Path], object]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    close_all()


def at(file: Path, index: int | None = None) -> FrameLocation:
    return FrameLocation(file, "", index)


def read(file: Path, index: int) -> Any:
    with open_lambda(at(file, index), Workspace()) as source:
        (image,) = source.read()
        return image, source


def replaced(name: str, value: Any) -> Change:
    return lambda path: change(path, name, value)


def with_unit(unit: str) -> Change:
    def set_unit(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file[DETECTOR]["translation/distance"].attrs["units"] = unit

    return set_unit


def huge(path: Path) -> None:
    change(path, "data", None)
    with h5py.File(path, "r+") as file:
        file[DETECTOR].create_dataset("data", (3, 10**6, 10**6), "int16", chunks=(1, 100, 100))


NEVER = {
    "pixels of another type": replaced("data", frames_of(2, kind="int32")),
    "two dimensions": replaced("data", frames_of(2)[0]),
    "texts for pixels": replaced("data", [b"text"]),
    "no rows": replaced("data", np.zeros((3, 0, 12), np.int16)),
    "a shape beyond all detectors": huge,
    "overlap": replaced("translation/distance", np.float32([0, 7, 0])),
    "translation NaN": replaced("translation/distance", np.float32([0, np.nan, 0])),
    "translation far away": replaced("translation/distance", np.float32([0, 1e7, 0])),
    "translation as text": replaced("translation/distance", [b"0 10 0"]),
    "translation of one number": replaced("translation/distance", np.float32([10])),
    "translation in metres": with_unit("m"),
    "no translation's unit": with_unit("\udcff?".encode("utf-8", "replace").decode()),
    "mask of another shape": replaced("pixel_mask", np.zeros((1, 8, 13), np.uint32)),
    "mask of floats": replaced("pixel_mask", np.zeros((1, *SHAPE), np.float32)),
    "another detector": replaced("description", [b"Pilatus"]),
    "a circle of links": replaced("pixel_mask", h5py.SoftLink("/entry/instrument/detector/pixel_mask")),
    "not HDF5": lambda path: path.write_bytes(b"text " * 100),
}


@pytest.mark.parametrize("unfit", NEVER)
def test_unfit_module_is_refused_by_its_name(tmp_path: Path, unfit: str) -> None:
    first = write_detector(tmp_path, 2)
    NEVER[unfit](tmp_path / "scan_m2.nxs")
    for attempt in (lambda: check_lambda(at(first)), lambda: read(first, 0)):
        with pytest.raises(SourceError, match=r"scan_m2\.nxs") as refused:
            attempt()
        assert isinstance(refused.value, UnsupportedImageError | SourceUnreadableError)


def unwritten(name: str, shape: tuple[int, ...], kind: str) -> Change:
    def write(path: Path) -> None:
        change(path, name, None)
        with h5py.File(path, "r+") as file:
            file[DETECTOR].create_dataset(name, shape, kind, chunks=(1, *shape[1:]))

    return write


AWAITED = {
    "a link to no file": replaced("data", h5py.ExternalLink("absent.nxs", "/x")),
    "no pixels": replaced("data", None),
    "no translation": replaced("translation/distance", None),
    "translation not written": unwritten("translation/distance", (3,), "float32"),
    "mask not written": unwritten("pixel_mask", (1, *SHAPE), "uint32"),
    "pixels not written": unwritten("data", (3, *SHAPE), "int16"),
    "no frame": replaced("data", np.zeros((0, *SHAPE), np.int16)),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(10_000)),
}


@pytest.mark.parametrize("lacking", AWAITED)
def test_module_that_lacks_something_is_awaited(tmp_path: Path, lacking: str) -> None:
    first = write_detector(tmp_path, 2)
    AWAITED[lacking](tmp_path / "scan_m2.nxs")
    with pytest.raises(IncompleteFileError, match=r"scan_m2\.nxs"):
        read(first, 0)
    state = check_lambda(at(first, 0))
    assert state.state == "incomplete"
    assert "scan_m2.nxs" in state.problem


@pytest.mark.parametrize("kind", ["link", "raw storage", "virtual"])
@pytest.mark.parametrize("name", ["data", "pixel_mask", "translation/distance"])
def test_what_lies_outside_of_the_roots_is_not_read(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / "inside").mkdir()
    first = write_detector(tmp_path / "inside", 2)
    outside = write_detector(tmp_path, 2).with_name("scan_m2.nxs")
    path = f"/{DETECTOR}/{name}"
    with h5py.File(outside, "r", locking=False) as file:
        shape, pixel_type = file[path].shape, file[path].dtype
    change(tmp_path / "inside" / "scan_m2.nxs", name, None)
    with h5py.File(tmp_path / "inside" / "scan_m2.nxs", "r+") as file:
        if kind == "link":
            file[path] = h5py.ExternalLink(outside, path)
        elif kind == "raw storage":
            file.create_dataset(path, shape, pixel_type, external=[(outside, 0, h5py.h5f.UNLIMITED)])
        else:
            layout = h5py.VirtualLayout(shape, pixel_type)
            layout[:] = h5py.VirtualSource(outside, path, shape)
            file.create_virtual_dataset(path, layout)
    roots = Roots.of([tmp_path / "inside"])
    with pytest.raises(ConversionError) as refused, open_lambda(at(first, 0), Workspace(), roots) as source:
        list(source.read())
    small = name.startswith("translation") and kind != "link"  # small values must be in the file itself
    assert isinstance(refused.value, UnsupportedImageError if small else OutsideRootsError)


def test_frame_that_does_not_decode_fails_alone(tmp_path: Path) -> None:
    first = write_detector(tmp_path, 2)
    close_all()
    with h5py.File(tmp_path / "scan_m2.nxs", "r+") as file:
        file[DETECTOR]["data"].id.write_direct_chunk((1, 0, 0), b"garbage")
    with pytest.raises(SourceUnreadableError, match=r"scan_m2\.nxs: .* does not decode"):
        read(first, 1)
    for index in (0, 2):
        np.testing.assert_array_equal(read(first, index)[0][10:, :12], frames_of(2)[index])


def test_values_that_are_no_numbers_count_as_not_stated(tmp_path: Path) -> None:
    first = write_module(tmp_path / "scan_m1.nxs", frames_of(1))
    for name, value in {
        "count_time": [b"long"],
        "saturation_value": np.zeros(5),
        "x_pixel_size": [np.nan],
        "y_pixel_size": [0.0],
        "collection/beam_energy": np.zeros((3, 0)),
        "sequence_number": [b"one"],
        "distance": [1e400],
    }.items():
        change(first, name, value)
    assert read(first, 0)[1].header == FrameHeader(detector="Lambda")


def test_values_may_be_scalars_with_other_units(tmp_path: Path) -> None:
    first = write_module(tmp_path / "scan_m1.nxs", frames_of(1))
    for name, (value, unit) in {
        "count_time": (0.5, "s"),
        "distance": (0.3, "m"),
        "x_pixel_size": (5.5e-5, "m"),
        "collection/beam_energy": (25.0, "keV"),
    }.items():
        change(first, name, value)
        with h5py.File(first, "r+") as file:
            file[DETECTOR][name].attrs["units"] = np.array([unit.encode()])
    change(first, "description", "LAMBDA 750K")
    assert is_lambda_module(at(first))
    header = read(first, 0)[1].header
    assert (header.exposure, header.distance) == (0.5, pytest.approx(300))
    assert header.pixel_size_x == pytest.approx(0.055)
    assert header.wavelength == pytest.approx(12.398419843320026 / 25)


def test_lowest_limit_of_the_modules_counts(tmp_path: Path) -> None:
    first = write_detector(tmp_path, 3)
    change(tmp_path / "scan_m2.nxs", "saturation_value", [4000])
    change(tmp_path / "scan_m3.nxs", "saturation_value", None)
    assert read(first, 0)[1].header.saturation == 4000


@pytest.mark.parametrize("description", [b"Eiger", 5.0, None, np.zeros((2, 2))])
def test_name_alone_makes_no_lambda(tmp_path: Path, description: Any) -> None:
    first = write_detector(tmp_path, 2)
    assert is_lambda_module(at(first))
    assert is_lambda_module(FrameLocation(first, f"/{DETECTOR}/data", 0))
    assert not is_lambda_module(FrameLocation(first, f"/{DETECTOR}/pixel_mask"))
    change(first, "description", description)
    assert not is_lambda_module(at(first))


def test_content_alone_makes_no_lambda(tmp_path: Path) -> None:
    assert not is_lambda_module(at(write_module(tmp_path / "scan.nxs", frames_of(1))))
    assert not is_lambda_module(at(tmp_path / "absent_m1.nxs"))
    (tmp_path / "text_m1.nxs").write_text("no HDF5" * 50)
    assert not is_lambda_module(at(tmp_path / "text_m1.nxs"))
