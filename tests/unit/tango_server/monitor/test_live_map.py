"""The live map of the monitor: its values, what a click chooses, and how it follows the reports of a run."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from bokeh.models import ColumnDataSource

from tango_server.client.attributes import AttributeReading
from tango_server.client.client import RequestRejectedError, ServerSnapshot
from tango_server.messages import FrameReport, ReportsAnswer, ReportsQuery, RunStatistics
from tango_server.monitor import poller
from tango_server.monitor.image_loader import Pictures
from tango_server.monitor.live_map import LiveMap, run_with_map
from tango_server.monitor.map_view import MapView
from tango_server.monitor.page import MonitorPage
from tango_server.monitor.poller import Watch
from tango_server.monitor.sharing import Shared

pytestmark = pytest.mark.filterwarnings("ignore:Widget.name is deprecated:PendingDeprecationWarning")  # of Panel
PATIENCE = 30.0


def report(point: int, outcome: str = "converted", **fields: Any) -> FrameReport:
    place = {"point": point, "shape": [2, 3], "motors": ["y", "x"], "name": "pattern"}
    return FrameReport.model_validate({
        "job_id": f"{outcome}-{point}", "source": f"/nowhere/raw/{point}.tif", "outcome": outcome, "finished": 1.0,
        "output": f"/nowhere/processed/{point}.tif" if outcome != "failed" else None, "run_uid": "run", "map": place,
        "pixels": {"total": 10.0 * point, "maximum": float(point)}, **fields,
    })  # fmt: skip


def test_map_has_the_values_of_the_points_that_are_there() -> None:
    reports = [
        report(0), report(4), report(2, "failed"), report(5, "placeholder"), report(1, group="g", member=0),
        report(3, map=None),
    ]  # fmt: skip
    found = LiveMap("run").with_reports(reports)
    nan = np.nan
    np.testing.assert_array_equal(found.image("total"), [[0, nan, nan], [nan, 40, nan]])
    np.testing.assert_array_equal(found.image("maximum"), [[0, nan, nan], [nan, 4, nan]])
    again = found.with_reports([report(4, job_id="again", pixels={"total": 41.0})])
    assert again.image("total")[1, 1] == 41
    assert np.isnan(again.image("maximum")[1, 1])
    assert (found.after, again.after) == ("converted-3", "again")
    assert found.with_reports([]) == found


def test_newest_of_several_maps_is_shown() -> None:
    other = {"point": 1, "shape": [2], "motors": ["x"], "name": "other"}
    found = LiveMap("run").with_reports([report(4), report(1, map=other)])
    assert (found.name, found.shape, list(found.cells)) == ("other", (2,), [1])
    assert run_with_map([report(1), report(2, map=None, run_uid="later")]) == "run"
    assert run_with_map([report(2, map=None)]) is None


def test_maps_of_two_detectors_keep_their_points() -> None:
    found = LiveMap("run")
    for point in range(4):
        other = {"point": point, "shape": [4], "motors": ["x"], "name": "other"}
        found = found.with_reports([report(point), report(point, map=other)])
    assert (found.name, list(found.cells)) == ("other", [0, 1, 2, 3])
    assert list(found.with_reports([report(5)]).cells) == [0, 1, 2, 3, 5]


@pytest.mark.parametrize(
    ("x", "y", "job"),
    [(0.4, 0.3, ["converted-0"]), (1.2, 0.9, ["converted-4"]), (2, 0, []), (3, 0, []), (-1, 1, []), (1, 7, [])],
)
def test_click_on_a_point_chooses_its_frame(x: float, y: float, job: list[str]) -> None:
    chosen: list[str] = []
    view = MapView(chosen.append)
    view._tapped(x, y)
    assert not view.layout.visible
    view.show(LiveMap("run").with_reports([report(0), report(4)]))
    view._tapped(x, y)
    assert chosen == job
    assert view.layout.visible


def test_quantity_is_chosen() -> None:
    view = MapView(lambda _: None)
    view.show(LiveMap("run").with_reports([report(0), report(4)]))
    source: ColumnDataSource = view._image
    assert source.data["image"][0][1, 1] == 40
    view._quantity.value = "maximum"
    assert source.data["image"][0][1, 1] == 4
    assert (source.data["dw"], source.data["dh"]) == ([3], [2])


class Scripted:
    """A server with a run of 2 x 3 points; `pages` of its reports come one after the other."""

    def __init__(self, *pages: Sequence[FrameReport]) -> None:
        self.pages = list(pages)
        self.processed = 1
        self.asked: list[str] = []

    def snapshot(self) -> ServerSnapshot:
        return ServerSnapshot("1.0", {"NumProcessed": AttributeReading(self.processed, 0.0)})

    def reports(self, query: ReportsQuery) -> ReportsAnswer:
        found = [each for page in self.pages for each in page if query.job_ids is None or each.job_id in query.job_ids]
        return ReportsAnswer(reports=found[-1:], pending=0)

    def reports_of_run(self, run_uid: str, after: str) -> Sequence[FrameReport]:
        assert run_uid == "run"
        self.asked.append(after)
        known = [each for page in self.pages for each in page]
        jobs = [each.job_id for each in known]
        if after and after not in jobs:
            raise RequestRejectedError(f"unknown job {after}")
        begin = jobs.index(after) + 1 if after else 0
        return known[begin : begin + 2]

    def run_statistics(self, run_uid: str) -> RunStatistics:
        return RunStatistics(run_uid=run_uid)


def until(true: Callable[[], Any], what: str) -> None:
    pause, deadline = threading.Event(), time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        pause.wait(0.01)


def points(watch: Watch) -> list[int]:
    found = watch.observed.map
    return sorted(found.cells) if found else []


def test_monitor_follows_the_reports_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Scripted([report(0), report(1), report(2)])
    monkeypatch.setattr(poller, "Client", lambda _address: server)
    monkeypatch.setattr(poller, "MANY_REPORTS", 2)
    with closing(Watch("tango://host:1/a/b/c", interval=0.01)) as watch:
        until(lambda: points(watch) == [0, 1, 2], "the first points are there")
        server.pages.append([report(5)])
        server.processed = 2
        until(lambda: points(watch) == [0, 1, 2, 5], "a further point came")
        assert server.asked[:2] == ["", "converted-1"]
        assert set(server.asked[2:]) == {"converted-2"}, "only new reports are fetched"
        server.retried = True
        server.pages.append([report(4)])
        server.processed = 3
        until(lambda: "converted-5" in server.asked, "the last report is not there any more")
        server.processed = 4
        until(lambda: points(watch) == [0, 1, 2, 4, 5], "all reports were read again")


def test_page_shows_and_holds_the_frame_of_a_chosen_point(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Scripted([report(0), report(4)])
    monkeypatch.setattr(poller, "Client", lambda _address: server)
    with closing(Shared(Watch("tango://host:1/a/b/c", interval=0.01), Pictures(pause=0.0))) as shared:
        until(lambda: points(shared.watch) == [0, 4], "the points are there")
        page = MonitorPage(shared, read_only=True)
        page._map._tapped(0, 0)
        until(lambda: page._chosen.pair, "the frame was read")
        page.refresh()
        assert page._pair._pair is page._chosen.pair
        assert page._chosen.pair is not None
        assert page._chosen.pair.job_id == "converted-0"
        assert page._pair._hold.value
        page.refresh()
        assert page._pair._pair is page._chosen.pair
