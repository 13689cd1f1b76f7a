"""Plans that convert files on disk, by a real RunEngine; the server and the catalogue are stand-ins."""

import threading
from pathlib import Path
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted

from petif_bluesky import ConversionCallback, ConversionPreprocessor, PETifConverter
from petif_bluesky.plans import FramesNotFoundError, convert_files, convert_folder, reprocess_run
from petif_bluesky.testing.fake_server import PATIENCE
from petif_bluesky.testing.reports import XDI, converted_beside
from tango_server.client.client import LinkDownError, RequestRejectedError
from tango_server.messages import FolderAnswer
from tango_server.recipe import Recipe
from tango_server.recipe.corrections import DARK_FACTS, Corrections
from tests.unit.documents import IMAGE, IN_STREAM, NAME, ComposedRun, Recorder
from tests.unit.lab import Lab

RECIPE = Recipe.preset("xdi", rotation=90, flip="1")
PATHS = ["/data/raw/b.tif", "/data/raw/a.tif", "/data/raw/c.tif"]


@pytest.fixture(params=["classic", pytest.param("async", marks=pytest.mark.long)])
def device_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """What every plan here is given."""
    return {"spool": str(tmp_path / "plans.sqlite"), "timeout": PATIENCE}


def told(recorder: Recorder, stream: str = "converted", run_uid: str | None = None) -> list[tuple[Any, ...]]:
    """What the events of a stream say of their frames."""
    keys = [f"converter_{name}" for name in ("raw", "stream", "seq_num")]
    return [tuple(event["data"][key] for key in keys) for event in recorder.stream(stream, run_uid)]


def numbers(recorder: Recorder) -> tuple[Any, ...]:
    (event,) = recorder.stream("conversion")
    return tuple(event["data"][f"converter_{name}"] for name in ("submitted", "converted", "failed", "drained"))


class Catalogued:
    """A run that brings its documents, as the clients of some catalogues do."""

    def __init__(self, run: ComposedRun) -> None:
        self.uid = run.uid
        self._documents = run.recorder.documents
        self.readers: list[str] = []

    def documents(self) -> Any:
        self.readers.append(threading.current_thread().name)
        yield from self._documents


@pytest.fixture
def raw_run() -> Catalogued:
    """Two events, whose second file has another name than the template says."""
    run = ComposedRun(lambda _name, _document: None, plan_name="count", sample_name="CeO2")
    run.stream(pe={"image": IMAGE, "full_file_name": NAME})
    datum = run.resource()
    for number, name in enumerate(("sample-00000.tif", "sample-00001-00001.tif")):
        run.event(pe_image=datum(number), pe_full_file_name=f"/data/raw/sample/{name}")
    run.stop()
    return Catalogued(run)


def test_messages_of_a_plan_are_in_order(
    converter: PETifConverter, options: dict[str, Any], run_engine: RunEngine
) -> None:
    messages: list[Any] = []
    run_engine.msg_hook = messages.append
    run_engine(convert_files(converter, PATHS[:1], recipe="xdi", **options))
    assert [message.command for message in messages] == [
        "wait_for", "subscribe", "open_run", "wait_for", "checkpoint", "trigger", "wait", "create", "read", "save",
        "checkpoint", "create", "read", "save", "close_run", "unsubscribe",
    ]  # fmt: skip


def test_convert_files_makes_a_run_with_every_file(options: dict[str, Any], lab: Lab) -> None:
    lab.server.refused.add("/data/raw/none.tif")
    (uid,) = lab.run_engine(
        convert_files(lab.converter, [*PATHS, PATHS[0]], recipe=RECIPE, md={"sample": "CeO2"}, **options)
    )
    lab.recorder.check()
    (start,) = lab.recorder.of("start")
    assert (start["uid"], start["plan_name"], start["num_frames"], start["sample"]) == (uid, "convert_files", 3, "CeO2")
    assert Recipe.model_validate(start["conversion"]["recipe"]) == RECIPE
    assert (start["conversion"]["recipe_source"], start["conversion"]["device"]) == ("run", lab.server.address)
    assert told(lab.recorder) == [(path, "", number) for number, path in enumerate(PATHS, start=1)]
    assert numbers(lab.recorder) == (3, 3, 0, True)
    assert lab.recorder.of("stop")[0]["exit_status"] == "success"
    assert [(request.recipe, request.run_uid, request.key) for request in lab.server.requests.values()] == [
        (RECIPE, uid, f"{uid}/{path}") for path in PATHS
    ]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (RECIPE, RECIPE),
        ("xdi-unsigned", Recipe.preset("xdi-unsigned")),
        ({"rotation": 180}, Recipe(rotation=180)),
        ({"preset": "xdi", "rotation": 90, "flip": 1}, RECIPE),
        (RECIPE.model_dump(mode="json"), RECIPE),
    ],
    ids=["Recipe", "preset", "fields", "fields-on-preset", "all-fields"],
)
def test_recipe_may_be_json(given: Any, meant: Recipe, options: dict[str, Any], lab: Lab) -> None:
    lab.run_engine(convert_files(lab.converter, PATHS, recipe=given, **options))
    assert {request.recipe for request in lab.server.requests.values()} == {meant}


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("xid", "'xid'.*xdi"),
        ({"rotation": 45}, "rotation.*45"),
        (45, "not a recipe: 45"),
        ({"output": {"mode": "in_place"}}, "allow_in_place"),
    ],
)
def test_invalid_recipe_is_refused_before_the_run(recipe: Any, words: str, options: dict[str, Any], lab: Lab) -> None:
    with pytest.raises(ValueError, match=words):
        lab.run_engine(convert_files(lab.converter, PATHS, recipe=recipe, **options))
    assert lab.recorder.documents == []


