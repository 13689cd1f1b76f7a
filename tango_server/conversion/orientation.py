"""The eight orientations that rotations by 90 degrees and flips make, each as a transposition and two reversals."""

from dataclasses import dataclass

import numpy as np

from tango_server.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Orientation:
    """First transpose (or not), then reverse the order of the rows, of the columns, of both or of none.

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

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Return the oriented view of `image` (rows, columns)."""
        turned = image.T if self.transpose else image
        return turned[:: -1 if self.reverse_rows else 1, :: -1 if self.reverse_columns else 1]
