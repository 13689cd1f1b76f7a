"""The live plots: rate, latency and backlog over the last ten minutes."""

import time
from collections.abc import Sequence
from typing import Any

import panel as pn
from bokeh.models import ColumnDataSource, Range1d
from bokeh.plotting import figure

from tango_server.monitor.state import HISTORY, Sample
from tango_server.monitor.style import filling

_SHORTEST, _LONGEST = 60.0, 600.0
"""Length of the time axis: since the start of the monitor, within these bounds, s."""
_HEIGHT = 210
_NARROWEST = 300
_COLOURS = ("#1f6fb4", "#d95f02")


class Plots:
    """Three plots on one time axis; `show` appends what is new."""

    def __init__(self, samples: Sequence[Sample] = ()) -> None:
        self._last: Sample | None = None
        self._source = ColumnDataSource(_columns(()), name="history")
        now = time.time()
        self._times = Range1d(_axis_time(now - _SHORTEST), _axis_time(now))
        rate = self._figure("Frames per second", "frames_per_second")
        latency = self._figure("Latency / s: median (blue), 95 % (orange)", "latency_median", "latency_p95")
        backlog = self._figure("Backlog / frames", "backlog")
        boxes = (pn.pane.Bokeh(plot, sizing_mode="stretch_width", margin=0) for plot in (rate, latency, backlog))
        self.layout: Any = pn.FlexBox(
            *(pn.Column(box, sizing_mode="stretch_width", styles=filling(_NARROWEST)) for box in boxes),
            sizing_mode="stretch_width",
        )
        self.show(samples)

    def show(self, samples: Sequence[Sample]) -> None:
        """Append the new samples; found by their order, since the clock may be set."""
        shown = next((place for place, sample in enumerate(samples, 1) if sample is self._last), 0)
        new = samples[shown:]
        if not new:
            return
        self._last = new[-1]
        self._source.stream(_columns(new), rollover=HISTORY)
        last = self._last.time
        first = max(last - _LONGEST, min(samples[0].time, last - _SHORTEST))
        self._times.update(start=_axis_time(first), end=_axis_time(last))

    def _figure(self, title: str, *columns: str) -> Any:
        plot = figure(
            name=columns[0],
            title=title,
            height=_HEIGHT,
            sizing_mode="stretch_width",
            x_axis_type="datetime",
            x_range=self._times,
            toolbar_location=None,
            tools="",
        )
        plot.y_range.start = 0
        plot.xaxis.ticker.desired_num_ticks = 4
        plot.line("time", "zero", source=self._source, alpha=0)  # else there is no axis before the first number
        for column, colour in zip(columns, _COLOURS, strict=False):
            plot.line("time", column, source=self._source, color=colour, line_width=2)
        return plot


def _axis_time(instant: float) -> float:
    """Return milliseconds in local time, which Bokeh shows without conversion."""
    return 1000.0 * (instant + time.localtime(instant).tm_gmtoff)


def _columns(samples: Sequence[Sample]) -> dict[str, list[float]]:
    names = ("frames_per_second", "latency_median", "latency_p95", "backlog")
    return {
        "time": [_axis_time(sample.time) for sample in samples],
        "zero": [0.0 for _ in samples],
        **{name: [getattr(sample, name) for sample in samples] for name in names},
    }