def test_recipe_of_the_converter_is_the_default(options: dict[str, Any], lab: Lab) -> None:
    lab.run_engine(convert_files(lab.converter, PATHS, **options))
    assert lab.recorder.of("start")[0]["conversion"]["recipe_source"] == "server"
    lab.converter.configure({"recipe": RECIPE})
    lab.run_engine(convert_files(lab.converter, PATHS, **options))
    assert [request.recipe for request in lab.server.requests.values()] == [XDI] * 3 + [RECIPE] * 3


def test_missing_files_are_reported_before_the_run(options: dict[str, Any], lab: Lab) -> None:
    lab.server.absent = {PATHS[1]}
    with pytest.raises(FramesNotFoundError, match=r"convert_files: 1 of 3 frames.*/data/raw/a\.tif"):
        lab.run_engine(convert_files(lab.converter, PATHS, **options))
    with pytest.raises(FramesNotFoundError, match=r"paths.*empty"):
        lab.run_engine(convert_files(lab.converter, [], **options))
    with pytest.raises(ValueError, match=r"paths: '/data/raw/a\.tif' is not a list"):
        lab.run_engine(convert_files(lab.converter, "/data/raw/a.tif", **options))
    with pytest.raises(ValueError, match="is not a PETifConverter"):
        lab.run_engine(convert_files("converter", PATHS, **options))
    assert lab.recorder.documents == []


def test_unreachable_server_ends_the_plan_before_the_run(options: dict[str, Any], lab: Lab) -> None:
    lab.server.go_down()
    with pytest.raises(LinkDownError, match="does not answer"):
        lab.run_engine(convert_files(lab.converter, PATHS, **{**options, "timeout": 0.1}))
    assert lab.recorder.documents == []


def test_plan_waits_for_a_server_that_comes_back(options: dict[str, Any], lab: Lab) -> None:
    lab.server.troubles.append(LinkDownError("it hangs"))
    lab.run_engine(convert_files(lab.converter, PATHS, **options))
    assert numbers(lab.recorder) == (3, 3, 0, True)


def test_late_frames_do_not_fail_the_plan(options: dict[str, Any], lab: Lab) -> None:
    lab.server.converts = False
    lab.run_engine(convert_files(lab.converter, PATHS, **{**options, "timeout": 0.3}))
    assert numbers(lab.recorder) == (3, 0, 0, False)
    assert lab.recorder.of("stop")[0]["exit_status"] == "success"


def test_plan_does_not_wait_for_a_rejected_request(options: dict[str, Any], lab: Lab) -> None:
    lab.server.rejected = {PATHS[0]}
    lab.run_engine(convert_files(lab.converter, PATHS, **options))
    assert numbers(lab.recorder) == (2, 2, 0, True)


def test_no_call_is_made_in_the_run_engines_thread(raw_run: Catalogued, options: dict[str, Any], lab: Lab) -> None:
    lab.server.folders["/data/raw"] = [FolderAnswer(frames=PATHS, more=False)]
    lab.run_engine(convert_files(lab.converter, PATHS, **options))
    lab.run_engine(convert_folder(lab.converter, "/data/raw", **options))
    lab.run_engine(reprocess_run(lab.converter, raw_run, recipe="xdi", **options))
    assert {thread.name for thread in lab.server.callers} == {"petif-find", "petif-sender", "petif-drain"}
    assert raw_run.readers == ["petif-find"]


