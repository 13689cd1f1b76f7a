"""Frames out of chunks that hold several: whatever the blocks are, they equal what was written."""

import tempfile
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tango_server.conversion.errors import SourceUnreadableError
from tango_server.conversion.files.roots import ANYWHERE
from tango_server.conversion.hdf5 import bitshuffle
from tango_server.conversion.hdf5.bitshuffle import decoded
from tango_server.conversion.hdf5.links import Place
from tango_server.conversion.hdf5.open_files import close_all, open_files
from tango_server.conversion.hdf5.virtual import Region
from tests.unit.tango_server.conversion.hdf5.reading import MADE, frames, read


@given(
    stacked=st.lists(st.integers(1, 5), max_size=2).map(tuple),
    sides=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    pixel_type=st.sampled_from(["u1", "u2", "i4", "f4", "f8"]),
    block=st.sampled_from([0, 8, 16, 64]),
    data=st.data(),
)
@example(stacked=(5, 2), sides=(4, 4), pixel_type="u2", block=16, data=None)  # each frame begins with a block
@example(stacked=(3,), sides=(5, 7), pixel_type="i4", block=8, data=None)  # it doesn't; the last pixel is not encoded
@example(stacked=(4, 3), sides=(1, 1), pixel_type="u2", block=8, data=None)  # a block has several
def test_every_frame_of_a_chunk_is_decoded(
    stacked: tuple[int, ...], sides: tuple[int, int], pixel_type: str, block: int, data: st.DataObject | None
) -> None:
    chunks = stacked if data is None else tuple(data.draw(st.integers(1, side)) for side in stacked)
    written = np.random.default_rng(1).integers(0, 100, (*stacked, *sides)).astype(pixel_type)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stack.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("data", data=written, chunks=(*chunks, *sides), **hdf5plugin.Bitshuffle(nelems=block))
        with open_files(ANYWHERE) as files:
            place = Place(files.open(path), "/data")
            for at in np.ndindex(*stacked):
                image = np.empty(sides, pixel_type)
                assert decoded(Region(place, at, (0, sides[0]), (0, sides[1])), image)
                np.testing.assert_array_equal(image, written[at])
        close_all()


def test_damage_costs_the_frames_it_is_in(tmp_path: Path) -> None:
    stack, path = frames(3), tmp_path / "damaged.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=stack, chunks=stack.shape, **hdf5plugin.Bitshuffle(nelems=stack[0].size))
    with h5py.File(path, "r") as file:
        chunk = file["data"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    start = chunk.byte_offset + 12
    first = int.from_bytes(content[start : start + 4], "big")
    content[start + 4 + first + 4] ^= 0xFF  # the token with which the second frame begins
    path.write_bytes(content)
    for index in (0, 2):
        np.testing.assert_array_equal(read(path, index).image, stack[index])
    with pytest.raises(SourceUnreadableError, match=r"a chunk of the frame does not decode.*bitshuffle returns -"):
        read(path, 1)


def test_without_the_library_of_the_plugin_hdf5_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bitshuffle, "_decoder", lambda: None)
    np.testing.assert_array_equal(read(MADE / "09_chunks_bslz4.h5", 0).image, frames(1)[0])


def test_blocks_of_more_than_a_megabyte_are_read(tmp_path: Path) -> None:
    stack, path = frames(3), tmp_path / "large.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=stack, chunks=(2, *stack.shape[1:]), **hdf5plugin.Bitshuffle(nelems=2**20))
    for index in range(3):
        np.testing.assert_array_equal(read(path, index).image, stack[index])


@pytest.mark.parametrize("frames_a_chunk", [1, 3])
def test_pixels_of_fewer_bits_than_their_bytes_are_those_of_h5py(tmp_path: Path, frames_a_chunk: int) -> None:
    stack, path = frames(3) % 4096, tmp_path / "twelve_bits.h5"
    kind, layout = h5py.h5t.STD_U16LE.copy(), h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    kind.set_precision(12)
    kind.set_offset(2)
    layout.set_chunk((frames_a_chunk, *stack.shape[1:]))
    layout.set_filter(hdf5plugin.Bitshuffle.filter_id, 0, (0, 2))
    with h5py.File(path, "w") as file:
        h5py.h5d.create(file.id, b"data", kind, h5py.h5s.create_simple(stack.shape), layout).write(
            h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(stack)
        )
    for index in range(3):
        np.testing.assert_array_equal(read(path, index).image, stack[index])
