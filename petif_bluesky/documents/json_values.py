"""Convert single values in documents to JSON-compatible ones. Pure."""

import math
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

LONGEST_STRING = 1000
"""In characters; longer strings are truncated."""
_LARGEST_WHOLE = 2**63
_ELLIPSIS = "…"


class UnfitError(ValueError):
    """A value that cannot be sent as JSON, with the reason."""


def plain(value: Any) -> bool | int | float | str:
    """Return a single value as a JSON type; numpy scalars and zero-dimensional arrays are unpacked.

    Raises
    ------
    UnfitError
        if it is not a single value, or has no JSON form: a missing number must not look like a real one.

    >>> plain(1.5), plain(b"abc")
    (1.5, 'abc')
    >>> plain(float("nan"))
    Traceback (most recent call last):
        ...
    petif_bluesky.documents.json_values.UnfitError: it is nan, which JSON cannot represent
    """
    if getattr(value, "ndim", None) == 0:  # numpy's, which is not needed for this
        value = value.item()
    match value:
        case bool():
            return bool(value)
        case int():
            if not -_LARGEST_WHOLE <= value < _LARGEST_WHOLE:
                raise UnfitError("it is an integer of more than 64 bits")
            return int(value)
        case float():
            if not math.isfinite(value):
                raise UnfitError(f"it is {value}, which JSON cannot represent")
            return float(value)
        case str():
            text = str(value) if len(value) <= LONGEST_STRING else value[:LONGEST_STRING] + _ELLIPSIS
            return text.encode("utf-8", "replace").decode()  # lone surrogates are not valid UTF-8
        case bytes() | bytearray():
            try:
                return plain(value.decode())
            except UnicodeDecodeError:
                raise UnfitError(f"it is {len(value)} bytes that are not UTF-8 text") from None
    raise UnfitError(f"it is a {type(value).__name__}, not a single value")


@dataclass(slots=True)
class Values:
    """Values that can be sent, and why others cannot; `reserved` names cannot be used."""

    reserved: AbstractSet[str] = frozenset()
    fit: dict[str, bool | int | float | str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def take(self, key: str, value: Any, *, requested: bool = True) -> None:
        """Add a value if it can be sent. Sequences are reported as left out only if they were requested."""
        if key in self.reserved:
            self.left_out[key] = "its name is reserved"
            return
        try:
            taken = plain(value)
        except UnfitError as error:
            self.fit.pop(key, None)
            if requested or not _is_several(value):
                self.left_out[key] = str(error)
            return
        self.fit[key] = taken
        self.left_out.pop(key, None)
        if isinstance(taken, str) and len(taken) > LONGEST_STRING:
            self.left_out[key] = f"truncated to {LONGEST_STRING} characters"

    def lay_over(self, later: "Values") -> None:
        """Add the values of `later`, which replace those of the same name, even by ones that cannot be sent."""
        for key in later.left_out:
            self.fit.pop(key, None)
        for key in later.fit:
            self.left_out.pop(key, None)
        self.fit.update(later.fit)
        self.left_out.update(later.left_out)


def _is_several(value: Any) -> bool:
    return isinstance(value, list | tuple | dict | set) or getattr(value, "ndim", 0) > 0
