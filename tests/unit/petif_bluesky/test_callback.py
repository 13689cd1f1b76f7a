"""From the documents of real runs to requests at the server."""

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.run_engine import call_in_bluesky_event_loop
from ophyd_async.core import StaticFilenameProvider, StaticPathProvider
from ophyd_async.sim import SimBlobDetector

from petif_bluesky import ConversionCallback, PETifConverter
from petif_bluesky.callback import default_spool_path
from petif_bluesky.spool import Spool
from petif_bluesky.testing.fake_server import FakeServer
from petif_bluesky.testing.reports import failed
from tango_server.messages import ReportsQuery
from tango_server.recipe import Recipe
from tests.unit.documents import IMAGE, NAME, NUMBER, ComposedRun, Recorder, replay

RECIPE = Recipe.preset("xdi", rotation=90, flip="1")
MakeDetector = Callable[..., Any]


def as_metadata(recipe: Recipe) -> dict[str, Any]:
    return {"conversion": {"recipe": recipe.model_dump(mode="json")}}


def composed(callback: Callable[[str, Any], None], frames: int = 1, **metadata: Any) -> ComposedRun:
    """A run with some frames that has not stopped yet."""
    run = ComposedRun(callback, **metadata)
    run.stream(pe={"image": IMAGE})
    datum = run.resource(path=f"raw/{run.uid}")
    for point in range(frames):
        run.event(pe_image=datum(point))
    return run


def test_every_frame_of_a_run_becomes_one_request(
    run_engine: RunEngine,
    recorder: Recorder,
    callback: ConversionCallback,
    server: FakeServer,
    make_detector: MakeDetector,
) -> None:
    run_engine.subscribe(callback)
    (uid,) = run_engine(bp.count([make_detector("pe1"), make_detector("pe2")], num=3, md=as_metadata(RECIPE)))
    server.until(lambda: len(server.requests) == 6)
    requests = list(server.requests.values())
    written = [event["data"][f"{name}_full_file_name"] for event in recorder.of("event") for name in ("pe1", "pe2")]
    assert sorted(request.source for request in requests) == sorted(written)
    assert [request.seq_num for request in requests] == [1, 1, 2, 2, 3, 3]
    assert {(request.run_uid, request.stream) for request in requests} == {(uid, "primary")}
    assert all(request.recipe == RECIPE for request in requests)
    assert server.announced == [uid]
    recorder.check()


def test_frames_of_one_file_are_requests_of_their_own(
    run_engine: RunEngine, callback: ConversionCallback, server: FakeServer, tmp_path: Path
) -> None:
    blob = SimBlobDetector(StaticPathProvider(StaticFilenameProvider("blob"), tmp_path), name="blob")
    call_in_bluesky_event_loop(blob.connect())
    run_engine.subscribe(callback)
    server.report = lambda request: failed(request, "no reader")
    (uid,) = run_engine(bp.count([blob], num=3, md=as_metadata(Recipe(output={"folder": "/out"}))))
    server.until(lambda: len(server.requests) == 3)
    source = f"{tmp_path / 'blob.h5'}::/entry/data/data"
    assert [(request.source, request.frame, request.seq_num) for request in server.requests.values()] == [
        (source, frame, frame + 1) for frame in range(3)
    ]
    assert list(server.requests) == [f"{uid}/blob/{source}#{frame}" for frame in range(3)]
    reports = server.reports(ReportsQuery(run_uid=uid)).reports
    assert [(report.source, report.frame) for report in reports] == [(source, frame) for frame in range(3)]


def test_run_without_frames_is_announced(
    run_engine: RunEngine, callback: ConversionCallback, converter: PETifConverter, server: FakeServer
) -> None:
    run_engine.subscribe(callback)
    (uid,) = run_engine(bpp.run_wrapper(bps.null()))
    server.until(lambda: server.announced == [uid])
    assert server.requests == {}
    assert converter.runs.submitted(uid) == 0


def test_run_without_a_recipe_uses_the_servers(callback: ConversionCallback, server: FakeServer) -> None:
    starts: list[dict[str, Any]] = [{}, {"conversion": {"note": "as ever"}}, {"conversion": {"recipe": None}}]
    for metadata in starts:
        composed(callback, **metadata).stop()
    server.until(lambda: len(server.requests) == len(starts))
    assert [request.recipe for request in server.requests.values()] == [None] * len(starts)


