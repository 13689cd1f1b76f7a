"""Decode a frame of an Eiger (bitshuffle and LZ4) straight into the memory of the conversion.

HDF5 decodes a chunk into new memory and copies it from there, which takes about as long as decoding. Here hdf5plugin's
own function is called for chunks of whole frames, if its library can be used so; else HDF5 reads.

The chunk: the size of the pixels (8 bytes, big-endian), that of a block (4 bytes), the blocks of shuffled and
compressed pixels, each after its size (4 bytes), and as they are the last pixels, fewer than eight.
"""

import ctypes
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tango_server.conversion.hdf5.open_files import LARGEST_CACHE
from tango_server.conversion.hdf5.storage import is_stored_as_in_numpy
from tango_server.conversion.hdf5.virtual import Region
from tango_server.conversion.image.pixels import Image

_FILTER, _LZ4 = 32008, 2
_START = struct.Struct(">QI")
_SIZE = struct.Struct(">I")
_LARGEST_BLOCK = 2**20  # bytes; a whole block is decoded for each frame in it, so HDF5 reads and keeps larger ones
_AT_ONCE = 8  # pixels

Decode = Callable[[int, int, int, int, int], int]


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """An encoded chunk.

    Parameters
    ----------
    corner: its first index in the data set, without row and column
    encoded: its bytes
    pixels: how many it has
    block: pixels of a block
    places: where each block starts, and where the last one ends

    """

    corner: tuple[int, ...]
    encoded: np.ndarray[Any, np.dtype[np.uint8]]
    pixels: int
    block: int
    places: list[int]


def decoded(region: Region, image: Image) -> bool:
    """Read a region into `image` if it is in one chunk of this kind, and return whether it is.

    A chunk of several frames is kept with its file as it is encoded, and only the blocks of this frame are decoded.

    Raises
    ------
    ValueError
        if the chunk does not decode.
    """
    function = _decoder()
    if function is None or not _is_in_one_chunk(region, image):
        return False
    data_set, notes = region.place.object, region.place.file.notes
    sides = data_set.chunks[:-2]
    corner = tuple(index - index % side for index, side in zip(region.at, sides, strict=True))
    key = ("chunk", region.place.name)
    chunk = notes.get(key)
    if chunk is None or chunk.corner != corner:
        chunk = _read(data_set, corner)
        if chunk is None:
            return False
        if math.prod(sides) > 1:
            notes[key] = chunk
    within = (index % side for index, side in zip(region.at, sides, strict=True))
    frame = int(np.ravel_multi_index(tuple(within), sides)) if sides else 0
    _decode(function, chunk, frame * image.size, image)
    return True


def _decode(function: Decode, chunk: Chunk, start: int, image: Image) -> None:
    """Decode the pixels of a chunk from `start` on: right into the image, if they begin and end with a block."""
    first = start // chunk.block
    begin, end = first * chunk.block, min(-(-(start + image.size) // chunk.block) * chunk.block, chunk.pixels)
    pixels = image.reshape(-1) if end - begin == image.size else np.empty(end - begin, image.dtype)
    taken = function(
        chunk.encoded.ctypes.data + chunk.places[first], pixels.ctypes.data, len(pixels), image.itemsize, chunk.block
    )
    if taken < 0:
        raise ValueError(f"bitshuffle returns {taken}")
    if len(pixels) > image.size:
        image[...] = pixels[start - begin :][: image.size].reshape(image.shape)


def _is_in_one_chunk(region: Region, image: Image) -> bool:
    data_set = region.place.object
    if not data_set.chunks or not data_set.chunks[-2:] == data_set.shape[-2:] == region.shape == image.shape:
        return False
    if data_set.dtype != image.dtype or not image.flags.c_contiguous or not is_stored_as_in_numpy(data_set):
        return False
    layout = data_set.id.get_create_plist()
    if layout.get_nfilters() != 1 or math.prod(data_set.chunks) * image.itemsize > LARGEST_CACHE:
        return False
    code, _, options, _ = layout.get_filter(0)
    return bool(code == _FILTER and options[2:3] == (image.itemsize,) and options[4:] == (_LZ4,))


def _read(data_set: Any, corner: tuple[int, ...]) -> Chunk | None:
    """Return the chunk, whose sizes add up, since the decoder believes them; None if HDF5 has to read it."""
    mask, encoded = data_set.id.read_direct_chunk((*corner, 0, 0))
    if mask:
        return None
    if len(encoded) < _START.size:
        raise ValueError("it is too short")
    pixels, itemsize = math.prod(data_set.chunks), data_set.dtype.itemsize
    size, block_size = _START.unpack_from(encoded)
    block, rest = divmod(block_size, itemsize)
    if size == pixels * itemsize and block_size > _LARGEST_BLOCK:
        return None
    if size != pixels * itemsize or rest or block % _AT_ONCE or not block_size:
        raise ValueError(f"it states {size} bytes in blocks of {block_size}")
    places = _places(encoded, -(-(pixels - pixels % _AT_ONCE) // block))
    if places[-1] + pixels % _AT_ONCE * itemsize > len(encoded):
        raise ValueError("it is too short")
    return Chunk(corner, np.frombuffer(encoded, np.uint8), pixels, block, places)


def _places(encoded: bytes, blocks: int) -> list[int]:
    """Return where each block starts, and where the last one ends."""
    places, end, read = [], _START.size, _SIZE.unpack_from
    try:
        for _ in range(blocks):
            places.append(end)
            end += _SIZE.size + read(encoded, end)[0]
    except struct.error:
        raise ValueError("it is too short") from None
    return [*places, end]


@cache
def _decoder() -> Decode | None:
    """Return the function of hdf5plugin's library; None where it does not show it (Windows)."""
    import hdf5plugin  # noqa: PLC0415 - of the extra `formats`

    for path in sorted(Path(hdf5plugin.PLUGIN_PATH).glob("libh5bshuf.*")):
        try:
            function = ctypes.CDLL(str(path)).bshuf_decompress_lz4
        except (OSError, AttributeError):
            continue
        function.restype = ctypes.c_int64
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_size_t] * 3]
        return function
    return None
