"""How much chaos: the short form that fits into a test run, and the long one that takes as long as it is told."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The measures of one run. Times in s, `rate` in frames/s, `size` in pixels along an edge.

    `frozen`, `blocked` and `down` are the shortest and longest time that a process stands still, that a disk is full or
    read-only, and that the database is away; `gap` is the mean time from one disturbance to the next. `patience` is how
    long the server may take for what is left once all disturbances are over. `settings` are the server's.
    """

    seconds: float
    rate: float
    size: int
    gap: float
    frozen: tuple[float, float]
    blocked: tuple[float, float]
    down: tuple[float, float]
    patience: float
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        """How many frames the detector takes."""
        return int(self.seconds * self.rate)

    @property
    def frame_bytes(self) -> int:
        """The largest size of one file, source or output."""
        return self.size * self.size * 4 + 4096


def short() -> Scale:
    """Return the short form: each kind of disturbance once, small frames."""
    return Scale(
        seconds=20.0,
        rate=16.0,
        size=64,
        gap=2.0,
        frozen=(3.0, 3.0),
        blocked=(1.5, 2.5),
        down=(1.0, 2.0),
        patience=45.0,
        settings={
            "settle_time": 0.3,
            "timeout": 8.0,
            "run_timeout": 8.0,
            "sidecar_timeout": 0.5,
            "time_limit": 3.0,
        },
    )


def long(minutes: float, rate: float, size: int) -> Scale:
    """Return the long form: a disturbance every ten seconds or so, each as long as it may be on a bad day."""
    return Scale(
        seconds=60 * minutes,
        rate=rate,
        size=size,
        gap=8.0,
        frozen=(20.0, 20.0),
        blocked=(3.0, 15.0),
        down=(1.0, 20.0),
        patience=300.0,
        settings={
            "settle_time": 1.0,
            "timeout": 60.0,
            "run_timeout": 60.0,
            "sidecar_timeout": 2.0,
            "time_limit": 10.0,
        },
    )
