"""Documents from a network: unpickled if they are made of plain data, and nothing else is ever called.

bluesky's 0MQ publisher pickles documents, and a pickle may name any function for the reader to call: whoever reaches
the proxy could do on this host what its user may.
"""

import io
import pickle
from importlib import import_module
from typing import Any

_PLAIN = {
    "builtins": {"set", "frozenset", "complex", "bytearray", "range", "slice"},
    "collections": {"OrderedDict", "deque"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "uuid": {"UUID"},
    "_codecs": {"encode"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"scalar", "_reconstruct"},
    "numpy._core.multiarray": {"scalar", "_reconstruct"},
    "numpy.core.numeric": {"_frombuffer"},
    "numpy._core.numeric": {"_frombuffer"},
}
_DICTS = {("petif_bluesky.wrapping", "StartFacts")}
"""Classes of our own that are dicts."""


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _DICTS:
            return dict
        if name in _PLAIN.get(module, ()):
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
        if there is anything but plain data in it.

    >>> loads(pickle.dumps({"a": [1, 2.5, "text", None]}))
    {'a': [1, 2.5, 'text', None]}
    >>> loads(pickle.dumps(print))
    Traceback (most recent call last):
        ...
    _pickle.UnpicklingError: found builtins.print in a document; expected plain data...
    """
    return _Plain(io.BytesIO(data)).load()
