"""Hundreds of thousands of names in little memory: what is known of the files in a tree, packed folder by folder."""

import json
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, TypeVar

Value = TypeVar("Value")

_OPEN = 32
"""Folders that are not packed: those that were used last."""


class PathIndex(MutableMapping[str, Value]):
    """A mapping of names such as `a/b/c.tif`; but for the last folders that were used, each is packed.

    A file takes some twenty bytes so, in place of 400. `to_json` makes of a value what JSON holds, `of_json` the
    reverse. Names are best used folder by folder.
    """

    def __init__(
        self, known: Mapping[str, Value], to_json: Callable[[Value], Any], of_json: Callable[[Any], Value]
    ) -> None:
        self._to_json, self._of_json = to_json, of_json
        self._opened: OrderedDict[str, dict[str, Value]] = OrderedDict()
        self._packed: dict[str, bytes] = {}
        """Also of folders that were opened and not changed."""
        self._count = 0
        for name in sorted(known):
            self[name] = known[name]

    def __getitem__(self, name: str) -> Value:
        folder, _, last = name.rpartition("/")
        return self._open(folder)[last]

    def __setitem__(self, name: str, value: Value) -> None:
        folder, _, last = name.rpartition("/")
        files = self._open(folder)
        self._count += last not in files
        files[last] = value
        self._packed.pop(folder, None)

    def __delitem__(self, name: str) -> None:
        folder, _, last = name.rpartition("/")
        del self._open(folder)[last]
        self._count -= 1
        self._packed.pop(folder, None)

    def __iter__(self) -> Iterator[str]:
        """Yield all names; those that come or go meanwhile may be left out."""
        for folder in list(dict.fromkeys((*self._packed, *self._opened))):
            files = self._opened.get(folder)
            for last in list(self._unpacked(folder) if files is None else files):
                yield f"{folder}/{last}" if folder else last

    def __len__(self) -> int:
        return self._count

    def _open(self, folder: str) -> dict[str, Value]:
        files = self._opened.get(folder)
        if files is None:
            files = self._opened[folder] = self._unpacked(folder)
        self._opened.move_to_end(folder)
        while len(self._opened) > _OPEN:
            oldest, others = self._opened.popitem(last=False)
            if others and oldest not in self._packed:
                text = json.dumps({last: self._to_json(value) for last, value in others.items()})
                self._packed[oldest] = zlib.compress(text.encode())
        return files

    def _unpacked(self, folder: str) -> dict[str, Value]:
        packed = self._packed.get(folder)
        if packed is None:
            return {}
        return {last: self._of_json(value) for last, value in json.loads(zlib.decompress(packed)).items()}


def packed_names(names: set[str]) -> bytes:
    """Return names, which may be no text, in a few bytes each.

    >>> unpacked_names(packed_names({"a.tif", "b.tif"})) == {"a.tif", "b.tif"}
    True
    """
    return zlib.compress("\0".join(sorted(names)).encode("utf-8", "surrogatepass"))


def unpacked_names(packed: bytes) -> set[str]:
    """Return the names of `packed_names`."""
    text = zlib.decompress(packed).decode("utf-8", "surrogatepass")
    return set(text.split("\0")) if text else set()
