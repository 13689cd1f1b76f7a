"""Single values of documents as JSON can carry them to the server. Pure."""

import math
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

LONGEST_STRING = 1000
"""Characters; a longer text is cut."""
_LARGEST_WHOLE = 2**63
_ELLIPSIS = "…"


class UnfitError(ValueError):
    """A value that can't travel, with the reason."""


def plain(value: Any) -> bool | int | float | str:
    """Return a single value as JSON's own; numpy's scalars and arrays without dimensions are taken for what they hold.

    Raises
    ------
    UnfitError
        if it is no single value, or one that JSON does not have: a missing number must not look like a real one.

    >>> plain(1.5), plain(b"abc")
    (1.5, 'abc')
    >>> plain(float("nan"))
    Traceback (most recent call last):
        ...
    petif_bluesky.documents.json_values.UnfitError: it is nan, which JSON does not have
    """
    if getattr(value, "ndim", None) == 0:  # numpy's, which is not needed for this
        value = value.item()
    match value:
        case bool():
            return bool(value)
        case int():
            if not -_LARGEST_WHOLE <= value < _LARGEST_WHOLE:
                raise UnfitError("it is a whole number beyond 64 bits")
            return int(value)
        case float():
            if not math.isfinite(value):
                raise UnfitError(f"it is {value}, which JSON does not have")
            return float(value)
        case str():
            text = str(value) if len(value) <= LONGEST_STRING else value[:LONGEST_STRING] + _ELLIPSIS
            return text.encode("utf-8", "replace").decode()  # halves of surrogate pairs are no UTF-8
        case bytes() | bytearray():
            try:
                return plain(value.decode())
            except UnicodeDecodeError:
                raise UnfitError(f"it is {len(value)} bytes that are no text") from None
    raise UnfitError(f"it is a {type(value).__name__}, and only single values are taken")


@dataclass(slots=True)
class Values:
    """Values that fit, and why others do not; no value may have one of the `reserved` names."""

    reserved: AbstractSet[str] = frozenset()
    fit: dict[str, bool | int | float | str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def take(self, key: str, value: Any, *, asked_for: bool = True) -> None:
        """Take a value in if it can travel. That several values do not is told only if they were asked for."""
        if key in self.reserved:
            self.left_out[key] = "its name has another meaning here"
            return
        try:
            taken = plain(value)
        except UnfitError as error:
            self.fit.pop(key, None)
            if asked_for or not _is_several(value):
                self.left_out[key] = str(error)
            return
        self.fit[key] = taken
        self.left_out.pop(key, None)
        if isinstance(taken, str) and len(taken) > LONGEST_STRING:
            self.left_out[key] = f"cut after {LONGEST_STRING} characters"

    def lay_over(self, later: "Values") -> None:
        """Take the values of `later` in; where a name comes twice they hold, also those that do not fit."""
        for key in later.left_out:
            self.fit.pop(key, None)
        for key in later.fit:
            self.left_out.pop(key, None)
        self.fit.update(later.fit)
        self.left_out.update(later.left_out)


def _is_several(value: Any) -> bool:
    return isinstance(value, list | tuple | dict | set) or getattr(value, "ndim", 0) > 0
