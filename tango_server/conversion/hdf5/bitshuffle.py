"""Decode a frame of an Eiger (bitshuffle and LZ4) straight into the memory of the conversion.

HDF5 decodes a chunk into new memory and copies it from there, which takes about as long as decoding. Here hdf5plugin's
own function is called for a chunk that is one frame, if its library can be used so; else HDF5 reads.

The chunk: the size of the frame (8 bytes, big-endian), that of a block (4 bytes), the blocks of shuffled and compressed
pixels, each after its size (4 bytes), and as they are the last pixels, fewer than eight.
"""

import ctypes
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tango_server.conversion.hdf5.virtual import Region
from tango_server.conversion.image.pixels import Image

_FILTER, _LZ4 = 32008, 2
_START = struct.Struct(">QI")
_SIZE = struct.Struct(">I")
_LARGEST_BLOCK = 2**20
_AT_ONCE = 8  # pixels

Decode = Callable[[bytes, int, int, int, int], int]


def decoded(region: Region, image: Image) -> bool:
    """Read a region into `image` if it is one chunk of this kind, and return whether it was.

    Raises
    ------
    ValueError
        if the chunk does not decode.
    """
    function = _decoder()
    if function is None or not _is_one_chunk(region, image):
        return False
    mask, chunk = region.place.object.id.read_direct_chunk((*region.at, 0, 0))
    if mask:  # the chunk was stored without the filter
        return False
    block = _block_of(chunk, image)
    taken: int = function(chunk[_START.size :], image.ctypes.data, image.size, image.itemsize, block)
    if taken < 0:
        raise ValueError(f"bitshuffle returns {taken}")
    return True


def _is_one_chunk(region: Region, image: Image) -> bool:
    data_set = region.place.object
    rows, columns = image.shape
    if data_set.chunks != (*(1 for _ in region.at), rows, columns) or data_set.shape[-2:] != image.shape:
        return False
    if region.shape != image.shape or data_set.dtype != image.dtype or not image.flags.c_contiguous:
        return False
    layout = data_set.id.get_create_plist()
    if layout.get_nfilters() != 1:
        return False
    code, _, options, _ = layout.get_filter(0)
    return bool(code == _FILTER and options[2:3] == (image.itemsize,) and options[4:] == (_LZ4,))


def _block_of(chunk: bytes, image: Image) -> int:
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
