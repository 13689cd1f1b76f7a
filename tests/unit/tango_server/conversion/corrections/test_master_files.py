"""Masters of every format, as their own libraries write them."""

from pathlib import Path
from typing import Any

import fabio
import h5py
import numpy as np
import pytest
import tifffile
from fabio.cbfimage import CbfImage
from fabio.edfimage import EdfImage

from tango_server.conversion.corrections.master_files import read_master
from tango_server.conversion.errors import MasterMissingError, MasterUnreadableError, OutsideRootsError
from tango_server.conversion.files.roots import Roots

IMAGE = np.arange(80, dtype=np.int32).reshape(8, 10)
STACK = np.stack([IMAGE, IMAGE + 100, IMAGE + 3])


def written(folder: Path, name: str, image: np.ndarray[Any, Any]) -> str:
    path = folder / name
    match path.suffix:
        case ".tif":
            tifffile.imwrite(path, image, photometric="minisblack", compression="zlib")
        case ".npy":
            np.save(path, image)
        case ".edf":
            made = EdfImage(data=image if image.ndim == 2 else image[0])
            for further in image[1:] if image.ndim == 3 else ():
                made.append_frame(data=further)
            made.write(str(path))
        case ".cbf":
            CbfImage(data=image).write(str(path))
        case ".h5":
            with h5py.File(path, "w") as file:
                file.create_dataset("exchange/dark", data=image, chunks=True, compression="gzip")
            return f"{path}::/exchange/dark"
    return str(path)


@pytest.mark.parametrize("name", ["m.tif", "m.npy", "m.edf", "m.cbf", "m.h5"])
def test_formats(tmp_path: Path, name: str) -> None:
    master, _ = read_master(written(tmp_path, name, IMAGE))
    np.testing.assert_array_equal(master.image, IMAGE)
    assert len(master.sha256) == 64


@pytest.mark.parametrize("name", ["m.tif", "m.npy", "m.edf", "m.h5"])
def test_several_frames(tmp_path: Path, name: str) -> None:
    master, _ = read_master(written(tmp_path, name, STACK))
    np.testing.assert_array_equal(master.image, STACK)


def test_the_frame_s_own_file(tmp_path: Path) -> None:
    written(tmp_path, "frame.h5", STACK)
    master, _ = read_master("::/exchange/dark", source=tmp_path / "frame.h5")
    np.testing.assert_array_equal(master.image, STACK)


@pytest.mark.parametrize("name", ["m.edf", "m.cbf", "m.npy", "m.tif", "m.h5"])
def test_a_file_that_is_cut_off_is_never_filled_with_zeros(tmp_path: Path, name: str) -> None:
    text = written(tmp_path, name, STACK if name.endswith("edf") else IMAGE)
    path = Path(text.partition("::")[0])
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(MasterUnreadableError):
        read_master(text)


def test_a_cbf_with_a_wrong_checksum(tmp_path: Path) -> None:
    text = written(tmp_path, "m.cbf", IMAGE)
    data = bytearray(Path(text).read_bytes())
    place = data.index(b"\x0c\x1a\x04\xd5") + 40
    data[place] ^= 1
    Path(text).write_bytes(bytes(data))
    assert fabio.open(text).data is not None  # fabio logs only
    with pytest.raises(MasterUnreadableError):
        read_master(text)


class TestHdf5:
    """Only values in the file itself, by the name of their data set."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        with h5py.File(tmp_path / "other.h5", "w") as file:
            file["data"] = IMAGE
        (tmp_path / "raw.bin").write_bytes(IMAGE.tobytes())
        with h5py.File(tmp_path / "m.h5", "w") as file:
            file["a/image"] = IMAGE
            file["text"] = "words"
            file["a/link"] = h5py.SoftLink("/a/image")
            file["outside"] = h5py.ExternalLink("other.h5", "/data")
            file.create_dataset("raw", IMAGE.shape, IMAGE.dtype, external=[("raw.bin", 0, h5py.h5f.UNLIMITED)])
            layout = h5py.VirtualLayout(IMAGE.shape, IMAGE.dtype)
            layout[:] = h5py.VirtualSource("other.h5", "data", IMAGE.shape)
            file.create_virtual_dataset("virtual", layout)
            file.create_dataset("huge", (10**6, 10**6), np.int32, chunks=(10, 10))
        return tmp_path / "m.h5"

    @pytest.mark.parametrize(
        "name", ["", "::", "::/none", "::/a", "::/text", "::/a/link", "::/outside", "::/raw", "::/virtual", "::/huge"]
    )
    def test_refused(self, path: Path, name: str) -> None:
        with pytest.raises(MasterUnreadableError, match=r"m\.h5"):
            read_master(f"{path}{name}")


def test_outside_of_the_roots(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    inside, outside = written(tmp_path / "in", "m.npy", IMAGE), written(tmp_path, "m.npy", IMAGE)
    roots = Roots.of([tmp_path / "in"])
    assert read_master(inside, roots)[0].image.shape == IMAGE.shape
    with pytest.raises(OutsideRootsError):
        read_master(outside, roots)
    (tmp_path / "in" / "link.npy").symlink_to(outside)
    with pytest.raises(OutsideRootsError):
        read_master(str(tmp_path / "in" / "link.npy"), roots)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(MasterMissingError, match=r"none\.tif"):
        read_master(str(tmp_path / "none.tif"))
