"""What the conversion adds to runs of a real RunEngine."""

import gc
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from ophyd.device import Staged
from ophyd.sim import SynAxis, TrivialFlyer

from petif_bluesky import (
    ConversionCallback,
    ConversionPreprocessor,
    PETifConverter,
    conversion_decorator,
    conversion_wrapper,
)
from petif_bluesky.server_poller import ServerState
from petif_bluesky.testing.fake_server import FakeServer
from petif_bluesky.testing.reports import XDI
from tango_server.recipe import Recipe
from tests.unit.documents import Recorder
from tests.unit.lab import Lab

RECIPE = Recipe.preset("xdi", rotation=90, flip="1")
OTHER = Recipe.preset("xdi-unsigned", rotation=180)
HEAVY = ("Msg", "RunReading", "RunReports", "DrainStatus", "ConvertedFrames", "_Run", "Timer", "generator")
IN_PLACE = Recipe.preset("xdi", output={"mode": "in_place"})
MakeDetector = Callable[..., Any]


@pytest.fixture(params=["classic", pytest.param("async", marks=pytest.mark.long)])
def device_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def subscribed(run_engine: RunEngine, recorder: Recorder, callback: ConversionCallback) -> None:
    """Documents go to the recorder and to the callback, in every test."""
    run_engine.subscribe(callback)


@pytest.fixture
def detector(make_detector: MakeDetector) -> Any:
    return make_detector()


def numbers(recorder: Recorder, run_uid: str | None = None) -> list[dict[str, Any]]:
    """The events of the stream `conversion`, without the prefix of their keys."""
    events = recorder.stream("conversion", run_uid)
    return [{key.removeprefix("converter_"): value for key, value in event["data"].items()} for event in events]


def counts(recorder: Recorder, run_uid: str | None = None) -> list[tuple[int, int, bool]]:
    return [(event["submitted"], event["converted"], event["drained"]) for event in numbers(recorder, run_uid)]


def check_the_end(recorder: Recorder, runs: int = 1) -> None:
    """The last event of each run is that of the stream `conversion`; documents are valid and nobody changed them."""
    recorder.check()
    stops = recorder.of("stop")
    assert len(stops) == runs
    for stop in stops:
        before = recorder.documents[: recorder.documents.index(("stop", stop))]
        assert len(recorder.stream("conversion", stop["run_start"])) == 1
        descriptors = {doc["uid"]: doc for name, doc in before if name == "descriptor"}
        events = [doc for name, doc in before if name == "event"]
        of_run = [event for event in events if descriptors[event["descriptor"]]["run_start"] == stop["run_start"]]
        assert descriptors[of_run[-1]["descriptor"]]["name"] == "conversion"


def test_start_document_has_recipe_device_and_server(lab: Lab) -> None:
    lab.run(bp.count([lab.detector], md={"sample": "CeO2"}), recipe=RECIPE)
    (start,) = lab.recorder.of("start")
    assert start["conversion"] == {
        "recipe": RECIPE.model_dump(mode="json"),
        "recipe_source": "run",
        "device": lab.server.address,
        "server_version": "1.2.3",
    }
    assert type(start["conversion"]) is dict, "or a dispatcher without this package can not unpickle it"
    assert Recipe.model_validate(start["conversion"]["recipe"]) == RECIPE
    assert (start["plan_name"], start["sample"]) == ("count", "CeO2")


def test_start_document_names_the_server_as_recipe_source(lab: Lab) -> None:
    lab.run(bp.count([lab.detector]))
    (start,) = lab.recorder.of("start")
    assert (start["conversion"]["recipe"], start["conversion"]["recipe_source"]) == (
        XDI.model_dump(mode="json"),
        "server",
    )
    assert [request.recipe for request in lab.server.requests.values()] == [XDI]


