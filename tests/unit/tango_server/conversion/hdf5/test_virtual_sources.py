"""Virtual data sets of many shapes give the pixels that h5py gives when all sources are there."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tango_server.conversion.errors import ConversionError, UnsupportedImageError
from tango_server.conversion.hdf5 import frames as hdf5_frames
from tango_server.conversion.hdf5.open_files import close_all
from tests.unit.tango_server.conversion.hdf5.reading import check, frames, read

STACK = frames(6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sources: a stack of frames, one of 2-D frames, halves of frames."""
    for name in "ab":
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("data", data=STACK + ord(name), chunks=(1, 32, 48), maxshape=(None, 32, 48))
            file["image"] = STACK[0] + ord(name)
            file["linked"] = h5py.SoftLink("/data")
            file["100%"] = h5py.SoftLink("/data")
    return tmp_path


def source(name: str, data_set: str = "data", shape: tuple[int, ...] = (6, 32, 48)) -> h5py.VirtualSource:
    return h5py.VirtualSource(f"{name}.h5", data_set, shape)


def interleaved() -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout((12, 32, 48), "u2")
    layout[0::2], layout[1::2] = source("a"), source("b")
    return layout


def modules() -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout((6, 64, 48), "i4")
    layout[:, :32], layout[:, 32:] = source("a"), source("b", "linked")
    return layout


def parts() -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout((4, 20, 30), "u2")
    layout[:2] = source("a")[2:4, 5:25, 10:40]
    layout[2:] = source("b")[0:6:5, 12:, 18:]
    return layout


def images() -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout((2, 32, 48), "u2")
    layout[0], layout[1] = source("a", "image", (32, 48)), source("b")[3]
    return layout


def grid() -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout((2, 3, 32, 48), "u2")
    for row in range(2):
        layout[row] = source("a")[3 * row : 3 * row + 3]
    return layout


def overlapping() -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout((6, 32, 48), "u2")
    layout[:], layout[2:4, 3:9, 4:7] = source("a"), source("b")[2:4, 3:9, 4:7]
    return layout


def escaped() -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout((6, 32, 48), "u2")
    layout[:] = source("a", "100%%")
    return layout


def of_one_frame() -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout((32, 48), "u2")
    layout[:] = source("b", "image", (32, 48))
    return layout


@pytest.mark.parametrize("layout", [interleaved, modules, parts, images, grid, overlapping, escaped, of_one_frame])
def test_pixels_are_those_of_h5py(folder: Path, layout: Callable[[], h5py.VirtualLayout]) -> None:
    path = folder / "master.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("entry/data")
        group.attrs["axes"] = ["y", "x", ".", "."]
        group.create_virtual_dataset("data", layout(), fillvalue=9)
    with h5py.File(path, locking=False) as file:
        stored = file["entry/data/data"][()]
    expected = stored.reshape(-1, *stored.shape[-2:])
    assert check(path).frames == len(expected)
    for index, image in enumerate(expected):
        assert check(path, index).state == "complete"
        np.testing.assert_array_equal(read(path, index).image, image)


