"""What the conversion adds to runs of a real RunEngine."""

import threading
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
from petif_bluesky.link import ServerState
from petif_bluesky.testing.fake_link import FakeLink
from petif_bluesky.testing.reports import XDI
from tango_server.recipe import Recipe
from tests.unit.documents import Recorder

RECIPE = Recipe.preset("xdi", rotation=90, flip="1")
OTHER = Recipe.preset("xdi-unsigned", rotation=180)
IN_PLACE = Recipe.preset("xdi", output={"mode": "in_place"})
MakeDetector = Callable[..., Any]


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


def test_start_document_tells_recipe_device_and_server(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, link: FakeLink, detector: Any
) -> None:
    run_engine(conversion_wrapper(bp.count([detector], md={"sample": "CeO2"}), converter, recipe=RECIPE))
    (start,) = recorder.of("start")
    assert start["conversion"] == {
        "recipe": RECIPE.model_dump(mode="json"),
        "recipe_source": "run",
        "device": link.address,
        "server_version": "1.2.3",
    }
    assert Recipe.model_validate(start["conversion"]["recipe"]) == RECIPE
    assert (start["plan_name"], start["sample"]) == ("count", "CeO2")


def test_without_a_recipe_the_start_document_says_that_it_is_the_servers(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, link: FakeLink, detector: Any
) -> None:
    run_engine(conversion_wrapper(bp.count([detector]), converter))
    (start,) = recorder.of("start")
    assert (start["conversion"]["recipe"], start["conversion"]["recipe_source"]) == (
        XDI.model_dump(mode="json"),
        "server",
    )
    assert [request.recipe for request in link.requests.values()] == [XDI]


@pytest.mark.parametrize("given", [OTHER, OTHER.model_dump(mode="json")], ids=["Recipe", "json"])
def test_recipe_of_the_plan_goes_before_that_of_the_wrapper(
    given: Any, run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, link: FakeLink, detector: Any
) -> None:
    metadata = {"conversion": {"recipe": given, "note": "as last week"}}
    run_engine(conversion_wrapper(bp.count([detector], md=metadata), converter, recipe=RECIPE))
    (start,) = recorder.of("start")
    assert Recipe.model_validate(start["conversion"]["recipe"]) == OTHER
    assert start["conversion"]["recipe"] == OTHER.model_dump(mode="json")
    assert (start["conversion"]["recipe_source"], start["conversion"]["note"]) == ("run", "as last week")
    assert [request.recipe for request in link.requests.values()] == [OTHER]
    assert metadata == {"conversion": {"recipe": given, "note": "as last week"}}


@pytest.mark.parametrize("state", [ServerState(), ServerState().lost("off")], ids=["not-asked-yet", "down"])
def test_run_goes_well_though_the_server_does_not(
    state: ServerState,
    run_engine: RunEngine,
    recorder: Recorder,
    converter: PETifConverter,
    link: FakeLink,
    detector: Any,
) -> None:
    converter.drain_timeout = 20.0 if state.down else 0.1
    link.server = state
    link.converts = False
    run_engine(conversion_wrapper(bp.count([detector], num=2), converter, recipe=RECIPE))
    check_the_end(recorder)
    assert recorder.of("stop")[0]["exit_status"] == "success"
    assert counts(recorder) == [(2, 0, False)]
    assert recorder.of("start")[0]["conversion"]["server_version"] == ""


def test_statistics_of_a_run_are_its_last_event(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, link: FakeLink, detector: Any
) -> None:
    run_engine(conversion_wrapper(bp.count([detector], num=3), converter, recipe=RECIPE))
    check_the_end(recorder)
    assert numbers(recorder) == [
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
        }
    ]
    assert recorder.of("stop")[0]["num_events"] == {"primary": 3, "converted": 3, "conversion": 1}
    assert link.listeners == {}


def test_nothing_waits_for_the_network_in_the_run_engines_threads(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, link: FakeLink, detector: Any
) -> None:
    run_engine(conversion_wrapper(bp.count([detector], num=3), converter, recipe=RECIPE))
    assert {thread.name for thread in link.callers} == {"petif-sender", "petif-drain"}


def test_stream_may_have_another_name(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, detector: Any
) -> None:
    run_engine(conversion_wrapper(bp.count([detector]), converter, stream="petif"))
    assert recorder.of("stop")[0]["num_events"] == {"primary": 1, "converted": 1, "petif": 1}


