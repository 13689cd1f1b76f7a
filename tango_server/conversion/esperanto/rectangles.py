"""A mask as rectangles, for CrysAlis.

fabio's `XcaliburImage.decompose` (by pyFAI) takes 60 ms for each single pixel, and a flat panel has thousands; this
takes as long for all of them.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Rectangle(NamedTuple):
    """Pixels from the first to the last column and row, both included."""

    left: int
    right: int
    bottom: int
    top: int

    @property
    def is_point(self) -> bool:
        """Whether it is a single pixel."""
        return self.left == self.right and self.bottom == self.top


def rectangles_of(mask: NDArray[np.bool_]) -> list[Rectangle]:
    """Return rectangles that cover the marked pixels of a mask (rows, columns), each pixel once.

    Each consists of equal runs of marked pixels in consecutive rows.

    >>> rectangles_of(np.array([[False, True, True], [False, True, True], [True, False, False]]))
    [Rectangle(left=0, right=0, bottom=2, top=2), Rectangle(left=1, right=2, bottom=0, top=1)]
    """
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(edges == 1)
    _, stops = np.nonzero(edges == -1)
    order = np.lexsort((rows, stops, starts))
    runs = np.stack([starts, stops, rows], axis=1)[order]
    if not len(runs):
        return []
    goes_on = (np.diff(runs, axis=0) == [0, 0, 1]).all(axis=1)
    first = np.flatnonzero(np.concatenate([[True], ~goes_on]))
    last = np.append(first[1:], len(runs)) - 1
    return [
        Rectangle(int(left), int(right) - 1, int(bottom), int(top))
        for (left, right, bottom), top in zip(runs[first], runs[last, 2], strict=True)
    ]
