"""One image of a frame on the page, downsampled to the visible region."""

from collections.abc import Callable
from typing import Any

import panel as pn
from bokeh.events import RangesUpdate
from bokeh.models import BoxZoomTool, ColorBar, ColumnDataSource, CustomJS, PanTool, Range1d, ResetTool, WheelZoomTool
from bokeh.plotting import figure

from tango_server.monitor.colours import Colours, Scale
from tango_server.monitor.images import Point, Shot, Window, shrunk
from tango_server.monitor.style import STYLE, WIDEST, filling

_NARROWEST = 330
_NOWHERE = ((-0.5, 1.5), (1.5, -0.5))
"""The x and y range before the first image."""
_EMPTY: dict[str, list[Any]] = {"image": [], "x": [], "y": [], "dw": [], "dh": []}

Zoomed = Callable[[Point, Point], None]
"""Called with the visible x and y range after the user has zoomed or panned the image."""


class PictureView:
    """An image with its beam centre, or a text that says why there is none. Row 0 is at the top."""

    def __init__(self, name: str, heading: str, colours: Colours, zoomed: Zoomed) -> None:
        self.shot = Shot("")
        self._heading = heading
        self._image = ColumnDataSource(_EMPTY, name=f"{name}-image")
        self._center = ColumnDataSource({"x": [], "y": []}, name=f"{name}-center")
        self._shown: tuple[Point, Point] = _NOWHERE
        self._x, self._y = (Range1d(*ends) for ends in _NOWHERE)
        self._figure: Any = figure(
            name=name,
            sizing_mode="stretch_width",
            frame_height=_NARROWEST,
            x_range=self._x,
            y_range=self._y,
            toolbar_location="above",
            tools=[PanTool(), box := BoxZoomTool(match_aspect=True), wheel := WheelZoomTool(), ResetTool()],
            tooltips=[("x, y", "$x{0}, $y{0}"), ("value", "@image{0,0.[00]}")],
        )
        self._figure.toolbar.active_drag, self._figure.toolbar.active_scroll = box, wheel
        self._figure.toolbar.logo = None
        square = CustomJS(args={"plot": self._figure}, code="plot.frame_height = plot.inner_width")
        self._figure.js_on_change("inner_width", square)
        self._layers = {scale: self._layer(mapper) for scale, mapper in colours.mappers.items()}
        self._figure.scatter("x", "y", source=self._center, marker="cross", size=24, line_width=2, line_color="red")
        self._figure.on_event(RangesUpdate, lambda event: self._moved(event, zoomed))
        self._title = pn.pane.HTML("", sizing_mode="stretch_width", stylesheets=[STYLE])
        plot = pn.pane.Bokeh(self._figure, sizing_mode="stretch_width")
        self._plot = pn.Column(plot, visible=False, sizing_mode="stretch_width")
        self.layout: Any = pn.Column(
            self._title, self._plot, sizing_mode="stretch_width", styles=filling(_NARROWEST, WIDEST)
        )

    def show(self, shot: Shot) -> None:
        """Show another image in the same window, or the whole image if its shape differs."""
        same, self.shot = self.shot.shape == shot.shape, shot
        self._title.object = f"<b>{self._heading}:</b> {shot.html}"
        self._center.data = (
            {"x": [], "y": []} if shot.center is None else dict(zip("xy", ([c] for c in shot.center), strict=True))
        )
        self._plot.visible = shot.shape is not None
        if shot.shape is not None and not same:
            self._show_all(shot.shape)
        self._draw()

    def restore(self) -> None:
        """Restore the window if the browser has started with the initial one."""
        if self._shown != _NOWHERE and (self._x.start, self._x.end) == _NOWHERE[0]:
            self._set_window(*self._shown)

    def scale(self, name: Scale) -> None:
        """Show the image on this colour scale."""
        for scale, parts in self._layers.items():
            for part in parts:
                part.visible = scale == name

    def show_region(self, x: Point, y: Point) -> None:
        """Show the region between two x and two y (upper and lower edge) at the resolution of the screen."""
        self._set_window(x, y)
        self._draw()

    def _set_window(self, x: Point, y: Point) -> None:
        self._shown = (x, y)
        self._x.update(start=x[0], end=x[1])
        self._y.update(start=y[0], end=y[1])

    def _moved(self, event: Any, zoomed: Zoomed) -> None:
        x, y = (event.x0, event.x1), (event.y0, event.y1)
        if (x, y) != _NOWHERE:  # the initial range, which a browser sends when it starts
            zoomed(x, y)

    def _layer(self, mapper: Any) -> tuple[Any, Any]:
        """Add the image with the colours of one mapper, and its colour bar."""
        image = self._figure.image("image", "x", "y", "dw", "dh", source=self._image, color_mapper=mapper)
        bar = ColorBar(color_mapper=mapper, width=12, padding=0, location=(8, 0))
        self._figure.add_layout(bar, "right")
        return image, bar

    def _draw(self) -> None:
        if self.shot.image is None or self.shot.shape is None:
            self._image.data = _EMPTY
            return
        window = Window.around(*self._shown, self.shot.shape)
        self._image.data = {
            "image": [shrunk(window.of(self.shot.image))],
            "x": [window.left - 0.5],
            "y": [window.top - 0.5],
            "dw": [window.right - window.left],
            "dh": [window.bottom - window.top],
        }

    def _show_all(self, shape: tuple[int, int]) -> None:
        """Show the whole image in a square region, so that its pixels are square."""
        rows, columns = shape
        side = max(shape)
        x, y = (columns - side) / 2 - 0.5, (rows - side) / 2 - 0.5
        self._x.update(reset_start=x, reset_end=x + side)
        self._y.update(reset_start=y + side, reset_end=y)
        self._set_window((x, x + side), (y + side, y))