def test_unlimited_mapping_grows_with_its_source(folder: Path) -> None:
    layout = h5py.VirtualLayout((6, 32, 48), "u2", maxshape=(None, 32, 48))
    end = h5py.h5s.UNLIMITED
    layout[:end] = h5py.VirtualSource("a.h5", "data", (6, 32, 48), maxshape=(None, 32, 48))[:end]
    with h5py.File(folder / "master.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    assert check(folder / "master.h5").frames == 6
    np.testing.assert_array_equal(read(folder / "master.h5", 5).image, STACK[5] + ord("a"))
    assert check(folder / "master.h5", 6).state == "incomplete"


def test_virtual_sources_that_are_virtual_again(folder: Path) -> None:
    with h5py.File(folder / "inner.h5", "w") as file:
        file.create_virtual_dataset("data", interleaved())
        file["external"] = h5py.ExternalLink("a.h5", "data")
    layout = h5py.VirtualLayout((3, 32, 48), "u2")
    layout[:2], layout[2] = source("inner", "data", (12, 32, 48))[5:7], source("inner", "external")[1]
    with h5py.File(folder / "outer.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    for index, (number, name) in enumerate([(2, "b"), (3, "a"), (1, "a")]):
        np.testing.assert_array_equal(read(folder / "outer.h5", index).image, STACK[number] + ord(name))
    close_all()
    (folder / "b.h5").unlink()
    assert "b.h5" in check(folder / "outer.h5", 0).problem
    assert check(folder / "outer.h5", 1).proof.startswith("all virtual sources")


def test_virtual_data_set_of_many_frames_is_counted_without_checking_each(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = h5py.VirtualLayout((6, 32, 48), "u2")
    layout[:1], layout[2:] = source("a")[:1], source("a")[2:]
    with h5py.File(folder / "master.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    assert (check(folder / "master.h5").state, check(folder / "master.h5", 1).state) == ("damaged", "damaged")
    monkeypatch.setattr(hdf5_frames, "_MOST_CHECKED", 3)
    whole = check(folder / "master.h5")
    assert (whole.state, whole.proof, whole.frames) == ("complete", "", 6)
    assert check(folder / "master.h5", 1).state == "damaged"


def test_source_that_is_too_short_or_half_mapped(folder: Path) -> None:
    layout = h5py.VirtualLayout((8, 32, 48), "u2")
    layout[:] = source("a", "data", (8, 32, 48))
    half = h5py.VirtualLayout((6, 32, 48), "u2")
    half[:, :31] = source("a")[:, :31]
    with h5py.File(folder / "master.h5", "w") as file:
        file.create_virtual_dataset("short", layout)
        file.create_virtual_dataset("half", half)
        itself = h5py.VirtualLayout((6, 32, 48), "u2")
        itself[:] = h5py.VirtualSource(".", "itself", (6, 32, 48))
        file.create_virtual_dataset("itself", itself)
    path = folder / "master.h5"
    assert [check(f"{path}::/short", index).state for index in (5, 6)] == ["complete", "incomplete"]
    assert "nothing is mapped to 48 pixels" in check(f"{path}::/half", 0).problem
    with pytest.raises(UnsupportedImageError, match="too many times"):
        check(f"{path}::/itself", 0)


def test_sources_of_a_kind_that_cannot_be_followed(folder: Path) -> None:
    turned = h5py.VirtualLayout((4, 32, 24), "u2")
    turned[:] = source("a")[:2]
    with h5py.File(folder / "master.h5", "w") as file:
        file.create_virtual_dataset("data", turned)
    with pytest.raises(ConversionError):
        check(folder / "master.h5", 0).require_complete(folder)


def test_raw_storage_inside_of_the_roots(tmp_path: Path) -> None:
    (tmp_path / "raw.bin").write_bytes(b"head" + STACK[:4].tobytes())
    (tmp_path / "more.bin").write_bytes(STACK[4:].tobytes())
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        files = [("raw.bin", 4, STACK[:4].nbytes), ("more.bin", 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("data", STACK.shape, "u2", external=files)
    for index in range(6):
        np.testing.assert_array_equal(read(tmp_path / "raw.h5", index).image, STACK[index])
    before = check(tmp_path / "raw.h5", 5)
    assert (before.state, before.proof) == ("complete", "")
    (tmp_path / "more.bin").write_bytes(STACK[4:5].tobytes())
    assert [check(tmp_path / "raw.h5", index).state for index in (4, 5)] == ["complete", "incomplete"]
    (tmp_path / "more.bin").unlink()
    assert "more.bin" in check(tmp_path / "raw.h5", 5).problem


def test_raw_pixels_of_fewer_bits_than_their_bytes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "raw.bin").write_bytes((STACK[0] << 2).tobytes())
    kind, layout = h5py.h5t.STD_U16LE.copy(), h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    kind.set_precision(12)
    kind.set_offset(2)
    layout.set_external(b"raw.bin", 0, h5py.h5f.UNLIMITED)
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        h5py.h5d.create(file.id, b"data", kind, h5py.h5s.create_simple(STACK[0].shape), layout)
    with pytest.raises(UnsupportedImageError, match="fewer bits than uint16"):
        read(tmp_path / "raw.h5")
