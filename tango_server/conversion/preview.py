"""A picture of a frame before and after its conversion."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tango_server.conversion.image.display import colour_limits
from tango_server.conversion.image.orientation import Orientation
from tango_server.conversion.image.pixels import Image
from tango_server.conversion.image.transform import transform
from tango_server.conversion.sidecar import read_sidecar
from tango_server.conversion.tiff.reader import open_source, read_first_image
from tango_server.recipe import Recipe
from tango_server.recipe.words import turning_words
from tango_server.text import cut_middle, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LogNorm
    from matplotlib.image import AxesImage

_INCHES = (13.0, 6.2)
_SHOWN_PIXELS = 1024
_LONGEST_NAME = 60
_BAR = (1.03, 0.0, 0.04, 1.0)
"""The colour bar beside an image, in parts of the image's own width and height: left, bottom, width, height."""
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Panel:
    """One image (rows, columns) with its title and its beam centre (x, y) in pixels, if known."""

    image: Image
    title: str
    center: Point | None = None


def draw_preview(source: Path, recipe: Recipe, picture: Path) -> None:
    """Write `picture` (a PNG): the frame at `source` on the left, what `recipe` makes of it on the right.

    Raises
    ------
    SourceError, OSError
        if the frame cannot be read, or the picture cannot be written.
    """
    with open_source(source) as opened:
        stored = opened.orientation(opened.structure.pages[0])
        before = next(opened.images())
    after, _ = transform(before, recipe, stored)
    draw(_panels(source, before, after, stored.then(Orientation.of(recipe))), picture, turning_words(recipe))


def draw_before_after(source: Path, output: Path, recipe: Recipe, picture: Path) -> None:
    """Write `picture` (a PNG): `source` on the left, its existing `output` on the right."""
    before, after = read_first_image(source), read_first_image(output)
    draw(_panels(source, before, after, Orientation.of(recipe)), picture, turning_words(recipe))


def draw(panels: tuple[Panel, Panel], picture: Path, title: str) -> None:
    """Draw two images side by side with one logarithmic colour scale, row 0 on top, beam centres marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - only pictures need matplotlib
    from matplotlib.colors import LogNorm  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    norm = LogNorm(*colour_limits(panels[0].image))
    figure = Figure(figsize=_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    _show(left, panels[0], norm)
    drawn = _show(right, panels[1], norm)
    figure.colorbar(drawn, cax=right.inset_axes(_BAR), label="intensity")
    figure.savefig(picture, dpi=100)


def _panels(source: Path, before: Image, after: Image, turned: Orientation) -> tuple[Panel, Panel]:
    sidecar = read_sidecar(source)
    center: Point | None = None
    if sidecar is not None and sidecar.center_x is not None and sidecar.center_y is not None:
        center = (sidecar.center_x, sidecar.center_y)
    rows, columns = before.shape
    moved = turned.point(*center, (rows, columns)) if center else None
    name = cut_middle(printable(source.name), _LONGEST_NAME)
    return Panel(before, f"before: {name}, {_size(before)}", center), Panel(after, f"after: {_size(after)}", moved)


def _size(image: Image) -> str:
    return f"{image.shape[1]} x {image.shape[0]} {image.dtype.name}"


def _show(axes: "Axes", panel: Panel, norm: "LogNorm") -> "AxesImage":
    rows, columns = panel.image.shape
    step = max(1, max(rows, columns) // _SHOWN_PIXELS)
    shown = np.clip(panel.image[::step, ::step].astype(np.float64), norm.vmin, None)
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    drawn = axes.imshow(shown, norm=norm, cmap="viridis", extent=extent, interpolation="nearest")
    if panel.center is not None:
        axes.plot(*panel.center, "+", color="red", markersize=18, markeredgewidth=2)
    where = f"\nbeam centre ({panel.center[0]:.2f}, {panel.center[1]:.2f})" if panel.center else ""
    axes.set_title(panel.title + where, fontsize=10, parse_math=False)
    axes.set_xlabel("x / pixels")
    axes.set_ylabel("y / pixels")
    return drawn