@pytest.mark.parametrize("given", [OTHER, OTHER.model_dump(mode="json")], ids=["Recipe", "json"])
def test_recipe_of_the_plan_overrides_that_of_the_wrapper(given: Any, lab: Lab) -> None:
    metadata = {"conversion": {"recipe": given, "note": "as last week"}}
    lab.run(bp.count([lab.detector], md=metadata), recipe=RECIPE)
    (start,) = lab.recorder.of("start")
    assert Recipe.model_validate(start["conversion"]["recipe"]) == OTHER
    assert start["conversion"]["recipe"] == OTHER.model_dump(mode="json")
    assert (start["conversion"]["recipe_source"], start["conversion"]["note"]) == ("run", "as last week")
    assert [request.recipe for request in lab.server.requests.values()] == [OTHER]
    assert metadata == {"conversion": {"recipe": given, "note": "as last week"}}


@pytest.mark.parametrize("state", [ServerState(), ServerState().lost("off")], ids=["not-asked-yet", "down"])
def test_run_succeeds_while_the_server_is_down(state: ServerState, lab: Lab) -> None:
    lab.converter.drain_timeout = 20.0 if state.down else 0.1
    lab.server.state = state
    lab.server.converts = False
    lab.run(bp.count([lab.detector], num=2), recipe=RECIPE)
    check_the_end(lab.recorder)
    assert lab.recorder.of("stop")[0]["exit_status"] == "success"
    assert counts(lab.recorder) == [(2, 0, False)]
    assert lab.recorder.of("start")[0]["conversion"]["server_version"] == ""


def test_statistics_of_a_run_are_its_last_event(lab: Lab) -> None:
    lab.run(bp.count([lab.detector], num=3), recipe=RECIPE)
    check_the_end(lab.recorder)
    assert numbers(lab.recorder) == [
        {
            "submitted": 3,
            "converted": 3,
            "skipped": 0,
            "failed": 0,
            "placeholders": 0,
            "conversion_time_total": 0.75,
            "conversion_time_mean": 0.25,
            "latency_median": 0.5,
            "latency_p95": 0.5,
            "drained": True,
            "problem": "",
            "used_recipe": RECIPE.model_dump_json(),
        }
    ]
    assert lab.recorder.of("stop")[0]["num_events"] == {"primary": 3, "converted": 3, "conversion": 1}
    assert lab.server.listeners == {}
    assert {thread.name for thread in lab.server.callers} == {"petif-sender", "petif-drain"}  # never the RunEngine's


def test_plan_without_a_run_is_unchanged(lab: Lab) -> None:
    messages: list[str] = []
    lab.run_engine.msg_hook = lambda msg: messages.append(msg.command)
    lab.run(bps.sleep(0))
    assert messages == ["sleep"]
    assert lab.recorder.documents == []


def test_failing_plan_has_its_statistics_and_its_error(lab: Lab) -> None:
    @bpp.stage_decorator([lab.detector])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.trigger_and_read([lab.detector])
        yield from bps.trigger_and_read([lab.detector])
        raise RuntimeError("the shutter is stuck")

    with pytest.raises(RuntimeError, match="the shutter is stuck"):
        lab.run(plan(), recipe=RECIPE)
    check_the_end(lab.recorder)
    assert counts(lab.recorder) == [(2, 2, True)]
    (stop,) = lab.recorder.of("stop")
    assert (stop["exit_status"], stop["reason"]) == ("fail", "the shutter is stuck")


@pytest.mark.parametrize(("ending", "exit_status"), [("abort", "abort"), ("stop", "success")])
def test_stopped_run_has_its_statistics(ending: str, exit_status: str, lab: Lab) -> None:
    with pytest.raises(RunEngineInterrupted):
        lab.run(bp.count([lab.detector], num=5, per_shot=pause_after_each_reading), recipe=RECIPE)
    getattr(lab.run_engine, ending)()
    check_the_end(lab.recorder)
    assert counts(lab.recorder) == [(1, 1, True)]
    assert lab.recorder.of("stop")[0]["exit_status"] == exit_status


def pause_after_each_reading(readables: Any) -> Any:
    yield from bps.one_shot(readables)
    yield from bps.pause()


