"""A frame of a run, as its documents show it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a run.

    `path`: as the detector names it, or the selection's path map. `number`: among the frames of its event, from 0.
    `shape`: (rows, columns), if the descriptor tells. `descriptor`: the uid of it. `event`: the event that completed
    it, never to be changed; None where stream datums come without events, as in fly scans.
    """

    path: str
    run_uid: str
    stream: str
    seq_num: int
    data_key: str
    number: int = 0
    shape: tuple[int, int] | None = None
    descriptor: str = ""
    event: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class RawFrame:
    """A frame that is on disk, and where it came from; `name` is what tells it from others of its run."""

    path: str
    name: str
    seq_num: int
    stream: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RawRun:
    """A run that is over, and its frames."""

    uid: str
    frames: tuple[RawFrame, ...]