def test_plan_without_a_run_is_left_as_it_is(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, link: FakeLink
) -> None:
    messages: list[str] = []
    run_engine.msg_hook = lambda msg: messages.append(msg.command)
    run_engine(conversion_wrapper(bps.sleep(0), converter))
    assert messages == ["sleep"]
    assert recorder.documents == []


def test_failing_plan_has_its_statistics_and_its_error(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, detector: Any
) -> None:
    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.trigger_and_read([detector])
        yield from bps.trigger_and_read([detector])
        raise RuntimeError("the shutter is stuck")

    with pytest.raises(RuntimeError, match="the shutter is stuck"):
        run_engine(conversion_wrapper(plan(), converter, recipe=RECIPE))
    check_the_end(recorder)
    assert counts(recorder) == [(2, 2, True)]
    (stop,) = recorder.of("stop")
    assert (stop["exit_status"], stop["reason"]) == ("fail", "the shutter is stuck")


@pytest.mark.parametrize(("ending", "exit_status"), [("abort", "abort"), ("stop", "success")])
def test_run_that_is_ended_early_has_its_statistics(
    ending: str,
    exit_status: str,
    run_engine: RunEngine,
    recorder: Recorder,
    converter: PETifConverter,
    detector: Any,
) -> None:
    def pause_after_each_reading(readables: Any) -> Any:
        yield from bps.one_shot(readables)
        yield from bps.pause()

    with pytest.raises(RunEngineInterrupted):
        run_engine(
            conversion_wrapper(bp.count([detector], num=5, per_shot=pause_after_each_reading), converter, recipe=RECIPE)
        )
    getattr(run_engine, ending)()
    check_the_end(recorder)
    assert counts(recorder) == [(1, 1, True)]
    assert recorder.of("stop")[0]["exit_status"] == exit_status


def paused_while_draining(run_engine: RunEngine, link: FakeLink, plan: Any) -> None:
    """Run a plan until it waits for the reports of its frames, and pause it then."""
    link.converts = False
    draining = threading.Event()
    link.on_follow = draining.set

    def pause() -> None:
        assert draining.wait(10)
        run_engine.request_pause()

    pauser = threading.Thread(target=pause)
    pauser.start()
    with pytest.raises(RunEngineInterrupted):
        run_engine(plan)
    pauser.join(10)
    link.until(lambda: len(link.requests) > 0)
    link.converts = True


def test_pause_while_draining_takes_no_point_again(
    run_engine: RunEngine,
    recorder: Recorder,
    converter: PETifConverter,
    link: FakeLink,
    detector: Any,
    tmp_path: Path,
) -> None:
    plan = conversion_wrapper(bp.count([detector], num=3), converter, recipe=RECIPE)
    paused_while_draining(run_engine, link, plan)
    link.until(lambda: len(link.requests) == 3)
    run_engine.resume()
    check_the_end(recorder)
    assert [event["seq_num"] for event in recorder.stream("primary")] == [1, 2, 3]
    assert len(list((tmp_path / "raw" / "sample").glob("*.tif"))) == 3
    assert counts(recorder) == [(3, 3, True)]
    assert recorder.of("stop")[0]["exit_status"] == "success"


def test_pause_between_points_takes_no_point_again(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, link: FakeLink, detector: Any
) -> None:
    def pause_before_each_reading(readables: Any) -> Any:
        yield from bps.checkpoint()
        yield from bps.pause()
        yield from bps.trigger_and_read(readables)

    with pytest.raises(RunEngineInterrupted):
        run_engine(conversion_wrapper(bp.count([detector], 2, per_shot=pause_before_each_reading), converter))
    with pytest.raises(RunEngineInterrupted):
        run_engine.resume()
    run_engine.resume()
    check_the_end(recorder)
    assert recorder.of("stop")[0]["num_events"] == {"primary": 2, "converted": 2, "conversion": 1}
    assert counts(recorder) == [(2, 2, True)]
    assert len(link.requests) == 2


