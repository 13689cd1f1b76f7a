"""Sizes that chunks state of themselves, which must be those of their pixels.

HDF5 gives a filter's output to the reader whatever its length: where a damaged chunk, or a damaged parameter of a
filter, makes fewer bytes than the chunk has, the rest of the frame would be any memory of this process.
"""

import math
import struct

from tango_server.conversion.hdf5.storage import corners_of
from tango_server.conversion.hdf5.virtual import Region

_SHUFFLE, _CHECKSUM = 2, 3
_BLOSC, _LZ4, _BITSHUFFLE, _ZSTANDARD = 32001, 32004, 32008, 32015
_SIZE_AT = {_BLOSC: ("<I", 4), _LZ4: (">Q", 0), _BITSHUFFLE: (">Q", 0)}
"""How and where the header of a chunk states the size of its pixels in bytes."""
_COMPRESSIONS = {0: False, 2: True, 3: True}
"""Of bitshuffle: none, LZ4, Zstandard."""


def require_stated_sizes(region: Region) -> None:
    """Raise `ValueError` if a chunk of a region states another size than that of its pixels."""
    data_set = region.place.object
    if not data_set.chunks:
        return
    layout = data_set.id.get_create_plist()
    filters = [layout.get_filter(number) for number in range(layout.get_nfilters())]
    checksums = 4 * sum(code == _CHECKSUM for code, *_ in filters)
    filters = [each for each in filters if each[0] != _CHECKSUM]
    for code, _, options, _ in filters:
        if code == _BITSHUFFLE:
            _require_known(options, data_set.dtype.itemsize)
    pixels = math.prod(data_set.chunks) * data_set.dtype.itemsize
    if all(_keeps_size(code, options) for code, _, options, _ in filters):
        for corner in corners_of(region, data_set.chunks):
            _require_equal(data_set.id.get_chunk_info_by_coord(corner).size - checksums, pixels)
    elif (last := filters[-1][0]) in _SIZE_AT or (last == _ZSTANDARD and not checksums):
        for corner in corners_of(region, data_set.chunks):
            mask, chunk = data_set.id.read_direct_chunk(corner)
            if not mask:  # else it was stored without some filter
                stated = _stated(chunk, last) if last in _SIZE_AT else _size_by_zstandard(chunk, pixels)
                _require_equal(stated, pixels)


def _size_by_zstandard(chunk: bytes, most: int) -> int:
    """Return the size of decoded pixels: hdf5plugin's filter takes an error of its decoder for a size."""
    from imagecodecs import zstd_decode  # noqa: PLC0415 - few files need it

    return len(zstd_decode(chunk, out=most))


def _require_known(options: tuple[int, ...], itemsize: int) -> None:
    if options[2:3] != (itemsize,) or _compression(options) not in _COMPRESSIONS:
        raise ValueError(f"the parameters {options} of its bitshuffle filter are unknown")


def _compression(options: tuple[int, ...]) -> int:
    return options[4] if len(options) > 4 else 0  # noqa: PLR2004 - its place in the parameters


def _keeps_size(code: int, options: tuple[int, ...]) -> bool:
    """Whether the output of a filter has the size of its input."""
    return code == _SHUFFLE or (code == _BITSHUFFLE and not _COMPRESSIONS[_compression(options)])


def _require_equal(size: int, pixels: int) -> None:
    if size != pixels:
        raise ValueError(f"a chunk states {size} bytes, its pixels have {pixels}")


def _stated(chunk: bytes, code: int) -> int:
    form, place = _SIZE_AT[code]
    if len(chunk) < place + struct.calcsize(form):
        raise ValueError("a chunk is too short")
    return int(struct.unpack_from(form, chunk, place)[0])