def paused_while_draining(run_engine: RunEngine, server: FakeServer, plan: Any) -> None:
    """Run a plan until it waits for the reports of its frames, and pause it then."""
    server.converts = False
    draining = threading.Event()
    server.on_follow = draining.set

    def pause() -> None:
        assert draining.wait(10)
        run_engine.request_pause()

    pauser = threading.Thread(target=pause)
    pauser.start()
    with pytest.raises(RunEngineInterrupted):
        run_engine(plan)
    pauser.join(10)
    server.until(lambda: len(server.requests) > 0)
    server.converts = True


def test_pause_while_draining_repeats_no_point(tmp_path: Path, lab: Lab) -> None:
    plan = conversion_wrapper(bp.count([lab.detector], num=3), lab.converter, recipe=RECIPE)
    paused_while_draining(lab.run_engine, lab.server, plan)
    lab.server.until(lambda: len(lab.server.requests) == 3)
    lab.run_engine.resume()
    check_the_end(lab.recorder)
    assert [event["seq_num"] for event in lab.recorder.stream("primary")] == [1, 2, 3]
    assert len(list((tmp_path / "raw" / "sample").glob("*.tif"))) == 3
    assert counts(lab.recorder) == [(3, 3, True)]
    assert lab.recorder.of("stop")[0]["exit_status"] == "success"


def test_pause_between_points_repeats_no_point(lab: Lab) -> None:
    def pause_before_each_reading(readables: Any) -> Any:
        yield from bps.checkpoint()
        yield from bps.pause()
        yield from bps.trigger_and_read(readables)

    with pytest.raises(RunEngineInterrupted):
        lab.run(bp.count([lab.detector], 2, per_shot=pause_before_each_reading))
    with pytest.raises(RunEngineInterrupted):
        lab.run_engine.resume()
    lab.run_engine.resume()
    check_the_end(lab.recorder)
    assert lab.recorder.of("stop")[0]["num_events"] == {"primary": 2, "converted": 2, "conversion": 1}
    assert counts(lab.recorder) == [(2, 2, True)]
    assert len(lab.server.requests) == 2


def test_abort_while_draining_ends_the_run(lab: Lab) -> None:
    plan = conversion_wrapper(bp.count([lab.detector], num=2), lab.converter, recipe=RECIPE)
    lab.server.prompt = False
    paused_while_draining(lab.run_engine, lab.server, plan)
    lab.run_engine.abort("enough")
    assert lab.run_engine.state == "idle"
    (stop,) = lab.recorder.of("stop")
    assert (stop["exit_status"], stop["num_events"]["primary"]) == ("abort", 2)
    assert stop["num_events"]["conversion"] == 1
    assert counts(lab.recorder)[0][2] is False
    assert lab.server.listeners == {}
    lab.recorder.check()


def test_consecutive_runs_have_separate_statistics(lab: Lab) -> None:
    def plan() -> Any:
        yield from bp.count([lab.detector], num=1)
        yield from bp.count([lab.detector], num=3, md={"conversion": {"recipe": OTHER.model_dump(mode="json")}})

    first, second = lab.run(plan(), recipe=RECIPE)
    check_the_end(lab.recorder, runs=2)
    assert counts(lab.recorder, first) == [(1, 1, True)]
    assert counts(lab.recorder, second) == [(3, 3, True)]
    recipes = [Recipe.model_validate(start["conversion"]["recipe"]) for start in lab.recorder.of("start")]
    assert recipes == [RECIPE, OTHER]


