"""A compact set of strings for long sessions: 0.1 kB per string, whatever its length."""

from collections.abc import Container
from hashlib import blake2b

_BYTES = 12  # probability of a collision among a million strings: 1e-17


class TextSet(Container[str]):
    """Strings stored as digests: supports membership and length, but not iteration.

    >>> seen = TextSet()
    >>> seen.add("/data/raw/a.tif"), seen.add("/data/raw/a.tif"), "/data/raw/a.tif" in seen, len(seen)
    (True, False, True, 1)
    """

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def add(self, text: str) -> bool:
        """Add a string; return whether it is new."""
        before = len(self._digests)
        self._digests.add(_digest(text))
        return len(self._digests) > before

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and _digest(text) in self._digests

    def __len__(self) -> int:
        return len(self._digests)


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_BYTES).digest()