def test_abort_while_draining_ends_the_run(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, link: FakeLink, detector: Any
) -> None:
    plan = conversion_wrapper(bp.count([detector], num=2), converter, recipe=RECIPE)
    link.prompt = False
    paused_while_draining(run_engine, link, plan)
    run_engine.abort("enough")
    assert run_engine.state == "idle"
    (stop,) = recorder.of("stop")
    assert (stop["exit_status"], stop["num_events"]["primary"]) == ("abort", 2)
    assert stop["num_events"]["conversion"] == 1
    assert counts(recorder)[0][2] is False
    assert link.listeners == {}
    recorder.check()


def test_runs_after_one_another_each_have_their_own_numbers(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, detector: Any
) -> None:
    def plan() -> Any:
        yield from bp.count([detector], num=1)
        yield from bp.count([detector], num=3, md={"conversion": {"recipe": OTHER.model_dump(mode="json")}})

    first, second = run_engine(conversion_wrapper(plan(), converter, recipe=RECIPE))
    check_the_end(recorder, runs=2)
    assert counts(recorder, first) == [(1, 1, True)]
    assert counts(recorder, second) == [(3, 3, True)]
    recipes = [Recipe.model_validate(start["conversion"]["recipe"]) for start in recorder.of("start")]
    assert recipes == [RECIPE, OTHER]


@pytest.mark.parametrize("keys", [("a", "b"), (None, "b"), ("a", None)], ids=["keys", "outer-bare", "inner-bare"])
def test_interleaved_runs_each_have_their_own_numbers(
    keys: tuple[str | None, str | None],
    run_engine: RunEngine,
    recorder: Recorder,
    converter: PETifConverter,
    link: FakeLink,
    make_detector: MakeDetector,
) -> None:
    detectors = [make_detector("pe1"), make_detector("pe2")]

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

    first, second = run_engine(conversion_wrapper(plan(), converter))
    check_the_end(recorder, runs=2)
    assert counts(recorder, first) == [(2, 2, True)]
    assert counts(recorder, second) == [(3, 3, True)]
    assert {start["conversion"]["recipe_source"] for start in recorder.of("start")} == {"run"}
    assert {(request.run_uid, request.recipe) for request in link.requests.values()} == {
        (first, RECIPE),
        (second, OTHER),
    }


def test_wrapping_twice_is_wrapping_once(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, link: FakeLink, detector: Any
) -> None:
    run_engine.preprocessors.append(ConversionPreprocessor(converter, recipe=RECIPE))
    run_engine.preprocessors.append(ConversionPreprocessor(converter, recipe=RECIPE))
    run_engine(conversion_wrapper(bp.count([detector], num=2), converter, recipe=OTHER))
    check_the_end(recorder)
    assert counts(recorder) == [(2, 2, True)]
    (start,) = recorder.of("start")
    assert Recipe.model_validate(start["conversion"]["recipe"]) == OTHER


def test_plan_of_which_only_a_part_is_wrapped_twice(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, detector: Any
) -> None:
    def plan() -> Any:
        yield from bp.count([detector], num=1)
        yield from conversion_wrapper(bp.count([detector], num=2), converter, recipe=OTHER)

    first, second = run_engine(conversion_wrapper(plan(), converter, recipe=RECIPE))
    check_the_end(recorder, runs=2)
    assert counts(recorder, first) == [(1, 1, True)]
    assert counts(recorder, second) == [(2, 2, True)]


def test_preprocessor_of_the_run_engine_wraps_every_plan(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, detector: Any
) -> None:
    run_engine.preprocessors.append(ConversionPreprocessor(converter, recipe=RECIPE, stream="petif"))
    for frames in (1, 2):
        run_engine(bp.count([detector], num=frames))
    assert [event["data"]["converter_converted"] for event in recorder.stream("petif")] == [1, 2]
    assert all(start["conversion"]["recipe"] == RECIPE.model_dump(mode="json") for start in recorder.of("start"))


def test_decorated_plan_keeps_its_name_and_its_result(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, detector: Any
) -> None:
    @conversion_decorator(converter, recipe=RECIPE)
    def tomography(frames: int, *, note: str) -> Any:
        """Turn and look."""
        yield from bp.count([detector], num=frames, md={"note": note})
        return frames, note

    results: list[Any] = []

    def plan() -> Any:
        results.append((yield from tomography(2, note="first")))

    run_engine(plan())
    assert results == [(2, "first")]
    assert (tomography.__name__, tomography.__doc__) == ("tomography", "Turn and look.")
    assert recorder.of("start")[0]["note"] == "first"
    assert counts(recorder) == [(2, 2, True)]
    run_engine(tomography(1, note="second"))
    check_the_end(recorder, runs=2)


