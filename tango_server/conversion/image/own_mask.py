"""The mask that a detector's own file holds."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class OwnMask:
    """Which pixels of a frame its own file marks as invalid. Two that are equal mask alike.

    Parameters
    ----------
    identity: what `pixels` were read from; equal only for the same mask
    pixels: (rows, columns) as stored, True for masked ones; None without such a mask
    negatives: whether values below 0 are masked
    codes: values that mark masked pixels
    always: whether it holds in every conversion; else only with `corrections` (and when frames are combined)

    """

    identity: Hashable = None
    pixels: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)
    negatives: bool = False
    codes: tuple[int, ...] = ()
    always: bool = True

    def of(self, image: NDArray[Any]) -> NDArray[np.bool_]:
        """Return the masked pixels of an image as stored.

        >>> OwnMask(negatives=True, codes=(9,)).of(np.array([[-1, 0, 9]])).tolist()
        [[True, False, True]]
        """
        masked = np.zeros(image.shape, np.bool_) if self.pixels is None else self.pixels.copy()
        if self.negatives:
            masked |= image < 0
        for code in self.codes:
            masked |= image == code
        return masked


NO_MASK = OwnMask()
"""Masks nothing."""
