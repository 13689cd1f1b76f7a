"""What a test can make the stand-in for a server do, and what plans see of it."""

import threading
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest
import tifffile
from bluesky import RunEngine

from petif_bluesky import ConversionCallback, PETifConverter, conversion_wrapper
from petif_bluesky.testing import FakeServer, converted_beside, failed, really_converted
from tango_server.client.client import LinkDownError, ServerFullError
from tango_server.messages import FrameReport, FrameRequest, ReportsQuery
from tango_server.recipe import Recipe

REQUEST = {"source": "/data/raw/a.tif", "key": "a", "run_uid": "run"}


@pytest.fixture(autouse=True)
def subscribed(run_engine: RunEngine, callback: ConversionCallback) -> None:
    run_engine.subscribe(callback)


def scan(run_engine: RunEngine, converter: PETifConverter, detector: Any) -> list[Any]:
    """Take three frames, and return what the converter says of them."""
    run_engine(conversion_wrapper(bp.count([detector], num=3), converter))
    return [getattr(converter, name).get() for name in ("submitted", "converted", "failed", "drained")]


def test_failed_frames_are_counted(
    run_engine: RunEngine, converter: PETifConverter, server: FakeServer, make_detector: Any
) -> None:
    server.report = lambda request: failed(request, "no TIFF") if request.seq_num == 2 else converted_beside(request)
    assert scan(run_engine, converter, make_detector()) == [3, 2, 1, True]


def test_refused_frames_are_not_waited_for(
    run_engine: RunEngine, converter: PETifConverter, server: FakeServer, make_detector: Any, tmp_path: Path
) -> None:
    detector = make_detector(directory=tmp_path / "no-such-folder-in-the-path-rule")
    assert scan(run_engine, converter, detector) == [3, 0, 3, True]
    assert server.requests == {}
    assert {report.outcome for report in converter.reports} == {"failed"}
    assert "no folder named 'raw'" in converter.reports[0].reason


def test_repeated_request_is_converted_once(server: FakeServer) -> None:
    made: list[str | None] = []

    def count(request: FrameRequest) -> FrameReport:
        made.append(request.key)
        return converted_beside(request)

    server.report = count
    server.submit([REQUEST])
    server.submit([REQUEST])
    assert server.reports_of_run("run") == server.reports_of_run("run")
    assert made == ["a"]


def test_servers_recipe_is_the_default() -> None:
    recipe = Recipe.preset("xdi-unsigned", rotation=90)
    server = FakeServer(recipe=recipe)
    server.submit([{**REQUEST, "metadata": {"shape": [1, 32, 48]}}])
    (report,) = server.reports_of_run("run")
    assert (report.shape, report.pixel_type, report.recipe_hash) == ((48, 32), "uint32", recipe.hash)
    server.go_down()
    server.go_up()
    assert server.state.recipe == recipe.model_dump(mode="json")


def test_hanging_server_times_out(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("petif_bluesky.testing.fake_server.PATIENCE", 0.05)
    server.answers.clear()
    with pytest.raises(LinkDownError, match="does not answer"):
        server.submit([REQUEST])
    assert server.requests == {}
    with pytest.raises(TimeoutError, match=r"0\.05 s"):
        server.until(lambda: bool(server.requests))


def test_errors_are_raised_one_by_one(server: FakeServer) -> None:
    server.troubles.append(ServerFullError("no room"))
    with pytest.raises(ServerFullError):
        server.submit([REQUEST])
    server.submit([REQUEST])
    assert (server.attempts, server.sources) == (2, [REQUEST["source"]])
    assert server.callers == {threading.current_thread()}


def test_frames_of_an_hdf5_file_are_really_converted(tmp_path: Path) -> None:
    import h5py

    raw = tmp_path / "raw" / "a.h5"
    raw.parent.mkdir()
    stack = np.arange(3 * 8 * 6, dtype=np.uint16).reshape(3, 8, 6)
    with h5py.File(raw, "w") as file:
        file["entry/data/data"] = stack
    server = FakeServer(tmp_path)
    server.report = really_converted
    request = {"source": f"{raw}::/entry/data/data", "run_uid": "run", "stream": "fly"}
    answer = server.submit([{**request, "frame": frame, "key": str(frame)} for frame in (2, 0)])
    assert [job.source for job in answer.jobs] == [request["source"]] * 2
    reports = server.reports(ReportsQuery(run_uid="run")).reports
    assert [(report.source, report.frame, report.stream) for report in reports] == [
        (request["source"], 2, "fly"),
        (request["source"], 0, "fly"),
    ]
    for report in reports:
        assert report.output == str(tmp_path / "processed" / f"a_{report.frame:05d}.tif")
        np.testing.assert_array_equal(tifffile.imread(report.output), stack[report.frame or 0])
