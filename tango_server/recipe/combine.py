"""A recipe's part for combining frames: which ones become one, and how.

>>> Combine(of={"every": 10}, method="sum").of.every
10
>>> Combine(of={"by": {"sample_x": 0.005}}, method="mean").model_dump(mode="json")["of"]
{'by': {'sample_x': 0.005}}
>>> Combine(of={"every": 0}, method="sum")
Traceback (most recent call last):
...
pydantic_core._pydantic_core.ValidationError: 1 validation error for Combine
of
  Value error, every must be a whole number from 2 to 10000 (without combine, each frame is converted by itself) ...
"""

import reprlib
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from tango_server.limits import LONGEST_ID, MOST_MEMBERS
from tango_server.recipe.base import Frozen

Method = Literal["sum", "mean", "median", "max", "min", "sigma_clip"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_MOST_KEYS = 16
_LEAST = 2  # frames of a group
_LARGEST = sys.float_info.max  # an integer may be beyond it


class Every(Frozen):
    """Groups of `every` frames, in the order of the events, or of the natural order of names in a folder."""

    every: int


class By(Frozen):
    """Groups of frames whose values of all keys are equal within a tolerance, in the unit of the key."""

    by: Annotated[tuple[tuple[str, float], ...], PlainSerializer(dict)]


def _of(given: object) -> object:
    """Return which frames become one; the messages of a union would list every alternative."""
    if isinstance(given, Mapping) and set(given) == {"every"}:
        return Every(every=_number(given["every"]))
    if isinstance(given, Mapping) and set(given) == {"by"}:
        return By(by=_tolerances(given["by"]))
    if given in ("event", "run") or isinstance(given, Every | By):
        return given
    raise ValueError('give "event", "run", {"every": number} or {"by": {key: tolerance}}')


def _number(given: object) -> int:
    if type(given) is int and _LEAST <= given <= MOST_MEMBERS:
        return given
    raise ValueError(
        f"every must be a whole number from {_LEAST} to {MOST_MEMBERS} (without combine, each frame is converted "
        "by itself)"
    )


def _tolerances(given: object) -> tuple[tuple[str, float], ...]:
    """Return the tolerances by key, sorted, so that two spellings are one recipe."""
    if not isinstance(given, Mapping) or not 1 <= len(given) <= _MOST_KEYS:
        raise ValueError(f"by needs a tolerance for each of 1 to {_MOST_KEYS} keys")
    for key, tolerance in given.items():
        if not isinstance(key, str) or not 1 <= len(key) <= LONGEST_ID:
            raise ValueError(f"by: {reprlib.repr(key)} is no name of a key")
        if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance <= _LARGEST:
            raise ValueError(f"by: the tolerance of {key!r} must be a number from 0 on")
    return tuple(sorted((key, float(tolerance)) for key, tolerance in given.items()))


class Combine(Frozen):
    """How several frames become one: after the corrections of each, before turning and the cast.

    A pixel that is masked, NaN or Inf in any member is masked in a `sum`; the other methods use unmasked members only.
    Sums of integers are exact, everything else is calculated in float64. Without a pixel type, max and min give that of
    an uncombined frame; a sum of integers int32 or uint32 from at most 16 bits, else float64; all others float32 from
    at most 16 bits and float32, else float64.

    Parameters
    ----------
    of: which frames become one: all of an "event", of the "run" (each stream and detector by itself), `every` n, or
        those whose readings `by` keys agree within their tolerance
    method: "sigma_clip" is the mean of values that deviate from the median by at most `sigma` standard deviations
    on_incomplete: "combine" uses the members that are there, and says in the name of the output how many of how many
    timeout: time in s without a further member after which a group counts as complete

    """

    of: Annotated[Literal["event", "run"] | Every | By, BeforeValidator(_of)]
    method: Method
    sigma: Positive = 3.0
    on_incomplete: Literal["fail", "combine"] = "fail"
    timeout: Positive = 300.0

    @property
    def words(self) -> str:
        """What is made, for people.

        >>> Combine(of="run", method="sigma_clip").words
        'sigma-clipped mean'
        """
        named: dict[Any, str] = {"max": "maximum", "min": "minimum", "sigma_clip": "sigma-clipped mean"}
        return named.get(self.method, self.method)
