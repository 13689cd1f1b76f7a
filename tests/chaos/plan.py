"""What happens to the server and when: a pure function of the seed, so that a failure can be had again."""

import random
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from tests.chaos.scale import Scale

_DAY = 86_400.0
_YEAR = 365 * _DAY
_JUMPS = (-_YEAR, -_DAY, _DAY, _YEAR)
_WRITING = 0.75
_CALM = 2.0
"""Undisturbed time at the start, in s, so that the first frames show that all is well."""


class Kind(StrEnum):
    """A kind of disturbance."""

    KILL_WORKER = "SIGKILL of a worker"
    KILL_SERVER = "SIGKILL of the server"
    KILL_DATABASE = "SIGKILL of the database"
    STOP_SERVER = "SIGSTOP of the server"
    STOP_WORKER = "SIGSTOP of a worker"
    FILL_OUTPUT = "disk of the outputs full"
    FILL_STATE = "disk of the ledger full"
    READ_ONLY = "output folder read-only"
    JUMP_CLOCK = "jump of the wall clock"


_WEIGHTS = {
    Kind.KILL_WORKER: 6,
    Kind.KILL_SERVER: 4,
    Kind.KILL_DATABASE: 2,
    Kind.STOP_SERVER: 1,
    Kind.STOP_WORKER: 2,
    Kind.FILL_OUTPUT: 2,
    Kind.FILL_STATE: 2,
    Kind.READ_ONLY: 2,
    Kind.JUMP_CLOCK: 3,
}
_OUTPUT_FOLDER = {Kind.FILL_OUTPUT, Kind.READ_ONLY}
"""Kinds that can't happen at the same time: both change the one output folder, and put it right again."""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One disturbance: it begins at `at` and lasts for `seconds` (0: a single blow), both in s from the start.

    `value` says which worker (its number, modulo how many there are), or by how many s the clock is off from then on.
    `writing`: it waits a moment for an output to be half written.
    """

    at: float
    kind: Kind
    seconds: float = 0.0
    value: float = 0.0
    writing: bool = False

    @property
    def ends(self) -> float:
        """When it is over, in s from the start."""
        return self.at + self.seconds

    def __str__(self) -> str:
        words = f"{self.at:7.2f} s  {self.kind}"
        match self.kind:
            case Kind.JUMP_CLOCK:
                return f"{words}: off by {self.value / _DAY:+.0f} days from now on"
            case Kind.KILL_WORKER | Kind.KILL_SERVER:
                return words
            case _:
                return f"{words} for {self.seconds:.1f} s"


def plan(seed: int, scale: Scale, kinds: Collection[Kind]) -> tuple[Disturbance, ...]:
    """Return the disturbances of a run in the order of time: each of `kinds` once, then at random by weight.

    >>> from tests.chaos.scale import short
    >>> plan(1, short(), Kind) == plan(1, short(), Kind) != plan(2, short(), Kind)
    True
    >>> {disturbance.kind for disturbance in plan(1, short(), Kind)} == set(Kind)
    True
    """
    chance = random.Random(seed)
    wanted = [kind for kind in Kind if kind in kinds]
    more = max(0, round((scale.seconds - _CALM) / scale.gap) - len(wanted))
    drawn = wanted + chance.choices(wanted, [_WEIGHTS[kind] for kind in wanted], k=more)
    chance.shuffle(drawn)
    slot = (scale.seconds - _CALM) / len(drawn)
    free_at: dict[object, float] = {}
    disturbances = []
    for number, kind in enumerate(drawn):
        what = "output folder" if kind in _OUTPUT_FOLDER else kind
        at = max(_CALM + slot * (number + chance.random()), free_at.get(what, 0.0))
        disturbance = _disturbance(at, kind, scale, chance)
        free_at[what] = disturbance.ends + 1.0
        disturbances.append(disturbance)
    return tuple(sorted(disturbances, key=lambda disturbance: disturbance.at))


def _disturbance(at: float, kind: Kind, scale: Scale, chance: random.Random) -> Disturbance:
    match kind:
        case Kind.KILL_WORKER:
            return Disturbance(at, kind, value=chance.randrange(100), writing=chance.random() < _WRITING)
        case Kind.KILL_SERVER:
            return Disturbance(at, kind, writing=chance.random() < _WRITING)
        case Kind.JUMP_CLOCK:
            return Disturbance(at, kind, value=chance.choice(_JUMPS))
        case Kind.STOP_SERVER:
            return Disturbance(at, kind, chance.uniform(*scale.frozen))
        case Kind.STOP_WORKER:  # longer than the server lets a conversion last
            return Disturbance(at, kind, 2 * float(scale.settings["time_limit"]), chance.randrange(100))
        case Kind.KILL_DATABASE:
            return Disturbance(at, kind, chance.uniform(*scale.down))
        case _:
            return Disturbance(at, kind, chance.uniform(*scale.blocked))
