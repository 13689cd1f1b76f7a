"""Times of several ways to do one thing, measured in turns: a slow moment of the machine then meets all of them."""

import time
from collections.abc import Callable, Mapping

Way = Callable[[], object]


def use_memory_again() -> None:
    """Let this process keep the memory of arrays up to 32 MB, whatever it frees: fresh memory would be what is timed.

    glibc returns the memory of a large array at once, until it has freed one that is larger.
    """
    bytearray(31 * 2**20)


def seconds(way: Way) -> float:
    """Return how long one call takes."""
    began = time.perf_counter()
    way()
    return time.perf_counter() - began


def in_turns(ways: Mapping[str, Way], rounds: int) -> dict[str, list[float]]:
    """Return the time of each way in each round, in ms; all were called once before."""
    for way in ways.values():
        way()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(1e3 * seconds(way))
    return times
