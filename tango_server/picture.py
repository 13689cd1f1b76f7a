"""A picture of a frame before and after its conversion, for people who would rather look than read."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tango_server.conversion.pixels import Image
from tango_server.conversion.reading import read_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES = (13.0, 6.2)
_SHOWN_PIXELS = 1024


def draw_before_after(source: Path, output: Path, picture: Path, *, title: str) -> None:
    """Write `picture` (a PNG): `source` on the left, `output` on the right, logarithmic, row 0 on top."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - only pictures need matplotlib
    from matplotlib.figure import Figure  # noqa: PLC0415

    before, after = (read_whole(path) for path in (source, output))
    low, high = _range(before)
    figure = Figure(figsize=_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for axes, image, path in zip(figure.subplots(1, 2), (before, after), (source, output), strict=True):
        _show(
            axes, image, f"{path.parent.name}/{path.name}  {image.shape[1]} x {image.shape[0]} {image.dtype}", low, high
        )
    figure.savefig(picture, dpi=100)


def _show(axes: "Axes", image: Image, title: str, low: float, high: float) -> None:
    from matplotlib.colors import LogNorm  # noqa: PLC0415

    rows, columns = image.shape
    step = max(1, max(image.shape) // _SHOWN_PIXELS)
    shown = np.clip(image[::step, ::step].astype(np.float64), low, None)
    drawn = axes.imshow(
        shown,
        norm=LogNorm(low, high),
        cmap="viridis",
        extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
        interpolation="nearest",
    )
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("x / pixels")
    axes.set_ylabel("y / pixels")
    axes.figure.colorbar(drawn, ax=axes, label="intensity")


def _range(image: Any) -> tuple[float, float]:
    finite = image[np.isfinite(image)]
    if finite.size == 0:
        return 1.0, 10.0
    low, high = np.percentile(finite, (1, 99.8))
    low = max(float(low), 1.0)
    return low, max(float(high), 2 * low)