@pytest.mark.parametrize("keys", [("a", "b"), (None, "b"), ("a", None)], ids=["keys", "outer-bare", "inner-bare"])
def test_interleaved_runs_have_separate_statistics(keys: tuple[str | None, str | None], lab: Lab) -> None:
    detectors = [lab.make_detector("pe1"), lab.make_detector("pe2")]

    def keyed(key: str | None, plan: Any) -> Any:
        return plan if key is None else bpp.set_run_key_wrapper(plan, key)

    @bpp.stage_decorator(detectors)
    def plan() -> Any:
        for key, recipe in zip(keys, (RECIPE, OTHER), strict=True):
            metadata = {"conversion": {"recipe": recipe.model_dump(mode="json")}}
            yield from keyed(key, bps.open_run(md=metadata))
        for index in (0, 1, 1, 0, 1):
            yield from keyed(keys[index], bps.trigger_and_read([detectors[index]]))
        for key in keys:
            yield from keyed(key, bps.close_run())

    first, second = lab.run(plan())
    check_the_end(lab.recorder, runs=2)
    assert counts(lab.recorder, first) == [(2, 2, True)]
    assert counts(lab.recorder, second) == [(3, 3, True)]
    assert {start["conversion"]["recipe_source"] for start in lab.recorder.of("start")} == {"run"}
    assert {(request.run_uid, request.recipe) for request in lab.server.requests.values()} == {
        (first, RECIPE),
        (second, OTHER),
    }


def test_copied_metadata_are_not_taken_for_another_wrapper(lab: Lab) -> None:
    lab.run(bp.count([lab.detector]), recipe=RECIPE)
    (first,) = lab.recorder.of("start")
    lab.run(bp.count([lab.detector], md={"conversion": first["conversion"]}))
    _, again = lab.recorder.of("start")
    assert again["conversion"] == first["conversion"]
    assert len(lab.recorder.stream("conversion", again["uid"])) == 1


def test_second_wrapper_has_no_effect(lab: Lab) -> None:
    lab.run_engine.preprocessors.append(ConversionPreprocessor(lab.converter, recipe=RECIPE))
    lab.run_engine.preprocessors.append(ConversionPreprocessor(lab.converter, recipe=RECIPE))
    lab.run(bp.count([lab.detector], num=2), recipe=OTHER)
    check_the_end(lab.recorder)
    assert counts(lab.recorder) == [(2, 2, True)]
    (start,) = lab.recorder.of("start")
    assert Recipe.model_validate(start["conversion"]["recipe"]) == OTHER


def test_partly_wrapped_plan_can_be_wrapped_again(lab: Lab) -> None:
    results: list[Any] = []

    def plan() -> Any:
        yield from bp.count([lab.detector], num=1)
        results.append((yield from conversion_wrapper(bp.count([lab.detector], num=2), lab.converter, recipe=OTHER)))

    first, second = lab.run(plan(), recipe=RECIPE)
    check_the_end(lab.recorder, runs=2)
    assert results == [second]
    assert counts(lab.recorder, first) == [(1, 1, True)]
    assert counts(lab.recorder, second) == [(2, 2, True)]


def test_preprocessor_of_the_run_engine_wraps_every_plan(lab: Lab) -> None:
    lab.run_engine.preprocessors.append(ConversionPreprocessor(lab.converter, recipe=RECIPE, stream="petif"))
    for frames in (1, 2):
        lab.run_engine(bp.count([lab.detector], num=frames))
    assert [event["data"]["converter_converted"] for event in lab.recorder.stream("petif")] == [1, 2]
    assert all(start["conversion"]["recipe"] == RECIPE.model_dump(mode="json") for start in lab.recorder.of("start"))
    lab.run(bp.count([lab.detector]), stream="petif")  # which goes before that of the preprocessor
    assert lab.recorder.of("stop")[-1]["num_events"] == {"primary": 1, "converted": 1, "petif": 1}


def test_decorated_plan_keeps_its_name_and_its_result(lab: Lab) -> None:
    @conversion_decorator(lab.converter, recipe=RECIPE)
    def tomography(frames: int, *, note: str) -> Any:
        """Turn and look."""
        yield from bp.count([lab.detector], num=frames, md={"note": note})
        return frames, note

    results: list[Any] = []

    def plan() -> Any:
        results.append((yield from tomography(2, note="first")))

    lab.run_engine(plan())
    assert results == [(2, "first")]
    assert (tomography.__name__, tomography.__doc__) == ("tomography", "Turn and look.")
    assert lab.recorder.of("start")[0]["note"] == "first"
    assert counts(lab.recorder) == [(2, 2, True)]
    lab.run_engine(tomography(1, note="second"))
    check_the_end(lab.recorder, runs=2)


