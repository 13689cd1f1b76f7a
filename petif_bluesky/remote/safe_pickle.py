"""Unpickle documents from the network safely: only plain data is accepted, and no other function is called.

bluesky's 0MQ publisher pickles documents, and a pickle can make the reader call any function: anyone who can reach the
proxy could run code on this host. A few bytes could also allocate gigabytes, so size and number of instructions are
checked before anything is built, and no number in a pickle determines how much memory is allocated.
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
"""Size of a message in bytes."""
MOST_INSTRUCTIONS = 1_000_000
"""Instructions in a pickle; a document has some hundreds, a page of a thousand events about 100,000."""
MOST_VALUES = 10_000_000
"""Values in a document, each counted as often as it occurs: a pickle can refer to one list many times."""

_PLAIN = {
    "builtins": {"set", "frozenset", "complex", "range", "slice"},
    "collections": {"OrderedDict", "deque"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "uuid": {"UUID"},
    "numpy": {"dtype"},
}
_DICTS = {("petif_bluesky.wrapping", "StartFacts")}
"""Class used in start documents by version 0.1.0, now a plain dict."""


class _Array:
    """Replaces numpy.ndarray, which would take a shape from the pickle."""


def _reconstruct(kind: object, shape: object, code: object) -> Any:
    """Return an empty array, whose state is set later and is no larger than the pickle."""
    if kind is not _Array or shape != (0,) or code not in {b"b", "b"}:
        raise pickle.UnpicklingError("the document has an array that is not in numpy's pickle format")
    return np.empty((0,), np.int8)


def _scalar(kind: Any, data: object = None) -> Any:
    if not isinstance(kind, np.dtype) or not isinstance(data, bytes) or len(data) != kind.itemsize:
        raise pickle.UnpicklingError("the document has a number that is not in numpy's pickle format")
    return np.frombuffer(data, kind)[0]


def _bytearray(data: object = b"", *encoding: str) -> bytearray:
    if isinstance(data, str) and encoding == ("latin-1",):
        return bytearray(data, "latin-1")
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError("the document has a bytearray that is not in Python's pickle format")
    return bytearray(data)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the document has bytes with encoding {encoding!r} instead of latin1")
    return codecs.latin_1_encode(text)[0]


_CHECKED = {
    ("builtins", "bytearray"): _bytearray,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): _Array,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
}
"""Replacements for functions that take a size from their arguments; these take it from the data."""
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
            f"the document has {module}.{name}, but only plain data is accepted, because pickles can run code. If "
            "everyone who can reach the proxy is trusted, use petif subscribe --any-pickle."
        )


def loads(data: bytes) -> Any:
    """Return the object pickled in `data`.

    Raises
    ------
    pickle.UnpicklingError
        if it has anything but plain data, or is larger than any document.

    >>> loads(pickle.dumps({"a": [1, 2.5, "text", None]}))
    {'a': [1, 2.5, 'text', None]}
    >>> loads(pickle.dumps(print))
    Traceback (most recent call last):
        ...
    _pickle.UnpicklingError: the document has builtins.print, but only plain data is accepted...
    """
    _require_bounded(data)
    try:
        document = _Plain(io.BytesIO(data)).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:
        raise pickle.UnpicklingError(f"the document is damaged: {error!r}") from error
    _require_few(document)
    return document


def _require_bounded(data: bytes) -> None:
    if len(data) > LARGEST:
        raise pickle.UnpicklingError(f"the message has {len(data)} bytes, more than the limit of {LARGEST}")
    try:
        for number, _ in enumerate(pickletools.genops(data)):
            if number >= MOST_INSTRUCTIONS:
                raise pickle.UnpicklingError(f"the document has more than {MOST_INSTRUCTIONS} pickle instructions")
    except ValueError as error:
        raise pickle.UnpicklingError(f"the message is not a pickle: {error}") from error


def _require_few(document: object) -> None:
    """Raise if a document has too many values, each counted as often as it occurs, or contains itself."""
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
                raise pickle.UnpicklingError(f"the document has more than {MOST_VALUES} values")
            continue
        if id(value) in open_now:
            raise pickle.UnpicklingError("the document contains itself")
        open_now.add(id(value))
        stack.append((value, True))
        stack.extend((item, False) for item in inner)
