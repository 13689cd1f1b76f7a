"""The raw and the converted frame side by side: zooming into one shows the same part of the frame in the other."""

from html import escape
from typing import Any

import panel as pn

from tango_server.monitor.colours import PALETTES, Colours
from tango_server.monitor.image_view import PictureView
from tango_server.monitor.images import Pair, Point, linked
from tango_server.recipe.words import recipe_words


class PairView:
    """Both images and their colour settings."""

    def __init__(self) -> None:
        self._pair: Pair | None = None
        self._colours = Colours()
        self._raw = PictureView("raw", "Before", self._colours, self._zoomed_raw)
        self._converted = PictureView("converted", "After", self._colours, self._zoomed_converted)
        palette = pn.widgets.Select(name="", options=list(PALETTES), width=110, align="center")
        log = pn.widgets.Checkbox(name="Logarithmic", value=True, align="center")
        self._hold = pn.widgets.Checkbox(name="Hold this frame", value=False, align="center")
        palette.param.watch(lambda event: self._colours.paint(event.new), "value")
        log.param.watch(lambda event: self._scale(logarithmic=event.new), "value")
        self._scale(logarithmic=True)
        self._text = pn.pane.HTML("No frame converted yet.", sizing_mode="stretch_width")
        self.layout: Any = pn.Column(
            pn.FlexBox(pn.pane.HTML("Colour map", align="center"), palette, log, self._hold, align_items="center"),
            self._text,
            pn.FlexBox(self._raw.layout, self._converted.layout, gap="12px", sizing_mode="stretch_width"),
            sizing_mode="stretch_width",
        )

    def show(self, pair: Pair | None) -> None:
        """Show another pair, unless it is the same or the current one is held."""
        self._raw.restore()
        self._converted.restore()
        if pair is None or pair is self._pair or (self._hold.value and self._pair is not None):
            return
        self._pair = pair
        self._text.object = f"Conversion: {escape(recipe_words(pair.recipe))}." if pair.recipe else ""
        self._colours.limit(*pair.limits)
        self._raw.show(pair.raw)
        self._converted.show(pair.converted)

    def hold(self, pair: Pair) -> None:
        """Show a pair that the user has chosen, and hold it."""
        self._hold.value = False
        self.show(pair)
        self._hold.value = True

    def _scale(self, *, logarithmic: bool) -> None:
        for view in (self._raw, self._converted):
            view.scale("log" if logarithmic else "linear")

    def _zoomed_raw(self, x: Point, y: Point) -> None:
        self._raw.show_region(x, y)
        if self._pair is not None and self._pair.orientation is not None and self._pair.raw.shape is not None:
            self._converted.show_region(*linked(x, y, self._pair.orientation, self._pair.raw.shape))

    def _zoomed_converted(self, x: Point, y: Point) -> None:
        self._converted.show_region(x, y)
        pair = self._pair
        if pair is not None and pair.orientation is not None and pair.converted.shape is not None:
            self._raw.show_region(*linked(x, y, pair.orientation.inverse(), pair.converted.shape))
