"""The middle of a few values by a fixed sequence of comparisons, on whole arrays at a time.

Batcher's merge exchange (Knuth, The Art of Computer Programming 3, algorithm 5.2.2 M) sorts any number of values;
what does not reach the middle is left out. An exchange is a minimum and a maximum of two arrays, for which processors
have instructions: several times faster than sorting the values of each pixel.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from tango_server.conversion.image.pixels import Image

MOST = 32
"""Values for which this is faster than partial sorting."""


def middle(stack: Image) -> tuple[Image, Image]:
    """Return the two middle values along the first axis, which are the same of an odd number. `stack` is changed.

    There is no NaN in it.

    >>> [each.tolist() for each in middle(np.array([[9, 1], [2, 2], [7, 3], [5, 4]]))]
    [[5, 2], [7, 3]]
    """
    low, high = (len(stack) - 1) // 2, len(stack) // 2
    if len(stack) > MOST:
        stack.partition((low, high), axis=0)
        return stack[low], stack[high]
    wires = list(stack)
    spare = np.empty_like(stack[0])
    for first, second, wants_low, wants_high in _exchanges(len(stack)):
        one, other = wires[first], wires[second]
        if not wants_low:
            np.maximum(one, other, out=other)
        elif not wants_high:
            np.minimum(one, other, out=one)
        else:
            np.minimum(one, other, out=spare)
            np.maximum(one, other, out=other)
            wires[first], spare = spare, one
    return wires[low], wires[high]


def mean_of_middle(stack: Image) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the median along the first axis; see `middle`."""
    low, high = middle(stack)
    result = low.astype(np.float64)
    if len(stack) % 2 == 0:
        result += high
        result /= 2
    return result


@lru_cache
def _exchanges(count: int) -> tuple[tuple[int, int, bool, bool], ...]:
    """Return the exchanges that bring the middle values to their places, and whether minimum and maximum are used."""
    used = {(count - 1) // 2, count // 2}
    kept = []
    for first, second in reversed(list(_merge_exchange(count))):
        if first in used or second in used:
            kept.append((first, second, first in used, second in used))
            used |= {first, second}
    return tuple(reversed(kept))


def _merge_exchange(count: int) -> Iterator[tuple[int, int]]:
    largest = 1 << max((count - 1).bit_length() - 1, 0)
    part = largest
    while part:
        step, rest, distance = largest, 0, part
        while True:
            for place in range(count - distance):
                if place & part == rest:
                    yield place, place + distance
            if step == part:
                break
            distance, rest = step - part, part
            step >>= 1
        part >>= 1
