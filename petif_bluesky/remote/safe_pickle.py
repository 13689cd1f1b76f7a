"""Documents from a network: unpickled if they are made of plain data, and nothing else is ever called.

bluesky's 0MQ publisher pickles documents, and a pickle may name any function for the reader to call: whoever reaches
the proxy could do on this host what its user may. A few bytes could also ask for gigabytes, so that size and number of
instructions are checked before anything is built, and no number in a pickle decides how much memory is taken.
"""

import codecs
import io
import pickle
import pickletools
from importlib import import_module
from itertools import chain
from typing import Any

import numpy as np

LARGEST = 64 * 2**20
"""Bytes of one message."""
MOST_INSTRUCTIONS = 1_000_000
"""Instructions of one pickle; a document of bluesky has some hundreds, a page of a thousand events some 100,000."""
MOST_VALUES = 10_000_000
"""Values of one document, each counted as often as it occurs: a pickle may name one list again and again."""

_PLAIN = {
    "builtins": {"set", "frozenset", "complex", "range", "slice"},
    "collections": {"OrderedDict", "deque"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "uuid": {"UUID"},
    "numpy": {"dtype"},
}
_DICTS = {("petif_bluesky.wrapping", "StartFacts")}
"""A class that sessions of version 0.1.0 had in their start documents, where there is a plain dict now."""


class _Array:
    """Stands for numpy.ndarray, which would take a shape from the pickle."""


def _reconstruct(kind: object, shape: object, code: object) -> Any:
    """Return an empty array, which takes its state later: as much as the pickle holds."""
    if kind is not _Array or shape != (0,) or code not in {b"b", "b"}:
        raise pickle.UnpicklingError("found an array in an unusual form; expected one as numpy pickles it")
    return np.empty((0,), np.int8)


def _scalar(kind: Any, data: object = None) -> Any:
    if not isinstance(kind, np.dtype) or not isinstance(data, bytes) or len(data) != kind.itemsize:
        raise pickle.UnpicklingError("found a number in an unusual form; expected one as numpy pickles it")
    return np.frombuffer(data, kind)[0]


def _bytearray(data: object = b"", *encoding: str) -> bytearray:
    if isinstance(data, str) and encoding == ("latin-1",):
        return bytearray(data, "latin-1")
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError("found a bytearray in an unusual form; expected its bytes")
    return bytearray(data)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"found the encoding {encoding!r}; expected latin1, as Python pickles bytes")
    return codecs.latin_1_encode(text)[0]


_CHECKED = {
    ("builtins", "bytearray"): _bytearray,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): _Array,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
}
"""What takes its size from its arguments, in a form that takes it from its data."""
_BUFFERS = {(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")}


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _DICTS:
            return dict
        if (module, name) in _CHECKED:
            return _CHECKED[module, name]
        if name in _PLAIN.get(module, ()) or (module, name) in _BUFFERS:
            return getattr(import_module(module), name)
        raise pickle.UnpicklingError(
            f"found {module}.{name} in a document; expected plain data. A document is not to bring programs along. If "
            "everybody who reaches the proxy is trusted: petif subscribe --any-pickle."
        )


def loads(data: bytes) -> Any:
    """Return what `data` holds.

    Raises
    ------
    pickle.UnpicklingError
        if there is anything but plain data in it, or more than any document has.

    >>> loads(pickle.dumps({"a": [1, 2.5, "text", None]}))
    {'a': [1, 2.5, 'text', None]}
    >>> loads(pickle.dumps(print))
    Traceback (most recent call last):
        ...
    _pickle.UnpicklingError: found builtins.print in a document; expected plain data...
    """
    _require_bounded(data)
    try:
        document = _Plain(io.BytesIO(data)).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:
        raise pickle.UnpicklingError(f"found a damaged document ({error!r})") from error
    _require_few(document)
    return document


def _require_bounded(data: bytes) -> None:
    if len(data) > LARGEST:
        raise pickle.UnpicklingError(f"found a message of {len(data)} bytes; expected at most {LARGEST}")
    try:
        for number, _ in enumerate(pickletools.genops(data)):
            if number >= MOST_INSTRUCTIONS:
                raise pickle.UnpicklingError(f"found more than {MOST_INSTRUCTIONS} instructions in a document")
    except ValueError as error:
        raise pickle.UnpicklingError(f"found no pickle: {error}") from error


def _require_few(document: object) -> None:
    """Raise if a document holds too many values, each counted as often as it occurs, or itself."""
    sizes: dict[int, int] = {}
    open_now: set[int] = set()
    stack = [(document, False)]
    while stack:
        value, counted = stack.pop()
        if not isinstance(value, dict | list | tuple | set | frozenset) or (id(value) in sizes and not counted):
            continue
        inner = list(chain(value.keys(), value.values())) if isinstance(value, dict) else list(value)
        if counted:
            sizes[id(value)] = 1 + sum(sizes.get(id(item), 1) for item in inner)
            open_now.discard(id(value))
            if sizes[id(value)] > MOST_VALUES:
                raise pickle.UnpicklingError(f"found more than {MOST_VALUES} values in a document")
            continue
        if id(value) in open_now:
            raise pickle.UnpicklingError("found a document that holds itself")
        open_now.add(id(value))
        stack.append((value, True))
        stack.extend((item, False) for item in inner)
