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
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.hdf5.open_files import LARGEST_CACHE
from tango_server.conversion.hdf5.virtual import Region
from tango_server.conversion.image.pixels import Image

_FILTER, _LZ4 = 32008, 2
_START = struct.Struct(">QI")
_SIZE = struct.Struct(">I")
_LARGEST_BLOCK = 2**20
_AT_ONCE = 8  # pixels

Decode = Callable[[bytes, int, int, int, int], int]


def decoded(region: Region, image: Image) -> bool:
    """Read a region into `image` if it is in one chunk of this kind, and return whether it is.

    A chunk of several frames is decoded once, into memory that is kept with its file and used again.

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
    if math.prod(sides) == 1:
        return _decode(function, data_set, corner, image)
    key = ("chunk", region.place.name)
    known, chunk = notes.pop(key, (None, None))
    if known != corner:
        chunk = np.empty(data_set.chunks, data_set.dtype) if chunk is None else chunk
        if not _decode(function, data_set, corner, chunk):
            return False
    notes[key] = corner, chunk
    image[...] = chunk[tuple(index % side for index, side in zip(region.at, sides, strict=True))]
    return True


def _decode(function: Decode, data_set: Any, corner: tuple[int, ...], pixels: NDArray[Any]) -> bool:
    mask, chunk = data_set.id.read_direct_chunk((*corner, 0, 0))
    if mask:  # the chunk was stored without the filter
        return False
    block = _block_of(chunk, pixels)
    taken = function(chunk[_START.size :], pixels.ctypes.data, pixels.size, pixels.itemsize, block)
    if taken < 0:
        raise ValueError(f"bitshuffle returns {taken}")
    return True


def _is_in_one_chunk(region: Region, image: Image) -> bool:
    data_set = region.place.object
    if not data_set.chunks or not data_set.chunks[-2:] == data_set.shape[-2:] == region.shape == image.shape:
        return False
    if data_set.dtype != image.dtype or not image.flags.c_contiguous:
        return False
    layout = data_set.id.get_create_plist()
    if layout.get_nfilters() != 1 or math.prod(data_set.chunks) * image.itemsize > LARGEST_CACHE:
        return False
    code, _, options, _ = layout.get_filter(0)
    return bool(code == _FILTER and options[2:3] == (image.itemsize,) and options[4:] == (_LZ4,))


def _block_of(chunk: bytes, image: NDArray[Any]) -> int:
    """Return the pixels of a block; the sizes in a chunk must add up, since the decoder believes them."""
    if len(chunk) < _START.size:
        raise ValueError("it is too short")
    size, block_size = _START.unpack_from(chunk)
    block, rest = divmod(block_size, image.itemsize)
    if size != image.nbytes or rest or block % _AT_ONCE or not 0 < block_size <= _LARGEST_BLOCK:
        raise ValueError(f"it states {size} bytes in blocks of {block_size}")
    whole, last = divmod(image.size, block)
    end = _START.size
    for _ in range(whole + (last >= _AT_ONCE)):
        if end + _SIZE.size > len(chunk):
            raise ValueError("it is too short")
        end += _SIZE.size + _SIZE.unpack_from(chunk, end)[0]
    if end + image.size % _AT_ONCE * image.itemsize > len(chunk):
        raise ValueError("it is too short")
    return int(block)


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
        function.argtypes = [ctypes.c_char_p, ctypes.c_void_p, *[ctypes.c_size_t] * 3]
        return function
    return None
