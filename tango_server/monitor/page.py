"""The page in one browser; updates only what has changed."""

import logging
import threading
from typing import Any

import panel as pn

from tango_server.client.client import LinkError
from tango_server.monitor.actions import buttons
from tango_server.monitor.html import corrections, failures, headline, numbers, runs
from tango_server.monitor.image_loader import Pictures
from tango_server.monitor.images import Pair
from tango_server.monitor.map_view import MapView
from tango_server.monitor.pair_view import PairView
from tango_server.monitor.plots import Plots
from tango_server.monitor.sharing import Shared
from tango_server.monitor.state import MonitorState
from tango_server.monitor.style import STYLE

_log = logging.getLogger(__name__)

_PERIOD_MS = 500


class MonitorPage:
    """One view of a server. `read_only`: without the buttons that act on it."""

    def __init__(self, shared: Shared, *, read_only: bool) -> None:
        self._shared = shared
        self._shown: MonitorState | None = None
        self._headline, self._numbers, self._corrections, self._failures, self._runs = (
            pn.pane.HTML("", sizing_mode="stretch_width", stylesheets=[STYLE]) for _ in range(5)
        )
        self._plots = Plots()
        self._pair = PairView()
        self._map = MapView(self._choose)
        self._chosen = Pictures(pause=0.0)
        self._held: Pair | None = None
        self.layout: Any = pn.Column(
            self._headline,
            self._numbers,
            self._plots.layout,
            _title("Last converted frame"),
            self._pair.layout,
            self._map.layout,
            _title("Corrections in use"),
            self._corrections,
            _title("Last failures"),
            self._failures,
            *([] if read_only else [buttons(shared.watch)]),
            _title("Last runs"),
            self._runs,
            sizing_mode="stretch_width",
        )
        self.refresh()

    def follow(self) -> Any:
        """Start refreshing the page, in a browser for as long as it is open; call `stop()` of the result to end it."""
        return pn.state.add_periodic_callback(self.refresh, period=_PERIOD_MS)

    def refresh(self) -> None:
        """Show the current state."""
        with pn.io.hold():
            self._refresh()
        if pn.state.curdoc is None:  # in a notebook, Bokeh's own objects must be pushed
            pn.io.push_notebook(self.layout)

    def _refresh(self) -> None:
        observed = self._shared.watch.observed
        if observed is not self._shown:
            self._shown = observed
            self._headline.object = headline(observed)
            self._numbers.object = numbers(observed)
            self._corrections.object = corrections(observed)
            self._failures.object = failures(observed.failures)
            self._runs.object = runs(observed.runs)
            self._plots.show(observed.samples)
            self._map.show(observed.map)
        if observed.last is not None:
            self._shared.pictures.want(observed.last)
        self._pair.show(self._shared.pictures.pair)
        chosen = self._chosen.pair
        if chosen is not None and chosen is not self._held:
            self._held = chosen
            self._pair.hold(chosen)

    def _choose(self, job_id: str) -> None:
        """Show the frame of a point of the map, once it was fetched and read."""
        threading.Thread(target=self._fetch, args=(job_id,), name="petif-chosen", daemon=True).start()

    def _fetch(self, job_id: str) -> None:
        try:
            report = self._shared.watch.report(job_id)
        except LinkError as error:
            _log.warning("cannot show the frame of job %s: %s", job_id, error)
            return
        if report is not None:
            self._chosen.want(report)


def _title(text: str) -> Any:
    return pn.pane.HTML(f"<h2>{text}</h2>", stylesheets=[STYLE], margin=(8, 10, 0, 10))