def test_callback_and_plan_convert_each_file_once(
    callback: ConversionCallback, options: dict[str, Any], lab: Lab
) -> None:
    lab.run_engine.subscribe(callback)
    lab.run_engine.preprocessors.append(ConversionPreprocessor(lab.converter, recipe=Recipe(rotation=270)))
    lab.run_engine(convert_files(lab.converter, PATHS, recipe=RECIPE, **options))
    assert lab.server.sources == PATHS
    assert {request.recipe for request in lab.server.requests.values()} == {RECIPE}
    assert numbers(lab.recorder) == (3, 3, 0, True)


def test_outputs_are_not_taken_for_frames(callback: ConversionCallback, options: dict[str, Any], lab: Lab) -> None:
    shapes = dict(zip(PATHS, [(48, 32), (20, 30), (48, 32)], strict=True))
    lab.server.report = lambda request: converted_beside(request).model_copy(update={"shape": shapes[request.source]})
    lab.run_engine.subscribe(callback)
    (uid,) = lab.run_engine(convert_files(lab.converter, PATHS, **options))
    assert lab.recorder.of("stop")[0]["num_events"] == {"converted": 2, "converted-2": 1, "conversion": 1}
    assert lab.converter.runs.submitted(uid) == 3


def test_pause_repeats_nothing(options: dict[str, Any], lab: Lab) -> None:
    lab.server.converts = False
    paused: list[None] = []

    def pause() -> None:
        if not paused:
            paused.append(None)
            threading.Thread(target=lab.run_engine.request_pause, daemon=True).start()

    lab.server.on_follow = pause
    with pytest.raises(RunEngineInterrupted):
        lab.run_engine(convert_files(lab.converter, PATHS, recipe=RECIPE, **options))
    lab.server.converts = True
    lab.run_engine.resume()
    assert told(lab.recorder) == [(path, "", number) for number, path in enumerate(PATHS, start=1)]
    assert lab.server.sources == PATHS


@pytest.mark.parametrize("ending", ["resume", "abort"])
def test_plan_can_be_paused_while_files_are_checked(ending: str, options: dict[str, Any], lab: Lab) -> None:
    lab.server.answers.clear()
    pausing = threading.Thread(
        target=lambda: (lab.server.until(lambda: lab.server.attempts > 0), lab.run_engine.request_pause())
    )
    pausing.start()
    with pytest.raises(RunEngineInterrupted):
        lab.run_engine(convert_files(lab.converter, PATHS, **options))
    pausing.join(PATIENCE)
    if ending == "abort":
        lab.run_engine.abort()
        lab.server.answers.set()
        assert lab.recorder.documents == []
    else:
        threading.Timer(0.1, lab.server.answers.set).start()
        lab.run_engine.resume()
        assert [thread.name for thread in lab.server.callers].count("petif-find") == 1
        assert numbers(lab.recorder) == (3, 3, 0, True)


def test_folder_is_listed_by_the_server_in_any_number_of_pages(options: dict[str, Any], lab: Lab) -> None:
    listed = sorted(PATHS)
    lab.server.folders["/data/raw"] = [
        FolderAnswer(frames=listed[:2], more=True),
        FolderAnswer(frames=listed[2:], more=False),
    ]
    lab.run_engine(convert_folder(lab.converter, "/data/raw", recipe="xdi", **options))
    (start,) = lab.recorder.of("start")
    assert (start["plan_name"], start["folder"], start["num_frames"]) == ("convert_folder", "/data/raw", 3)
    assert told(lab.recorder) == [(path, "", number) for number, path in enumerate(listed, start=1)]


def test_empty_or_missing_folder_is_reported_before_the_run(options: dict[str, Any], lab: Lab) -> None:
    lab.server.folders["/data/raw"] = [FolderAnswer(frames=[], more=False)]
    with pytest.raises(FramesNotFoundError, match="/data/raw: no frames"):
        lab.run_engine(convert_folder(lab.converter, "/data/raw", **options))
    with pytest.raises(RequestRejectedError, match="folder"):
        lab.run_engine(convert_folder(lab.converter, "/data/else", **options))
    assert lab.recorder.documents == []


@pytest.mark.parametrize("by", ["client", "uid"])
def test_catalogued_run_is_reprocessed_with_provenance(
    by: str, raw_run: Catalogued, options: dict[str, Any], lab: Lab
) -> None:
    catalogue = {raw_run.uid: raw_run}
    which: dict[str, Any] = {"run": raw_run} if by == "client" else {"run": raw_run.uid, "catalogue": catalogue}
    (uid,) = lab.run_engine(reprocess_run(lab.converter, recipe={"preset": "xdi", "rotation": 90}, **which, **options))
    lab.recorder.check()
    (start,) = lab.recorder.of("start")
    assert (start["uid"], start["plan_name"], start["parent_uid"]) == (uid, "reprocess_run", raw_run.uid)
    assert told(lab.recorder) == [
        ("/data/raw/sample/sample-00000.tif", "primary", 1),
        ("/data/raw/sample/sample-00001-00001.tif", "primary", 2),
    ]
    requests = list(lab.server.requests.values())
    assert {request.run_uid for request in requests} == {uid}
    assert [request.metadata["sample_name"] for request in requests] == ["CeO2", "CeO2"]
    assert [request.recipe.output.on_existing for request in requests if request.recipe] == ["number", "number"]