def test_wrapped_plan_returns_what_the_plan_returns(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, detector: Any
) -> None:
    results: list[Any] = []

    def plan() -> Any:
        results.append((yield from conversion_wrapper(bp.count([detector]), converter)))

    (uid,) = run_engine(plan())
    assert results == [uid] == [document["uid"] for document in recorder.of("start")]


def wrap(converter: PETifConverter, recipe: Recipe) -> object:
    return conversion_wrapper(bp.count([]), converter, recipe=recipe)


def decorate(converter: PETifConverter, recipe: Recipe) -> object:
    return conversion_decorator(converter, recipe=recipe)


def preprocess(converter: PETifConverter, recipe: Recipe) -> object:
    return ConversionPreprocessor(converter, recipe=recipe)


@pytest.mark.parametrize("use", [wrap, decorate, preprocess])
def test_in_place_is_refused_at_once_unless_it_is_really_meant(
    use: Callable[[PETifConverter, Recipe], object], converter: PETifConverter
) -> None:
    with pytest.raises(ValueError, match=r"recipe.output: found in_place; expected new files") as refusal:
        use(converter, IN_PLACE)
    assert "allow_in_place" in str(refusal.value)
    allowed = Recipe.preset("xdi", output={"mode": "in_place", "allow_in_place": True})
    assert use(converter, allowed) is not None


def test_none_under_our_key_is_nothing(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, detector: Any
) -> None:
    run_engine(conversion_wrapper(bp.count([detector], md={"conversion": None}), converter, recipe=RECIPE))
    check_the_end(recorder)
    assert Recipe.model_validate(recorder.of("start")[0]["conversion"]["recipe"]) == RECIPE


@pytest.mark.parametrize("value", ["by hand", 5], ids=["word", "number"])
def test_other_metadata_under_our_key_are_refused_before_the_run_opens(
    value: Any, run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, detector: Any
) -> None:
    with pytest.raises(ValueError, match=f"found {value!r}; expected a dict"):
        run_engine(conversion_wrapper(bp.count([detector], md={"conversion": value}), converter, recipe=RECIPE))
    assert recorder.documents == []
    assert run_engine.state == "idle"
    assert detector._staged == Staged.no


def test_a_plan_that_fails_within_an_event_says_so_itself(
    run_engine: RunEngine, converter: PETifConverter, detector: Any
) -> None:
    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.create()
        yield from bps.read(detector)
        raise ValueError("the shutter is stuck")

    with pytest.raises(ValueError, match="the shutter is stuck"):
        run_engine(conversion_wrapper(bpp.finalize_wrapper(plan(), bps.close_run()), converter))


class StuckError(Exception):
    """What went wrong at the beamline."""


@pytest.mark.parametrize("wait", ["run", "point"])
@pytest.mark.parametrize("key", [None, "a"])
def test_run_that_its_plan_leaves_open_has_its_statistics(
    key: str | None, wait: Any, run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, detector: Any
) -> None:
    @bpp.stage_decorator([detector])
    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.trigger_and_read([detector])
        raise StuckError("the shutter is stuck")

    keyed = plan() if key is None else bpp.set_run_key_wrapper(plan(), key)
    with pytest.raises(StuckError, match="the shutter is stuck"):
        run_engine(conversion_wrapper(keyed, converter, recipe=RECIPE, wait=wait))
    check_the_end(recorder)
    assert counts(recorder) == [(1, 1, True)]
    assert len(recorder.stream("converted")) == 1
    assert recorder.of("stop")[0]["exit_status"] == "fail"


def test_run_that_is_left_open_within_an_event_has_its_statistics_and_the_error_of_the_plan(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, detector: Any
) -> None:
    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.create()
        yield from bps.read(detector)
        raise StuckError("the shutter is stuck")

    with pytest.raises(StuckError, match="the shutter is stuck"):
        run_engine(conversion_wrapper(plan(), converter))
    check_the_end(recorder)
    assert recorder.of("stop")[0]["num_events"] == {"conversion": 1}


