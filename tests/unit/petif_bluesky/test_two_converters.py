"""Two converters in one RunEngine: each with its own recipe, streams, frames on the server and statistics."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import pytest
from bluesky import RunEngine

from petif_bluesky import ConversionCallback, ConversionPreprocessor, PETifConverter, attach, conversion_wrapper
from petif_bluesky.plans import convert_files
from petif_bluesky.spool import SpoolError
from petif_bluesky.testing.fake_server import FakeServer
from tango_server.recipe import Recipe
from tests.unit.documents import Recorder
from tests.unit.lab import Lab

TIFF = Recipe.preset("xdi", rotation=90)
ESPERANTO = Recipe.preset("esperanto")


@pytest.fixture(params=["classic", "async"])
def device_kind(request: pytest.FixtureRequest) -> str:
    """The kind of the first converter; the other one is classic."""
    return str(request.param)


@pytest.fixture
def other(server: FakeServer) -> PETifConverter:
    """A further converter, of the same server."""
    return PETifConverter(server.address, name="esperanto", poller=server, drain_timeout=20.0)


@pytest.fixture
def both(
    run_engine: RunEngine, converter: PETifConverter, other: PETifConverter, tmp_path: Path
) -> Iterator[tuple[ConversionCallback, ConversionCallback]]:
    """Both are part of the RunEngine."""
    with ExitStack() as stack:
        callbacks = []
        for device, recipe in ((converter, TIFF), (other, ESPERANTO)):
            callback = ConversionCallback(device, spool=tmp_path / f"{device.name}.sqlite")
            callbacks.append(stack.enter_context(closing(callback)))
            run_engine.subscribe(callback)
            run_engine.preprocessors.append(ConversionPreprocessor(device, recipe=recipe))
        yield callbacks[0], callbacks[1]


def last(recorder: Recorder, stream: str, prefix: str) -> dict[str, Any]:
    (event,) = recorder.stream(stream)
    return {key.removeprefix(f"{prefix}_"): value for key, value in event["data"].items()}


@pytest.mark.usefixtures("both")
def test_each_has_its_recipe_streams_and_statistics(lab: Lab) -> None:
    (uid,) = lab.run_engine(bp.count([lab.detector], num=3))
    lab.recorder.check()
    (start,) = lab.recorder.of("start")
    recipes = {key: Recipe.parse(start[key]["recipe"]) for key in ("conversion", "conversion_esperanto")}
    assert recipes == {"conversion": TIFF, "conversion_esperanto": ESPERANTO}
    by_run = {key: {request.recipe for request in lab.server.requests.values() if request.run_uid == key}
              for key in (uid, f"{uid}#esperanto")}  # fmt: skip
    assert by_run == {uid: {TIFF}, f"{uid}#esperanto": {ESPERANTO}}
    assert len(lab.server.requests) == 6
    for stream, name in (("conversion", "converter"), ("conversion_esperanto", "esperanto")):
        numbers = last(lab.recorder, stream, name)
        assert (numbers["submitted"], numbers["converted"], numbers["drained"]) == (3, 3, True), stream
    assert len(lab.recorder.stream("converted")) == 3
    assert len(lab.recorder.stream("converted_esperanto")) == 3


@pytest.mark.usefixtures("both")
def test_recipe_of_a_call_is_that_of_the_named_converter(lab: Lab) -> None:
    lab.run_engine(bp.count([lab.detector]), conversion_esperanto={"preset": "esperanto", "rotation": 0})
    assert {request.recipe for request in lab.server.requests.values()} == {
        TIFF, Recipe.preset("esperanto", rotation=0),
    }  # fmt: skip
    used = last(lab.recorder, "conversion_esperanto", "esperanto")["used_recipe"]
    assert Recipe.parse(used) == Recipe.preset("esperanto", rotation=0)


@pytest.mark.usefixtures("both")
def test_plan_that_only_converts_is_of_its_converter_alone(lab: Lab, other: PETifConverter) -> None:
    paths = ["/data/raw/a.tif", "/data/raw/b.tif"]
    (uid,) = lab.run_engine(convert_files(other, paths, recipe="esperanto"))
    assert {request.run_uid for request in lab.server.requests.values()} == {uid}
    assert last(lab.recorder, "conversion", "esperanto")["converted"] == 2
    assert "conversion_converter" not in lab.recorder.of("start")[0]


def test_run_with_two_recipes_for_the_same_files_is_refused(
    lab: Lab, both: tuple[ConversionCallback, ConversionCallback]
) -> None:
    with pytest.raises(ValueError, match=r"'converter' and 'esperanto' would write the same output files"):
        lab.run_engine(bp.count([lab.detector], md={"conversion_esperanto": {"recipe": "xdi-unsigned"}}))
    assert lab.recorder.documents == []


def test_same_name_twice_is_refused(lab: Lab, both: tuple[ConversionCallback, ConversionCallback]) -> None:
    third = PETifConverter(lab.server.address, name="esperanto", poller=lab.server)
    moved = Recipe.preset("xdi", output={"folder": "/elsewhere"})
    with pytest.raises(ValueError, match="esperanto: two converters"):
        lab.run_engine(conversion_wrapper(bp.count([lab.detector]), third, recipe=moved))


def test_callback_of_another_server_does_not_take_the_recipe(
    lab: Lab, callback: ConversionCallback, tmp_path: Path
) -> None:
    elsewhere = FakeServer()
    elsewhere.address = "tango://elsewhere:1/petif/converter/1#dbase=no"
    second = PETifConverter(elsewhere.address, name="second", poller=elsewhere)
    lab.run_engine.subscribe(callback)
    with closing(ConversionCallback(second, spool=tmp_path / "second.sqlite")) as other:
        lab.run_engine.subscribe(other)
        (uid,) = lab.run(bp.count([lab.detector]), recipe=TIFF)
        elsewhere.until(lambda: len(elsewhere.requests) == 1)
    (request,) = elsewhere.requests.values()
    assert (request.run_uid, request.recipe) == (f"{uid}#second", None)
    assert [each.recipe for each in lab.server.requests.values()] == [TIFF]


def test_two_converters_never_share_a_spool(
    converter: PETifConverter, other: PETifConverter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    with closing(ConversionCallback(converter)), closing(ConversionCallback(other)):
        assert None not in (converter.runs.spool_path, other.runs.spool_path)
        assert converter.runs.spool_path != other.runs.spool_path
        with pytest.raises(SpoolError, match=r"used by converter 'converter'.*'esperanto'"):
            ConversionCallback(other, spool=converter.runs.spool_path)


def test_attaching_again_returns_the_same(run_engine: RunEngine, converter: PETifConverter, tmp_path: Path) -> None:
    with attach(run_engine, converter, recipe="xdi", spool=tmp_path / "s.sqlite") as attached:
        assert attach(run_engine, converter) is attached
        assert attach(run_engine, converter.client.address, recipe=Recipe.preset("xdi")) is attached
        assert len(run_engine.preprocessors) == 1
        with pytest.raises(ValueError, match=r"converter: already attached with recipe=.*attached\.close"):
            attach(run_engine, converter, recipe="xdi-unsigned")
    assert run_engine.preprocessors == []
    with attach(run_engine, converter, recipe="xdi-unsigned", spool=tmp_path / "s.sqlite") as again:
        assert again is not attached


def test_attaching_for_the_same_files_is_refused(
    run_engine: RunEngine, converter: PETifConverter, other: PETifConverter, tmp_path: Path
) -> None:
    with attach(run_engine, converter, recipe="xdi", spool=tmp_path / "a.sqlite"):
        with pytest.raises(ValueError, match=r"'converter' and 'esperanto' would write the same output files"):
            attach(run_engine, other, recipe="xdi-unsigned", spool=tmp_path / "b.sqlite")
        with attach(run_engine, other, recipe="esperanto", spool=tmp_path / "b.sqlite"):
            assert len(run_engine.preprocessors) == 2
        assert len(run_engine.preprocessors) == 1


def test_attached_session_converts_and_waits(lab: Lab, tmp_path: Path) -> None:
    with attach(lab.run_engine, lab.converter, recipe="xdi", wait=None, spool=tmp_path / "s.sqlite") as attached:
        lab.server.converts = False
        lab.run_engine(bp.count([lab.detector], num=2))
        numbers = last(lab.recorder, "conversion", "converter")
        assert (numbers["submitted"], numbers["drained"]) == (2, False)
        assert "2 frames have no report yet" in numbers["problem"]
        assert not attached.wait(0.0)
        lab.server.converts = True
        assert attached.wait(20.0)
        assert attached.waiting == 0
    lab.server.requests.clear()
    lab.run_engine(bp.count([lab.detector]))
    assert lab.server.requests == {}, "it is detached"
