"""A chunk that states another size than its pixels need does not decode, whatever compressed it."""

from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from tango_server.conversion.errors import SourceUnreadableError
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.formats import open_frame

IMAGE = np.arange(16 * 24, dtype=np.uint16).reshape(16, 24)
FILTERS: dict[str, dict[str, Any]] = {
    "none": {},
    "checksum": {"fletcher32": True},
    "shuffle": {"shuffle": True},
    "gzip": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "lz4": dict(hdf5plugin.LZ4()),
    "blosc": dict(hdf5plugin.Blosc()),
    "zstd": dict(hdf5plugin.Zstd()),
    "zstd with checksum": {"shuffle": True, **hdf5plugin.Zstd(), "fletcher32": True},
    "bitshuffle": dict(hdf5plugin.Bitshuffle(cname="none")),
    "bitshuffle-lz4": dict(hdf5plugin.Bitshuffle(cname="lz4")),
    "bitshuffle-zstd": dict(hdf5plugin.Bitshuffle(cname="zstd")),
    "bitshuffle-lz4 with checksum": {**hdf5plugin.Bitshuffle(cname="lz4"), "fletcher32": True},
}


def stack(path: Path, filters: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=IMAGE[None], chunks=(1, 8, 24), **filters)  # two chunks: HDF5 itself decodes
    return path


@pytest.mark.parametrize("name", FILTERS)
def test_good_chunks_are_read_whatever_the_filter(tmp_path: Path, name: str) -> None:
    path = stack(tmp_path / "a.h5", FILTERS[name])
    with open_frame(FrameLocation(path, index=0)) as source:
        np.testing.assert_array_equal(next(source.read()), IMAGE)


@pytest.mark.parametrize(("name", "place"), [("lz4", 6), ("blosc", 5), ("bitshuffle-lz4", 6), ("bitshuffle-zstd", 6)])
def test_smaller_stated_size_is_an_error_not_other_memory(tmp_path: Path, name: str, place: int) -> None:
    path = stack(tmp_path / "a.h5", FILTERS[name])
    with h5py.File(path, locking=False) as file:
        offset = file["data"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    assert content[offset + place], "the high byte of the size"
    content[offset + place] = 0
    path.write_bytes(content)
    with (
        open_frame(FrameLocation(path, index=0)) as source,
        pytest.raises(SourceUnreadableError, match="does not decode"),
    ):
        next(source.read())


@pytest.mark.parametrize("place", [5, 40])
def test_damaged_zstandard_is_an_error_not_other_memory(tmp_path: Path, place: int) -> None:
    path = stack(tmp_path / "a.h5", FILTERS["zstd"])
    with h5py.File(path, locking=False) as file:
        chunk = file["data"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + place] ^= 0xFF
    path.write_bytes(content)
    with (
        open_frame(FrameLocation(path, index=0)) as source,
        pytest.raises(SourceUnreadableError, match="does not decode"),
    ):
        next(source.read())
