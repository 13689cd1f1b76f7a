"""Exponential back-off; it keeps no state, reads no clock and never sleeps."""

import math
from typing import NamedTuple


class Backoff(NamedTuple):
    """Pauses from `shortest` to `longest` s, each `factor` times the previous wait.

    >>> pauses = Backoff(shortest=1.0, longest=30.0)
    >>> [pauses.after(waited) for waited in (0.0, 1.0, 10.0, 20.0)]
    [1.0, 2.0, 20.0, 30.0]
    """

    shortest: float
    longest: float = math.inf
    factor: float = 2.0

    def after(self, waited: float) -> float:
        """Return the next pause (s).

        `waited` (s) is the last pause, 0 before the first; with a `factor` below 1, the time since the first failure.
        """
        return min(max(self.factor * waited, self.shortest), self.longest)
