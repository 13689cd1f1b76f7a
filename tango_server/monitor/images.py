"""Frames for display: read from disk, downsampled by averaging, with colour limits."""

from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.errors import ConversionError
from tango_server.conversion.esperanto.reading import read_esperanto
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.formats import needs_own_process, open_frame
from tango_server.conversion.image.display import colour_limits
from tango_server.conversion.image.orientation import Orientation
from tango_server.conversion.records import is_esperanto, record_of
from tango_server.conversion.sidecar import header_of
from tango_server.messages import FrameReport
from tango_server.recipe import Recipe

MOST_PIXELS = 512
"""Maximum width and height of a displayed image, in pixels."""

Image = NDArray[Any]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Window:
    """A part of an image: rows `top` to `bottom`, columns `left` to `right`, ends excluded."""

    left: int
    right: int
    top: int
    bottom: int

    @classmethod
    def around(cls, x: Point, y: Point, shape: tuple[int, int]) -> "Window":
        """Return the pixels of an image of `shape` between two x and two y, in either order."""
        rows, columns = shape
        left, right = (int(np.clip(round(edge + 0.5), 0, columns)) for edge in sorted(x))
        top, bottom = (int(np.clip(round(edge + 0.5), 0, rows)) for edge in sorted(y))
        return cls(min(left, columns - 1), max(right, left + 1), min(top, rows - 1), max(bottom, top + 1))

    def of(self, image: Image) -> Image:
        """Return this part of an image."""
        return image[self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True, slots=True)
class Shot:
    """One side of the pair: an image (rows, columns) with its beam centre (x, y), or a `text` that says why not."""

    title: str
    image: Image | None = None
    center: Point | None = None
    text: str = ""

    @property
    def shape(self) -> tuple[int, int] | None:
        """(rows, columns), None if there is no image."""
        return None if self.image is None else (self.image.shape[0], self.image.shape[1])

    @property
    def html(self) -> str:
        """The title of the image, or the text in its place."""
        where = f"beam centre ({self.center[0]:.1f}, {self.center[1]:.1f})" if self.center else ""
        return f"<b class='title'>{escape(self.title)}</b><br>{escape(self.text or where or 'beam centre unknown')}"


@dataclass(frozen=True, slots=True)
class Pair:
    """A frame before and after its conversion.

    `orientation` maps the raw image to the converted one; None if unknown, or if their shapes don't match.
    `recipe` is the one recorded in the converted file, if any.
    `limits` are the lowest and the highest value of the colour scale.
    """

    job_id: str | None
    raw: Shot
    converted: Shot
    recipe: Recipe | None = None
    orientation: Orientation | None = None
    limits: tuple[float, float] = (1.0, 10.0)


def read_pair(report: FrameReport) -> Pair:
    """Read both files of a converted frame; one that this machine can't read becomes a text, not an error."""
    source = FrameLocation.of(report.source, report.frame)
    output = Path(report.output or source.file)
    recipe = _recipe(output)
    if source.file == output:
        raw = Shot(source.name, text="Converted in place: the raw file was replaced.")
    else:
        raw = _shot(source)
    converted = _shot(FrameLocation(output))
    orientation = _orientation(recipe, raw.shape, converted.shape)
    if converted.center is None and orientation is not None and raw.center is not None and raw.shape is not None:
        converted = replace(converted, center=orientation.point(*raw.center, raw.shape))
    seen = raw.image if raw.image is not None else converted.image
    return Pair(
        report.job_id, raw, converted, recipe, orientation, (1.0, 10.0) if seen is None else colour_limits(shrunk(seen))
    )


def linked(x: Point, y: Point, orientation: Orientation, shape: tuple[int, int]) -> tuple[Point, Point]:
    """Map a region (x: left, right; y: lower, upper) of an image of `shape` to the other image.

    >>> linked((0.0, 10.0), (20.0, 0.0), Orientation.of(Recipe(rotation=90)), (100, 100))
    ((0.0, 20.0), (99.0, 89.0))
    """
    corners = [orientation.point(x[0], y[0], shape), orientation.point(x[1], y[1], shape)]
    (left, right), (upper, lower) = (sorted(axis) for axis in zip(*corners, strict=True))
    return (left, right), (lower, upper)


def shrunk(image: Image, most: int = MOST_PIXELS) -> NDArray[np.float32]:
    """Downsample to at most `most` pixels a side: means of square blocks, NaN where nothing is finite.

    >>> shrunk(np.array([[1.0, 3.0, 8.0], [1.0, 3.0, 10.0]]), most=2)
    array([[2., 9.]], dtype=float32)
    """
    step = -(-max(image.shape) // most)
    values = image.astype(np.float32)
    if step <= 1:
        return np.where(np.isfinite(values), values, np.float32(np.nan))
    finite = np.isfinite(values)
    sums = _blocks(np.where(finite, values, np.float32(0)), step)
    counts = _blocks(finite.astype(np.float32), step)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _blocks(values: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    rows, columns = (np.arange(0, size, step) for size in values.shape)
    return np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1)


def _shot(frame: FrameLocation) -> Shot:
    try:
        if needs_own_process(frame.file):
            return Shot(frame.name, text="Frames in HDF5 are not shown here: use petif preview.")
        image, center = _esperanto(frame.file) if is_esperanto(frame.file) else _frame(frame)
    except (ConversionError, OSError) as error:
        return Shot(frame.name, text=f"The computer that runs this page cannot read the file: {error}")
    rows, columns = image.shape
    return Shot(f"{frame.name}: {columns} x {rows} {image.dtype.name}", image, center)


def _esperanto(path: Path) -> tuple[Image, Point | None]:
    header, image = read_esperanto(path)
    return image, header.origin


def _frame(frame: FrameLocation) -> tuple[Image, Point | None]:
    with open_frame(frame) as source:
        image, header = np.array(next(source.read())), header_of(source)
    if header.beam_center_x is None or header.beam_center_y is None:
        return image, None
    return image, (header.beam_center_x, header.beam_center_y)


def _recipe(output: Path) -> Recipe | None:
    """Return the recipe recorded in a file; None if it can't be read, or is unknown to this version."""
    try:
        record = record_of(output)
        return None if record is None or record.recipe is None else Recipe.model_validate(record.recipe)
    except (ConversionError, OSError, ValueError, RecursionError):
        return None


def _orientation(
    recipe: Recipe | None, raw: tuple[int, int] | None, converted: tuple[int, int] | None
) -> Orientation | None:
    """Return the orientation of a recipe; None if the shapes don't match it, for example of padded images."""
    if recipe is None or raw is None or converted is None:
        return None
    orientation = Orientation.of(recipe)
    return orientation if orientation.shape(raw) == converted else None
