"""The eight orientations by rotations of 90 degrees and flips, each as a transposition and two reversals."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from tango_server.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Orientation:
    """First transpose (or not), then reverse the order of the rows, of the columns, of both or of none.

    >>> import numpy as np
    >>> image = np.arange(6).reshape(2, 3)
    >>> turned = Orientation.of(Recipe(rotation=90, flip="1")).apply(image)
    >>> bool((turned == np.flip(np.rot90(image), 1)).all())
    True
    """

    transpose: bool
    reverse_rows: bool
    reverse_columns: bool

    @classmethod
    def of(cls, recipe: Recipe) -> "Orientation":
        """Return the orientation of a recipe: rotated counter-clockwise, then flipped."""
        # rot90 is a transposition followed by a reversal of the rows, so 270 degrees reverse the columns.
        rows, columns = {0: (False, False), 90: (True, False), 180: (True, True), 270: (False, True)}[recipe.rotation]
        return cls(
            transpose=recipe.rotation in {90, 270},
            reverse_rows=rows != (recipe.flip in {"0", "both"}),
            reverse_columns=columns != (recipe.flip in {"1", "both"}),
        )

    @classmethod
    def of_tag(cls, tag: int) -> "Orientation":
        """Return the orientation that shows an image with the TIFF Orientation tag `tag` (1 to 8) upright."""
        return _BY_TAG[tag]

    def then(self, second: "Orientation") -> "Orientation":
        """Return the one orientation that has the effect of this one followed by `second`.

        >>> quarter = Orientation.of(Recipe(rotation=90))
        >>> quarter.then(quarter) == Orientation.of(Recipe(rotation=180))
        True
        """
        rows, columns = self.reverse_rows, self.reverse_columns
        if second.transpose:
            rows, columns = columns, rows
        return Orientation(
            transpose=self.transpose != second.transpose,
            reverse_rows=rows != second.reverse_rows,
            reverse_columns=columns != second.reverse_columns,
        )

    def inverse(self) -> "Orientation":
        """Return the orientation that takes this one back.

        >>> quarter = Orientation.of(Recipe(rotation=90))
        >>> quarter.inverse() == Orientation.of(Recipe(rotation=270))
        True
        """
        if not self.transpose:
            return self
        return Orientation(transpose=True, reverse_rows=self.reverse_columns, reverse_columns=self.reverse_rows)

    def shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the (rows, columns) of the turned image of one of `shape`."""
        rows, columns = shape
        return (columns, rows) if self.transpose else (rows, columns)

    def point(self, x: float, y: float, shape: tuple[int, int]) -> tuple[float, float]:
        """Return the position in the turned image of the point (x, y) of an image of `shape` (rows, columns).

        Points are pixel-centre coordinates: (0, 0) is the centre of the first stored pixel, x counts columns.

        >>> Orientation.of(Recipe(rotation=90)).point(3.0, 1.0, (10, 20))
        (1.0, 16.0)
        """
        if self.transpose:
            x, y = y, x
        rows, columns = self.shape(shape)
        return (columns - 1 - x if self.reverse_columns else x), (rows - 1 - y if self.reverse_rows else y)

    def direction(self, x: float, y: float) -> tuple[float, float]:
        """Return the direction (x, y) after turning the image."""
        if self.transpose:
            x, y = y, x
        return (-x if self.reverse_columns else x), (-y if self.reverse_rows else y)

    def apply(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return the oriented view of `image` (rows, columns)."""
        turned = image.T if self.transpose else image
        return turned[:: -1 if self.reverse_rows else 1, :: -1 if self.reverse_columns else 1]


_BY_TAG = {
    1: Orientation(transpose=False, reverse_rows=False, reverse_columns=False),
    2: Orientation(transpose=False, reverse_rows=False, reverse_columns=True),
    3: Orientation(transpose=False, reverse_rows=True, reverse_columns=True),
    4: Orientation(transpose=False, reverse_rows=True, reverse_columns=False),
    5: Orientation(transpose=True, reverse_rows=False, reverse_columns=False),
    6: Orientation(transpose=True, reverse_rows=False, reverse_columns=True),
    7: Orientation(transpose=True, reverse_rows=True, reverse_columns=True),
    8: Orientation(transpose=True, reverse_rows=True, reverse_columns=False),
}
"""TIFF 6.0, section 8, Orientation: where row 0 and column 0 of the stored image are shown."""

AS_STORED = _BY_TAG[1]