def test_reprocessing_with_the_dark_of_the_run(options: dict[str, Any], lab: Lab) -> None:
    run = ComposedRun(lambda _name, _document: None)
    for stream in ("dark", "primary"):
        run.stream(stream, pe={"image": IMAGE})
        run.event(stream, pe_image=run.resource(filename=stream)(0))
    run.stop()
    recipe = {"preset": "xdi", "corrections": {"dark": "run", "mask": "/masters/mask.edf"}}
    lab.run_engine(reprocess_run(lab.converter, Catalogued(run), recipe=recipe, **options))
    (request,) = lab.server.requests.values()
    assert request.source == "/data/raw/sample/primary-00000.tif"
    assert request.recipe is not None
    assert request.recipe.corrections == Corrections(dark="/data/raw/sample/dark-00000.tif", mask="/masters/mask.edf")
    assert request.metadata[DARK_FACTS]["run_uid"] == run.uid
    assert lab.recorder.of("start")[0]["conversion"]["recipe"]["corrections"]["dark"] == "run"
    assert numbers(lab.recorder) == (1, 1, 0, True)


def test_reprocessed_frames_of_one_file_keep_their_index(options: dict[str, Any], lab: Lab) -> None:
    run = ComposedRun(lambda _name, _document: None)
    run.stream("fly", det={"image": {**IN_STREAM, "shape": [2, 48, 64]}})
    uri, where = "file://localhost/data/raw/a.h5", {"mimetype": "application/x-hdf5", "dataset": "/entry/data"}
    run.stream_resource("det_image", uri, "", **where)(0, 2, stream="fly")
    run.stop()
    (uid,) = lab.run_engine(reprocess_run(lab.converter, Catalogued(run), recipe=RECIPE, **options))
    source = "/data/raw/a.h5::/entry/data"
    assert [(request.source, request.frame, request.key) for request in lab.server.requests.values()] == [
        (source, frame, f"{uid}/det_image/{source}#{frame}") for frame in range(4)
    ]
    assert told(lab.recorder) == [(source, "fly", frame // 2 + 1) for frame in range(4)]
    events = lab.recorder.stream("converted")
    assert [event["data"]["converter_frame"] for event in events] == [0, 1, 2, 3]
    outputs = [event["data"]["converter_output"] for event in events]
    assert outputs == [f"/data/processed/a_{frame:05d}.tif" for frame in range(4)]
    lab.server.absent = {"/data/raw/a.h5"}
    with pytest.raises(FramesNotFoundError, match=r"1 of 1 files cannot be found: /data/raw/a\.h5: "):
        lab.run_engine(reprocess_run(lab.converter, Catalogued(run), recipe=RECIPE, **options))


def test_on_existing_of_the_recipe_is_respected(raw_run: Catalogued, options: dict[str, Any], lab: Lab) -> None:
    lab.run_engine(reprocess_run(lab.converter, raw_run, recipe={"output": {"on_existing": "replace_own"}}, **options))
    assert {request.recipe.output.on_existing for request in lab.server.requests.values() if request.recipe} == {
        "replace_own"
    }


def test_unusable_run_is_named_before_the_new_run(raw_run: Catalogued, options: dict[str, Any], lab: Lab) -> None:
    def refused(run: Any, kind: type[Exception], words: str, **given: Any) -> None:
        with pytest.raises(kind, match=words):
            lab.run_engine(reprocess_run(lab.converter, run, **{"recipe": "xdi", **given}, **options))

    empty = ComposedRun(lambda _name, _document: None)
    empty.stop()
    refused(Catalogued(empty), FramesNotFoundError, f"run {empty.uid}: no frames")
    refused("f00", FramesNotFoundError, "run f00: not in the catalogue", catalogue={})
    refused("f00", ValueError, "uid 'f00' without a catalogue")
    refused(raw_run, ValueError, "recipe: .*None", recipe=None)
    broken = Catalogued(empty)
    broken._documents = [*empty.recorder.documents[:1], ("event", {"descriptor": "unknown", "uid": "e", "data": {}})]
    refused(broken, FramesNotFoundError, f"run {empty.uid}: .*event document e")
    lab.server.absent = {"/data/raw/sample/sample-00000.tif"}
    refused(raw_run, FramesNotFoundError, f"run {raw_run.uid}: 1 of 2 frames cannot be found")
    assert lab.recorder.documents == []