def wrap(converter: PETifConverter, recipe: Recipe) -> object:
    return conversion_wrapper(bp.count([]), converter, recipe=recipe)


def decorate(converter: PETifConverter, recipe: Recipe) -> object:
    return conversion_decorator(converter, recipe=recipe)


def preprocess(converter: PETifConverter, recipe: Recipe) -> object:
    return ConversionPreprocessor(converter, recipe=recipe)


@pytest.mark.parametrize("use", [wrap, decorate, preprocess])
def test_in_place_is_refused_without_allow_in_place(
    use: Callable[[PETifConverter, Recipe], object], converter: PETifConverter
) -> None:
    with pytest.raises(ValueError, match=r"recipe\.output.*in place") as refusal:
        use(converter, IN_PLACE)
    assert "allow_in_place" in str(refusal.value)
    allowed = Recipe.preset("xdi", output={"mode": "in_place", "allow_in_place": True})
    assert use(converter, allowed) is not None


def test_none_as_conversion_metadata_is_ignored(lab: Lab) -> None:
    lab.run(bp.count([lab.detector], md={"conversion": None}), recipe=RECIPE)
    check_the_end(lab.recorder)
    assert Recipe.model_validate(lab.recorder.of("start")[0]["conversion"]["recipe"]) == RECIPE


@pytest.mark.parametrize("value", ["by hand", 5], ids=["word", "number"])
def test_invalid_conversion_metadata_are_refused_before_the_run(value: Any, lab: Lab) -> None:
    with pytest.raises(ValueError, match=f"conversion.*{value!r}.*dict"):
        lab.run(bp.count([lab.detector], md={"conversion": value}), recipe=RECIPE)
    assert lab.recorder.documents == []
    assert lab.run_engine.state == "idle"
    assert lab.detector._staged == Staged.no


class StuckError(Exception):
    """What went wrong at the lab."""


@pytest.mark.parametrize("wait", ["run", "point"])
@pytest.mark.parametrize("key", [None, "a"])
def test_run_left_open_by_its_plan_has_its_statistics(key: str | None, wait: Any, lab: Lab) -> None:
    @bpp.stage_decorator([lab.detector])
    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.trigger_and_read([lab.detector])
        raise StuckError("the shutter is stuck")

    keyed = plan() if key is None else bpp.set_run_key_wrapper(plan(), key)
    with pytest.raises(StuckError, match="the shutter is stuck"):
        lab.run(keyed, recipe=RECIPE, wait=wait)
    check_the_end(lab.recorder)
    assert counts(lab.recorder) == [(1, 1, True)]
    assert len(lab.recorder.stream("converted")) == 1
    assert lab.recorder.of("stop")[0]["exit_status"] == "fail"


@pytest.mark.parametrize("closed", [False, True], ids=["left-open", "closed-at-last"])
def test_plan_failing_within_an_event_keeps_its_error(closed: bool, lab: Lab) -> None:
    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.create()
        yield from bps.read(lab.detector)
        raise StuckError("the shutter is stuck")

    with pytest.raises(StuckError, match="the shutter is stuck"):
        lab.run(bpp.finalize_wrapper(plan(), bps.close_run()) if closed else plan())
    check_the_end(lab.recorder)
    assert lab.recorder.of("stop")[0]["num_events"] == {"conversion": 1}


def test_runs_left_open_have_separate_statistics(lab: Lab) -> None:
    @bpp.stage_decorator([lab.detector])
    def plan() -> Any:
        for key, frames in (("a", 1), ("b", 2)):
            yield from bpp.set_run_key_wrapper(bps.open_run(), key)
            for _ in range(frames):
                yield from bpp.set_run_key_wrapper(bps.trigger_and_read([lab.detector]), key)
        raise StuckError

    with pytest.raises(StuckError):
        lab.run(plan())
    check_the_end(lab.recorder, runs=2)
    uids = [start["uid"] for start in lab.recorder.of("start")]
    assert [counts(lab.recorder, uid) for uid in uids] == [[(1, 1, True)], [(2, 2, True)]]