def test_interleaved_runs_have_their_own_recipes(callback: ConversionCallback, server: FakeServer) -> None:
    recipes = [Recipe.preset("xdi", rotation=angle) for angle in (90, 180)]
    runs = [composed(callback, frames=0, **as_metadata(recipe)) for recipe in recipes]
    data = [run.resource(filename=run.uid) for run in runs]
    for point in range(2):
        for run, datum in zip(runs, data, strict=True):
            run.event(pe_image=datum(point))
    for run in runs:
        run.stop()
    server.until(lambda: len(server.requests) == 4)
    assert [(request.run_uid, request.recipe) for request in server.requests.values()] == 2 * [
        (run.uid, recipe) for run, recipe in zip(runs, recipes, strict=True)
    ]


def test_documents_delivered_twice_make_the_same_keys(
    callback: ConversionCallback, converter: PETifConverter, server: FakeServer, tmp_path: Path
) -> None:
    run = composed(callback, frames=3)
    run.stop()
    server.until(lambda: len(server.requests) == 3)
    keys = list(server.requests)
    assert len(set(keys)) == 3
    elsewhere = FakeServer()
    stranger = PETifConverter(elsewhere.address, name="stranger", poller=elsewhere)
    again = ConversionCallback(stranger, spool=tmp_path / "another.sqlite")
    replay(run.recorder.documents, again)
    elsewhere.until(lambda: len(elsewhere.requests) == 3)
    again.close()
    assert list(elsewhere.requests) == keys


def test_same_files_in_two_runs_are_two_jobs(callback: ConversionCallback, server: FakeServer) -> None:
    for _ in range(2):
        run = ComposedRun(callback)
        run.stream(pe={"image": IMAGE})
        run.event(pe_image=run.resource()(0))
        run.stop()
    server.until(lambda: len(server.requests) == 2)
    assert len(set(server.sources)) == 1


GARBAGE = [
    pytest.param("start", {}, id="start-empty"),
    pytest.param("start", None, id="start-none"),
    pytest.param("start", {"uid": ["x"]}, id="start-with-a-list"),
    pytest.param("descriptor", {"uid": "d", "run_start": "x"}, id="descriptor-without-keys"),
    pytest.param("descriptor", {"uid": "d", "run_start": "x", "data_keys": 5}, id="descriptor-with-a-number"),
    pytest.param("resource", {"uid": "r", "spec": "AD_TIFF"}, id="resource-without-path"),
    pytest.param(
        "resource",
        {"uid": "r", "spec": "AD_TIFF", "resource_path": "raw", "resource_kwargs": {"template": "%s"}},
        id="resource-without-name",
    ),
    pytest.param("datum", {"datum_id": "r/0", "datum_kwargs": {}}, id="datum-of-nothing"),
    pytest.param("datum", {"resource": "never", "datum_kwargs": {}}, id="datum-without-id"),
    pytest.param("stream_datum", {"uid": "x"}, id="stream-datum-without-descriptor"),
    pytest.param("event_page", {"uid": "x"}, id="event-page-without-descriptor"),
    pytest.param("event", {"descriptor": "never", "data": {}, "seq_num": 1}, id="event-of-nothing"),
    pytest.param("event", [], id="event-list"),
    pytest.param("stop", {}, id="stop-empty"),
]


