"""A recipe's part for maps: the grid whose every point needs a frame.

>>> Map(shape=(2, 3), extents=((0, 1), (0, 2)), motors=("y", "x")).points
6
>>> Map().model_dump()
{}
>>> Map(shape=(2, 3))
Traceback (most recent call last):
...
pydantic_core._pydantic_core.ValidationError: 1 validation error for Map
  Value error, give shape, extents and motors of the same length, or none of them ...
"""

import math
from typing import Annotated, Self

from pydantic import Field, model_validator

from tango_server.limits import LONGEST_ID, MOST_AXES, MOST_POINTS
from tango_server.recipe.base import Frozen

Finite = Annotated[float, Field(allow_inf_nan=False)]
Motor = Annotated[str, Field(min_length=1, max_length=LONGEST_ID)]


class Map(Frozen):
    """The grid of a scan; by default that of its start document.

    Parameters
    ----------
    shape: the number of points along each axis, the slowest first
    extents: first and last position of each axis
    motors: the data key of each axis

    """

    shape: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=MOST_AXES)] = Field(
        default=(), exclude_if=lambda value: value == ()
    )
    extents: Annotated[tuple[tuple[Finite, Finite], ...], Field(max_length=MOST_AXES)] = Field(
        default=(), exclude_if=lambda value: value == ()
    )
    motors: Annotated[tuple[Motor, ...], Field(max_length=MOST_AXES)] = Field(
        default=(), exclude_if=lambda value: value == ()
    )

    @property
    def points(self) -> int:
        """The number of points."""
        return math.prod(self.shape)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if not len(self.shape) == len(self.extents) == len(self.motors):
            raise ValueError("give shape, extents and motors of the same length, or none of them")
        if self.points > MOST_POINTS:
            raise ValueError(f"a map has at most {MOST_POINTS} points, not {self.points}")
        if any(first == last for size, (first, last) in zip(self.shape, self.extents, strict=True) if size > 1):
            raise ValueError("extents: an axis with several points needs two different positions")
        return self
