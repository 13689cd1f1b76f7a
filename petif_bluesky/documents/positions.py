"""Positions in events: the numbers by which frames are grouped and put on a map. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from petif_bluesky.documents.json_values import UnfitError, plain

_SETPOINTS = ("_user_setpoint", "_setpoint", "-user_setpoint", "-setpoint")


class NoPositionError(ValueError):
    """An event has no number for a key."""


def positions_in(data: Mapping[str, Any], keys: Sequence[str]) -> tuple[float, ...]:
    """Return the numbers of several keys in the data of an event.

    Of a motor, that is its setpoint, where the event has one: encoder readings differ in every event.

    >>> positions_in({"x": 0.1003, "x_user_setpoint": 0.1, "y": 2}, ["x", "y"])
    (0.1, 2.0)

    Raises
    ------
    NoPositionError
        if a key is missing, or is not a finite number.

    """
    return tuple(_position(data, key) for key in keys)


def _position(data: Mapping[str, Any], key: str) -> float:
    problem = f"its event has no {key!r}"
    for name in (key, *(f"{key}{suffix}" for suffix in reversed(_SETPOINTS))):
        if name in data:
            problem = f"{name!r} of its event is not a number"
    for name in (*(f"{key}{suffix}" for suffix in _SETPOINTS), key):
        number = _number(data.get(name))
        if number is not None:
            return number
    raise NoPositionError(problem)


def _number(value: Any) -> float | None:
    try:
        found = plain(value)
    except UnfitError:  # NaN, an array, None
        return None
    return None if isinstance(found, str) else float(found)