@pytest.mark.parametrize(("name", "document"), GARBAGE)
def test_malformed_document_is_logged_and_the_next_run_works(
    name: str, document: Any, callback: ConversionCallback, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    callback(name, document)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert f"{name!r} document" in record.getMessage()
    run = composed(callback)
    run.stop()
    server.until(lambda: len(server.requests) == 1)
    assert run.uid in server.announced


@pytest.mark.parametrize("conversion", ["by hand", {"recipe": {"rotation": 45}}, {"rotatoin": 90}, 5])
def test_frames_of_a_run_with_an_unusable_recipe_fail_with_the_reason(
    conversion: Any,
    callback: ConversionCallback,
    converter: PETifConverter,
    server: FakeServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = composed(callback, frames=3, conversion=conversion)
    server.until(lambda: server.statistics(run.uid).failed == 3)
    assert server.statistics(run.uid).submitted == converter.runs.submitted(run.uid) == 3
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert run.uid in record.getMessage()
    reasons = {report.reason for report in server.reports_of_run(run.uid)}
    assert all("recipe" in reason for reason in reasons)


def test_unknown_document_types_are_ignored(
    callback: ConversionCallback, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    run = composed(callback, frames=0)
    for name in ("bulk_events", "bulk_datum", "nonsense"):
        callback(name, {"uid": "x"})
    run.event(pe_image=run.resource()(0))
    server.until(lambda: len(server.requests) == 1)
    assert caplog.records == []


def test_document_errors_are_logged_once_and_counted(
    callback: ConversionCallback, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        run = composed(callback, frames=0)
        for _ in range(5):
            callback("resource", {"uid": "r", "spec": "AD_TIFF", "run_start": run.uid})
        told = [record.getMessage() for record in caplog.records if "'resource' document" in record.getMessage()]
        assert len(told) == number + 1
        assert run.uid in told[-1]
        run.stop()
    assert f"run {run.uid}: 5 documents" in caplog.records[-1].getMessage()


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        ("stream_datum", {"indices": np.int64(4)}),
        ("descriptor", {"uid": "d", "run_start": np.array([1, 2]), "data_keys": {}}),
    ],
)
def test_malformed_document_never_raises_into_a_plan(
    callback: ConversionCallback, server: FakeServer, kind: str, document: dict[str, Any]
) -> None:
    """Neither at once nor at the end of another run."""
    run = composed(callback)
    callback(kind, {"descriptor": run.recorder.of("descriptor")[0]["uid"], **document})
    run.stop()
    server.until(lambda: len(server.requests) == 1)


@pytest.mark.parametrize("uid", [b"x", 7])
def test_run_uid_that_is_no_text_does_not_stop_other_runs(
    callback: ConversionCallback, server: FakeServer, uid: object
) -> None:
    callback("start", {"uid": uid, "time": 0.0})
    run = composed(callback)
    server.until(lambda: len(server.requests) == 1)
    assert server.announced == [run.uid]


def test_name_that_is_no_unicode_costs_no_other_frame(
    callback: ConversionCallback, converter: PETifConverter, server: FakeServer
) -> None:
    run = ComposedRun(callback)
    run.stream(pe={"full_file_name": NAME}, cam={"full_file_name": NAME})
    run.event(pe_full_file_name="/raw/a.tif", cam_full_file_name="/raw/caf\udce9.tif")
    server.until(lambda: len(server.requests) == 1 and converter.runs.set_aside_of(run.uid) == 1)


def test_run_without_start_document_is_not_converted(
    callback: ConversionCallback, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    documents = Recorder()
    run = composed(documents, frames=2, **as_metadata(RECIPE))
    run.stop()
    replay(documents.documents[1:], callback)
    seen = composed(callback)
    server.until(lambda: len(server.requests) == 1)
    assert [request.run_uid for request in server.requests.values()] == [seen.uid]
    assert "start document" in caplog.text
    assert run.uid in caplog.text


def test_all_frames_of_a_document_are_one_transaction(
    callback: ConversionCallback, server: FakeServer, tmp_path: Path
) -> None:
    server.answers.clear()
    run = composed(callback, frames=0)
    datum = run.resource(frame_per_point=100)(0)
    begun: list[str] = []
    writer = callback._spool._file.writer
    writer.set_trace_callback(lambda text: begun.append(text) if text.startswith("BEGIN") else None)
    run.event(pe_image=datum)
    writer.set_trace_callback(None)
    assert len(begun) == 1
    assert callback.waiting == 100
    server.answers.set()
    server.until(lambda: len(server.requests) == 100)


def test_request_has_the_metadata_of_the_frame(callback: ConversionCallback, server: FakeServer) -> None:
    run = ComposedRun(callback, sample_name="diamond", scan_id=7)
    run.stream(pe={"image": IMAGE, "total": NUMBER})
    run.event(pe_image=run.resource()(0), pe_total=np.float64(1.5))
    server.until(lambda: len(server.requests) == 1)
    (request,) = server.requests.values()
    assert request.metadata["shape"] == [48, 64]
    assert (request.metadata["sample_name"], request.metadata["scan_id"]) == ("diamond", 7)
    assert (request.metadata["pe_total"], request.metadata["timestamps"]) == (1.5, {"pe_total": 1.7e9})


def test_rejected_frame_is_not_counted_as_submitted(
    callback: ConversionCallback, converter: PETifConverter, server: FakeServer
) -> None:
    run = ComposedRun(callback)
    run.stream(pe={"image": IMAGE})
    datum = run.resource()
    server.rejected = {"/data/raw/sample/sample-00001.tif"}
    for point in range(3):
        run.event(pe_image=datum(point))
    run.stop()
    server.until(lambda: len(server.requests) == 2)
    callback._sender.close(5.0)
    assert converter.runs.submitted(run.uid) == 2
    assert converter.runs.set_aside_of(run.uid) == 1
    assert callback.waiting == 0


def test_invalid_template_affects_only_its_own_frames(callback: ConversionCallback, server: FakeServer) -> None:
    run = composed(callback, frames=0)
    good, bad = run.resource(filename="good"), run.resource(template="%s%s%s%s")
    run.event(pe_image=good(0))
    run.event(pe_image=bad(0))
    run.event(pe_image=good(1))
    server.until(lambda: len(server.requests) == 2)
    assert [Path(source).name for source in server.sources] == ["good-00000.tif", "good-00001.tif"]


def test_plan_continues_without_the_spool(
    run_engine: RunEngine, recorder: Recorder, callback: ConversionCallback, make_detector: MakeDetector
) -> None:
    run_engine.subscribe(callback)
    callback.close()
    run_engine(bp.count([make_detector()], num=2))
    (stop,) = recorder.of("stop")
    assert (stop["exit_status"], stop["num_events"]) == ("success", {"primary": 2})


def test_spooled_frames_are_sent_in_the_next_session(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, server: FakeServer,
    make_detector: MakeDetector, tmp_path: Path,
) -> None:  # fmt: skip
    server.go_down()
    first = ConversionCallback(converter, spool=tmp_path / "spool.sqlite")
    run_engine.subscribe(first)
    (uid,) = run_engine(bp.count([make_detector()], num=3, md=as_metadata(RECIPE)))
    first.close()
    assert server.requests == {}
    server.go_up()
    second = ConversionCallback(converter, spool=tmp_path / "spool.sqlite")
    server.until(lambda: len(server.requests) == 3)
    second.close()
    assert server.sources == [event["data"]["pe_full_file_name"] for event in recorder.of("event")]
    assert server.announced == [uid]
    assert {request.recipe for request in server.requests.values()} == {RECIPE}


def test_run_does_not_wait_for_a_hanging_server(
    run_engine: RunEngine, callback: ConversionCallback, server: FakeServer, make_detector: MakeDetector
) -> None:
    run_engine.subscribe(callback)
    server.answers.clear()
    run_engine(bp.count([make_detector()], num=3))
    assert server.requests == {}
    server.answers.set()
    server.until(lambda: len(server.requests) == 3)
    assert {thread.name for thread in server.callers} == {"petif-sender"}
    assert threading.current_thread() not in server.callers


def test_callback_is_kept_by_its_subscription(
    run_engine: RunEngine, converter: PETifConverter, server: FakeServer, make_detector: MakeDetector, tmp_path: Path
) -> None:
    callback = ConversionCallback(converter, spool=tmp_path / "spool.sqlite")
    reference = weakref.ref(callback)
    run_engine.subscribe(callback)
    del callback
    gc.collect()
    run_engine(bp.count([make_detector()], num=2))
    server.until(lambda: len(server.requests) == 2)
    alive = reference()
    assert alive is not None
    alive.close()


def test_waiting_frames_are_counted_and_stay_in_the_spool(
    converter: PETifConverter, server: FakeServer, tmp_path: Path
) -> None:
    server.go_down()
    callback = ConversionCallback(converter, spool=str(tmp_path / "spool.sqlite"))
    runs = [composed(callback, frames=2), composed(callback, frames=1)]
    assert [converter.runs.submitted(run.uid) for run in runs] == [2, 1]
    callback.close()
    spool = Spool(tmp_path / "spool.sqlite")
    assert [letter.run_uid for letter in spool.first(10)] == 3 * [runs[0].uid] + 2 * [runs[1].uid]
    spool.close()


def test_each_server_has_its_own_spool() -> None:
    addresses = ["tango://host:1/petif/converter/1#dbase=no", "tango://host:2/petif/converter/1#dbase=no"]
    first, second = map(default_spool_path, addresses)
    assert first != second
    assert first == default_spool_path(addresses[0])
    assert first.is_absolute()
