"""A set of texts for a session that lasts the night: what was seen already, in 0.1 kB each however long they are."""

from collections.abc import Container
from hashlib import blake2b

_BYTES = 12  # of a million texts, two are taken for one with a probability of 1e-17


class TextSet(Container[str]):
    """Texts by their digests: they can be asked for, and counted, but not read back.

    >>> seen = TextSet()
    >>> seen.add("/data/raw/a.tif"), seen.add("/data/raw/a.tif"), "/data/raw/a.tif" in seen, len(seen)
    (True, False, True, 1)
    """

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def add(self, text: str) -> bool:
        """Add a text; return whether it is new."""
        before = len(self._digests)
        self._digests.add(_digest(text))
        return len(self._digests) > before

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and _digest(text) in self._digests

    def __len__(self) -> int:
        return len(self._digests)


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_BYTES).digest()
