"""Draws docs/pictures/orientations.svg, what rotations and flips do: `python docs/draw_orientations.py`.

The images come from the code that converts frames, the marks from the code that turns beam centres.
"""

from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np

from tango_server.conversion.geometry import transform_point
from tango_server.conversion.image.pixels import Image
from tango_server.conversion.image.transform import transform
from tango_server.recipe import Flip, Recipe, Rotation

PICTURE = Path(__file__).parent / "pictures" / "orientations.svg"
ROWS = (
    "o........",
    ".#####...",
    ".#.......",
    ".####....",
    ".#.......",
    ".#.......",
    ".........",
)
CENTER = (6, 4)
"""The beam centre (x, y) in pixels of the raw frame."""

_PIXEL = 11
_ARM = 8
_PANEL = (158, 146)
_MARGIN = (92, 62)
_COLORS = {1: "#2d3748", 2: "#2b6cb0"}
_FLIPS = {"none": "not flipped", "0": "up-down", "1": "left-right", "both": "both ways"}


def raw_frame() -> Image:
    """Return the raw frame, (rows, columns): 1 where the letter is, 2 at the first pixel of row 0, else 0."""
    return np.array([[".#o".index(sign) for sign in row] for row in ROWS], dtype=np.uint8)


def recipes() -> list[Recipe]:
    """Return a recipe for each rotation and flip, in the order of the panels."""
    return [Recipe(rotation=rotation, flip=flip) for rotation, flip in product(get_args(Rotation), get_args(Flip))]


def drawing() -> str:
    """Return the whole picture."""
    columns = len(get_args(Flip))
    width = _MARGIN[0] + columns * _PANEL[0]
    height = _MARGIN[1] + len(get_args(Rotation)) * _PANEL[1]
    heads = [
        _text(_MARGIN[0] + (number + 0.5) * _PANEL[0], 26, f"flip {flip}", bold=True)
        + _text(_MARGIN[0] + (number + 0.5) * _PANEL[0], 46, _FLIPS[flip])
        for number, flip in enumerate(get_args(Flip))
    ]
    sides = [
        _text(_MARGIN[0] / 2, _MARGIN[1] + (number + 0.5) * _PANEL[1] - 8, "rotation", bold=True)
        + _text(_MARGIN[0] / 2, _MARGIN[1] + (number + 0.5) * _PANEL[1] + 12, str(rotation), bold=True)
        for number, rotation in enumerate(get_args(Rotation))
    ]
    panels = [
        _panel(recipe, _MARGIN[0] + number % columns * _PANEL[0], _MARGIN[1] + number // columns * _PANEL[1])
        for number, recipe in enumerate(recipes())
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            '<g font-family="sans-serif" font-size="14" text-anchor="middle">',
            "<title>The sixteen combinations of rotation and flip</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *heads,
            *sides,
            *panels,
            "</g>\n</svg>\n",
        ]
    )


def _panel(recipe: Recipe, left: int, top: int) -> str:
    frame = raw_frame()
    image, _ = transform(frame, recipe)
    x, y = transform_point(*CENTER, frame.shape, recipe)
    rows, columns = image.shape
    left += (_PANEL[0] - columns * _PIXEL) // 2
    top += (_PANEL[1] - rows * _PIXEL) // 2
    pixels = "".join(
        f'<rect x="{column * _PIXEL}" y="{row * _PIXEL}" width="{_PIXEL}" height="{_PIXEL}" '
        f'fill="{_COLORS[image[row, column]]}"/>\n'
        for row, column in np.argwhere(image).tolist()
    )
    return (
        f'<g id="rotation-{recipe.rotation}-flip-{recipe.flip}" transform="translate({left} {top})">\n'
        f'<rect width="{columns * _PIXEL}" height="{rows * _PIXEL}" fill="#f7fafc" stroke="#a0aec0"/>\n'
        f'{pixels}<path d="{_cross(x, y)}" stroke="#e53e3e" stroke-width="3"/>\n</g>'
    )


def _cross(x: float, y: float) -> str:
    """Return the path of a cross about the middle of the pixel (x, y)."""
    across, down = (x + 0.5) * _PIXEL, (y + 0.5) * _PIXEL
    return f"M{across - _ARM:g} {down:g} h{2 * _ARM} M{across:g} {down - _ARM:g} v{2 * _ARM}"


def _text(x: float, y: float, words: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" fill="#1a202c"{weight}>{words}</text>'


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(drawing(), encoding="utf-8")