def test_halted_run_has_no_statistics_and_frees_the_run_engine(lab: Lab) -> None:
    with pytest.raises(RunEngineInterrupted):
        lab.run(bp.count([lab.detector], num=5, per_shot=pause_after_each_reading))
    lab.run_engine.halt()
    assert lab.run_engine.state == "idle"
    assert lab.recorder.of("stop")[0]["num_events"] == {"primary": 1}


@pytest.mark.parametrize("wait", ["run", "point"])
def test_no_checkpoint_within_an_event_of_another_run(wait: Any, lab: Lab) -> None:
    other = lab.make_detector("other")

    def keyed(key: str, plan: Any) -> Any:
        return bpp.set_run_key_wrapper(plan, key)

    @bpp.stage_decorator([lab.detector, other])
    def plan() -> Any:
        yield from keyed("a", bps.open_run())
        yield from keyed("b", bps.open_run())
        yield from bps.trigger(other, wait=True)
        yield from keyed("a", bps.create())
        yield from keyed("a", bps.read(other))
        yield from keyed("b", bps.trigger_and_read([lab.detector]))
        yield from keyed("b", bps.close_run())
        yield from keyed("a", bps.save())
        yield from keyed("a", bps.close_run())

    first, second = lab.run(plan(), wait=wait)
    check_the_end(lab.recorder, runs=2)
    assert [counts(lab.recorder, uid) for uid in (first, second)] == [[(1, 1, True)], [(1, 1, True)]]


@pytest.mark.parametrize("wait", ["run", "point"])
@pytest.mark.parametrize("outermost", [True, False])
def test_works_with_supplemental_data(outermost: bool, wait: Any, lab: Lab) -> None:
    supplemental = bpp.SupplementalData(baseline=[SynAxis(name="motor")])
    preprocessors = [supplemental, ConversionPreprocessor(lab.converter, recipe=RECIPE, wait=wait)]
    lab.run_engine.preprocessors += preprocessors if outermost else preprocessors[::-1]
    lab.run_engine(bp.count([lab.detector], num=2))
    lab.recorder.check()
    assert lab.recorder.of("stop")[0]["num_events"] == {
        "primary": 2,
        "converted": 2,
        "conversion": 1,
        "baseline": 2,
    }
    assert counts(lab.recorder) == [(2, 2, True)]


def test_plan_without_checkpoints_gets_none(lab: Lab) -> None:
    messages: list[str] = []
    lab.run_engine.msg_hook = lambda msg: messages.append(msg.command)

    @bpp.stage_decorator([lab.detector])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.clear_checkpoint()
        yield from bps.trigger_and_read([lab.detector])

    lab.run(plan(), wait="point")
    assert "checkpoint" not in messages


@pytest.mark.long
@pytest.mark.parametrize(("wait", "points"), [("run", 1), ("point", 1), ("point", 2)])
def test_long_call_keeps_no_reports_in_memory(wait: Any, points: int, lab: Lab) -> None:
    held: list[Counter[str]] = []

    def session() -> Any:
        for _ in range(12):
            yield from bp.count([lab.detector], num=points)
            gc.collect()
            held.append(Counter(type(each).__name__ for each in gc.get_objects()))

    lab.run(session(), wait=wait)
    grown = held[-1] - held[3]
    assert not {name: count for name, count in grown.items() if name in HEAVY and count > 2}


def test_dry_run_of_a_plan_needs_no_run_engine(converter: PETifConverter, detector: Any) -> None:
    commands = [msg.command for msg in conversion_wrapper(bp.count([detector], num=2), converter, wait="point")]
    assert commands.count("save") == 2 + 1
    assert commands[-1] == "unstage"


@pytest.mark.parametrize("wait", ["run", "point"])
def test_fly_scan_has_its_statistics(wait: Any, lab: Lab) -> None:
    flyer = TrivialFlyer()
    lab.run(bp.fly([flyer]), wait=wait)
    lab.recorder.check()
    assert counts(lab.recorder) == [(0, 0, True)]
    assert lab.recorder.of("stop")[0]["exit_status"] == "success"
