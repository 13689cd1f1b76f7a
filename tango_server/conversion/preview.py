"""A picture of a frame before and after its conversion."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.corrections.frame import correction_of
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.formats import open_frame
from tango_server.conversion.frame_header import FrameHeader
from tango_server.conversion.image.correction import Correction
from tango_server.conversion.image.display import colour_limits
from tango_server.conversion.image.orientation import Orientation
from tango_server.conversion.image.pixels import Image
from tango_server.conversion.image.transform import transform
from tango_server.conversion.sidecar import header_of
from tango_server.recipe import Recipe
from tango_server.recipe.words import turning_words
from tango_server.text import cut_middle, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LogNorm
    from matplotlib.image import AxesImage

_INCHES = (6.5, 6.2)
"""Width and height of a picture, for each panel."""
_SHOWN_PIXELS = 1024
_LONGEST_NAME = 60
_BAR = (1.03, 0.0, 0.04, 1.0)
"""The colour bar beside an image, in parts of the image's own width and height: left, bottom, width, height."""
_MASKED = (1.0, 0.0, 0.0, 0.6)
"""The colour of masked pixels: red, green, blue, opacity."""
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Panel:
    """One image (rows, columns) with its title, its beam centre (x, y) in pixels, if known, and its mask, if any."""

    image: Image
    title: str
    center: Point | None = None
    mask: NDArray[np.bool_] | None = None


def draw_preview(source: FrameLocation, recipe: Recipe, picture: Path) -> None:
    """Write `picture` (a PNG): the frame at `source` on the left, what `recipe` makes of it on the right.

    With corrections, the corrected frame is between them, before it is turned and retyped, and the mask covers both.

    Raises
    ------
    SourceError, CorrectionError, OSError
        if the frame or a master cannot be read or used, or the picture cannot be written.
    """
    with open_frame(source) as opened:
        info = opened.images[0]
        stored = info.stored
        before = np.array(next(opened.read()))
        correction = correction_of(opened, info, recipe, recipe.corrections)
        center = _center(header_of(opened))
    after, _ = transform(before, recipe, stored, correction)
    turned = stored.then(Orientation.of(recipe))
    name = cut_middle(printable(source.name), _LONGEST_NAME)
    first = Panel(before, f"before: {name}, {_size(before)}", center)
    moved = turned.point(*center, before.shape) if center else None
    last = Panel(after, f"after: {_size(after)}", moved)
    if correction is None:
        draw((first, last), picture, turning_words(recipe))
        return
    image, mask = _corrected(before, recipe, stored, correction)
    middle = Panel(image, f"corrected: {np.count_nonzero(mask)} pixels masked (red)", center, mask)
    draw((replace(first, mask=mask), middle, last), picture, turning_words(recipe))


def _corrected(
    before: Image, recipe: Recipe, stored: Orientation, correction: Correction
) -> tuple[Image, NDArray[np.bool_]]:
    """Return the corrected frame as float64, in the geometry of the raw frame, and which pixels are masked."""
    in_floats = recipe.model_copy(update={"pixel_type": "float64"})
    turned, _ = transform(before, in_floats, stored, replace(correction, reserved=None))
    mask = np.isnan(turned)
    mask.reshape(-1)[correction.masked] = True  # also those that were repaired
    back = stored.then(Orientation.of(recipe)).inverse()
    return back.apply(turned), back.apply(mask)


def draw(panels: Sequence[Panel], picture: Path, title: str) -> None:
    """Draw images side by side on logarithmic colour scales, row 0 on top, beam centres marked, masks in red.

    Two images share the scale of the first; of three, which have other values, each has its own.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - only pictures need matplotlib
    from matplotlib.colors import LogNorm  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    shared = LogNorm(*colour_limits(panels[0].image)) if len(panels) == 2 else None  # noqa: PLR2004
    width, height = _INCHES
    figure = Figure(figsize=(len(panels) * width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        drawn = _show(axes, panel, shared or LogNorm(*colour_limits(panel.image)))
        if shared is None or panel is panels[-1]:
            figure.colorbar(drawn, cax=axes.inset_axes(_BAR), label="intensity")
    figure.savefig(picture, dpi=100)


def _center(header: FrameHeader) -> Point | None:
    """Return the beam centre that the frame or its sidecar states."""
    if header.beam_center_x is None or header.beam_center_y is None:
        return None
    return header.beam_center_x, header.beam_center_y


def _size(image: Image) -> str:
    return f"{image.shape[1]} x {image.shape[0]} {image.dtype.name}"


def _show(axes: "Axes", panel: Panel, norm: "LogNorm") -> "AxesImage":
    rows, columns = panel.image.shape
    step = max(1, max(rows, columns) // _SHOWN_PIXELS)
    shown = np.clip(panel.image[::step, ::step].astype(np.float64), norm.vmin, None)
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    drawn = axes.imshow(shown, norm=norm, cmap="viridis", extent=extent, interpolation="nearest")
    if panel.mask is not None:
        red = np.zeros((*shown.shape, 4))
        red[_any_of(panel.mask, step)] = _MASKED
        axes.imshow(red, extent=extent, interpolation="nearest")
    if panel.center is not None:
        axes.plot(*panel.center, "+", color="red", markersize=18, markeredgewidth=2)
    where = f"\nbeam centre ({panel.center[0]:.2f}, {panel.center[1]:.2f})" if panel.center else ""
    axes.set_title(panel.title + where, fontsize=10, parse_math=False)
    axes.set_xlabel("x / pixels")
    axes.set_ylabel("y / pixels")
    return drawn


def _any_of(mask: NDArray[np.bool_], step: int) -> NDArray[np.bool_]:
    """Return whether any pixel of each `step` x `step` pixels is masked, so that single ones are seen."""
    rows, columns = (-(-size // step) for size in mask.shape)
    whole = np.zeros((rows * step, columns * step), np.bool_)
    whole[: mask.shape[0], : mask.shape[1]] = mask
    seen: NDArray[np.bool_] = np.logical_or.reduce(whole.reshape(rows, step, columns, step), axis=(1, 3))
    return seen