def test_runs_that_are_left_open_each_have_their_own_numbers(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, detector: Any
) -> None:
    @bpp.stage_decorator([detector])
    def plan() -> Any:
        for key, frames in (("a", 1), ("b", 2)):
            yield from bpp.set_run_key_wrapper(bps.open_run(), key)
            for _ in range(frames):
                yield from bpp.set_run_key_wrapper(bps.trigger_and_read([detector]), key)
        raise StuckError

    with pytest.raises(StuckError):
        run_engine(conversion_wrapper(plan(), converter))
    check_the_end(recorder, runs=2)
    uids = [start["uid"] for start in recorder.of("start")]
    assert [counts(recorder, uid) for uid in uids] == [[(1, 1, True)], [(2, 2, True)]]


def test_halted_run_has_none_and_the_run_engine_is_free(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, detector: Any
) -> None:
    def pause_after_each_reading(readables: Any) -> Any:
        yield from bps.one_shot(readables)
        yield from bps.pause()

    with pytest.raises(RunEngineInterrupted):
        run_engine(conversion_wrapper(bp.count([detector], num=5, per_shot=pause_after_each_reading), converter))
    run_engine.halt()
    assert run_engine.state == "idle"
    assert recorder.of("stop")[0]["num_events"] == {"primary": 1}


@pytest.mark.parametrize("wait", ["run", "point"])
def test_run_that_closes_within_an_event_of_another_takes_no_checkpoint(
    wait: Any,
    run_engine: RunEngine,
    recorder: Recorder,
    converter: PETifConverter,
    detector: Any,
    make_detector: MakeDetector,
) -> None:
    other = make_detector("other")

    def keyed(key: str, plan: Any) -> Any:
        return bpp.set_run_key_wrapper(plan, key)

    @bpp.stage_decorator([detector, other])
    def plan() -> Any:
        yield from keyed("a", bps.open_run())
        yield from keyed("b", bps.open_run())
        yield from bps.trigger(other, wait=True)
        yield from keyed("a", bps.create())
        yield from keyed("a", bps.read(other))
        yield from keyed("b", bps.trigger_and_read([detector]))
        yield from keyed("b", bps.close_run())
        yield from keyed("a", bps.save())
        yield from keyed("a", bps.close_run())

    first, second = run_engine(conversion_wrapper(plan(), converter, wait=wait))
    check_the_end(recorder, runs=2)
    assert [counts(recorder, uid) for uid in (first, second)] == [[(1, 1, True)], [(1, 1, True)]]


@pytest.mark.parametrize("wait", ["run", "point"])
@pytest.mark.parametrize("outermost", [True, False])
def test_supplemental_data_go_well_with_it(
    outermost: bool, wait: Any, run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, detector: Any
) -> None:
    supplemental = bpp.SupplementalData(baseline=[SynAxis(name="motor")])
    preprocessors = [supplemental, ConversionPreprocessor(converter, recipe=RECIPE, wait=wait)]
    run_engine.preprocessors += preprocessors if outermost else preprocessors[::-1]
    run_engine(bp.count([detector], num=2))
    recorder.check()
    assert recorder.of("stop")[0]["num_events"] == {"primary": 2, "converted": 2, "conversion": 1, "baseline": 2}
    assert counts(recorder) == [(2, 2, True)]


def test_plan_that_wants_no_checkpoint_gets_none(
    run_engine: RunEngine, converter: PETifConverter, detector: Any
) -> None:
    messages: list[str] = []
    run_engine.msg_hook = lambda msg: messages.append(msg.command)

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.clear_checkpoint()
        yield from bps.trigger_and_read([detector])

    run_engine(conversion_wrapper(plan(), converter, wait="point"))
    assert "checkpoint" not in messages


def test_dry_run_of_a_plan_needs_no_run_engine(converter: PETifConverter, detector: Any) -> None:
    commands = [msg.command for msg in conversion_wrapper(bp.count([detector], num=2), converter, wait="point")]
    assert commands.count("save") == 2 + 1
    assert commands[-1] == "unstage"


@pytest.mark.parametrize("wait", ["run", "point"])
def test_fly_scan_has_its_statistics(
    wait: Any, run_engine: RunEngine, recorder: Recorder, converter: PETifConverter
) -> None:
    flyer = TrivialFlyer()
    run_engine(conversion_wrapper(bp.fly([flyer]), converter, wait=wait))
    recorder.check()
    assert counts(recorder) == [(0, 0, True)]
    assert recorder.of("stop")[0]["exit_status"] == "success"
