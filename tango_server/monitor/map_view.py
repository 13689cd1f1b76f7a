"""The live map of a run on the page; a click on a point shows its frame."""

from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np
import panel as pn
from bokeh.events import Tap
from bokeh.models import ColorBar, ColumnDataSource, Range1d, TapTool
from bokeh.plotting import figure

from tango_server.monitor.colours import Colours
from tango_server.monitor.live_map import LiveMap, Quantity
from tango_server.monitor.style import STYLE, WIDEST, filling

_NARROWEST = 330
_HEIGHT = 360
_QUANTITIES: dict[str, Quantity] = {"Sum of the pixels": "total", "Maximum": "maximum"}
_EMPTY: dict[str, list[Any]] = {"image": [], "x": [], "y": [], "dw": [], "dh": []}

Chosen = Callable[[str], None]
"""Called with the job id of the frame on whose point the user has clicked."""


class MapView:
    """The map, or nothing as long as no run has one. Row 0 is at the top."""

    def __init__(self, chosen: Chosen) -> None:
        self._chosen = chosen
        self._map: LiveMap | None = None
        self._colours = Colours()
        self._image = ColumnDataSource(_EMPTY, name="map-image")
        self._x, self._y = Range1d(-0.5, 0.5), Range1d(0.5, -0.5)
        self._figure: Any = figure(
            name="map",
            height=_HEIGHT,
            sizing_mode="stretch_width",
            x_range=self._x,
            y_range=self._y,
            toolbar_location=None,
            tools=[TapTool()],
            tooltips=[("column, row", "$x{0}, $y{0}"), ("value", "@image{0,0.[00]}")],
        )
        mapper = self._colours.mappers["linear"]
        self._figure.image("image", "x", "y", "dw", "dh", source=self._image, color_mapper=mapper)
        self._figure.add_layout(ColorBar(color_mapper=mapper, width=12, padding=0, location=(8, 0)), "right")
        self._figure.on_event(Tap, lambda event: self._tapped(event.x, event.y))
        self._quantity = pn.widgets.Select(options=_QUANTITIES, width=180)
        self._quantity.param.watch(lambda _: self._draw(), "value")
        self._title = pn.pane.HTML("", sizing_mode="stretch_width", stylesheets=[STYLE])
        self.layout: Any = pn.Column(
            pn.pane.HTML("<h2>Map of the last run with one</h2>", stylesheets=[STYLE]),
            pn.FlexBox(self._quantity, self._title, align_items="center"),
            pn.pane.Bokeh(self._figure, sizing_mode="stretch_width"),
            visible=False,
            sizing_mode="stretch_width",
            styles=filling(_NARROWEST, WIDEST),
        )

    def show(self, found: LiveMap | None) -> None:
        """Show another state of the map."""
        if found is None or found is self._map:
            return
        self._map = found
        self.layout.visible = bool(found.cells)
        text = f"run {found.run_uid}: {len(found.cells)} of {found.size} points. Click on one to see its frame."
        self._title.object = f"<span class='small'>{escape(text)}</span>"
        if found.motors:
            self._figure.xaxis.axis_label = f"column ({found.motors[-1]})"
            self._figure.yaxis.axis_label = f"row ({', '.join(found.motors[:-1])})" if found.motors[1:] else "row"
        self._draw()

    def _draw(self) -> None:
        if self._map is None:
            return
        image = self._map.image(self._quantity.value)
        known = image[np.isfinite(image)]
        if known.size:
            low, high = float(known.min()), float(known.max())
            self._colours.limit(low, high if high > low else low + 1.0)
        rows, columns = image.shape
        self._x.update(start=-0.5, end=columns - 0.5)
        self._y.update(start=rows - 0.5, end=-0.5)
        self._image.data = {"image": [image], "x": [-0.5], "y": [-0.5], "dw": [columns], "dh": [rows]}

    def _tapped(self, x: float, y: float) -> None:
        cell = None if self._map is None else self._map.cell_at(round(y), round(x))
        if cell is not None:
            self._chosen(cell.job_id)
