"""The converter as an ophyd-async Device."""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import pytest
from bluesky import RunEngine
from bluesky.protocols import Readable, Stageable, Triggerable
from bluesky.utils import FailedStatus
from ophyd_async.core import NotConnectedError, init_devices
from ophyd_async.plan_stubs import ensure_connected

from petif_bluesky import ConversionCallback, PETifConverter, attach, conversion_wrapper
from petif_bluesky.ophyd_async import ConversionDevice
from petif_bluesky.testing.fake_server import PATIENCE, FakeServer
from tango_server.client.attributes import ATTRIBUTES
from tango_server.recipe import Recipe
from tests.unit.documents import Recorder
from tests.unit.lab import Lab

NOBODY = "tango://127.0.0.1:9/petif/converter/1#dbase=no"
RECIPE = Recipe.preset("xdi", rotation=90)
FAKE = {"FrameReport", "FrameRequest", "NewFile", "Recipe", "_Booked"}
"""What the fake server keeps of each frame."""
KEPT_RUNS = 100
"""How many runs a session keeps for late queries."""


@pytest.fixture
def device_kind() -> str:
    return "async"


@pytest.fixture
def lonely() -> Iterator[ConversionDevice]:
    """A device whose server is not there."""
    device = ConversionDevice(NOBODY, name="lonely")
    yield device
    device.destroy()


def without_source(keys: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {key: value for key, value in described.items() if key != "source"} for name, described in keys.items()
    }


def test_fields_are_those_of_the_classic_device(converter: ConversionDevice, server: FakeServer) -> None:
    classic = PETifConverter(server.address, name="converter", poller=server)
    assert without_source(asyncio.run(converter.describe())) == without_source(classic.describe())
    assert without_source(asyncio.run(converter.describe_configuration())) == without_source(
        classic.describe_configuration()
    )
    assert asyncio.run(converter.read()).keys() == classic.read().keys()
    assert asyncio.run(converter.read_configuration()).keys() == classic.read_configuration().keys()
    assert converter.hints == classic.hints


def described(lab: Lab, converter: Any, tmp_path: Path) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Run a scan with a converter; return name, data keys and configuration keys of the streams that it adds."""
    callback = ConversionCallback(converter, spool=tmp_path / "spool.sqlite")
    token = lab.run_engine.subscribe(callback)
    (uid,) = lab.run_engine(conversion_wrapper(bp.count([lab.detector], num=2), converter, recipe=RECIPE))
    lab.run_engine.unsubscribe(token)
    callback.close()
    converter.destroy()
    lab.recorder.check()
    descriptors = [each for each in lab.recorder.of("descriptor") if each["run_start"] == uid]
    (event,) = lab.recorder.stream("conversion", uid)
    assert (event["data"]["converter_converted"], event["data"]["converter_drained"]) == (2, True)
    assert Recipe.parse(event["data"]["converter_used_recipe"]) == RECIPE
    return [
        (
            each["name"],
            without_source(each["data_keys"]),
            without_source(each["configuration"].get("converter", {}).get("data_keys", {})),
        )
        for each in descriptors
        if each["name"] != "primary"
    ]


@pytest.mark.parametrize("combines", [False, True])
def test_readings_are_those_of_the_classic_device(
    converter: ConversionDevice, server: FakeServer, combines: bool
) -> None:
    classic = PETifConverter(server.address, name="converter", poller=server)
    for device in (converter, classic):
        device.begin_run(server, combines=combines)
    keys = asyncio.run(converter.read()).keys()
    assert keys == classic.read().keys() == classic.describe().keys() == asyncio.run(converter.describe()).keys()
    assert ("converter_groups" in keys) is combines


def test_streams_of_a_run_are_those_of_the_classic_device(
    lab: Lab, converter: ConversionDevice, server: FakeServer, tmp_path: Path
) -> None:
    classic = PETifConverter(server.address, name="converter", poller=server)
    found = described(lab, converter, tmp_path)
    assert [name for name, *_ in found] == ["converted", "conversion"]
    assert found == described(lab, classic, tmp_path)


def test_signals_are_the_servers_attributes(converter: ConversionDevice) -> None:
    newer = {"NumOverexposedFrames", "CorrectionsInUse"}  # an older server has none: connecting to it would fail
    assert {name for name, _ in converter.children()} == {*ATTRIBUTES, "recipe"} - newer


def test_device_is_a_bluesky_detector(converter: ConversionDevice) -> None:
    for protocol in (Readable, Triggerable, Stageable):
        assert isinstance(converter, protocol)


def test_trigger_and_read_need_no_server(lonely: ConversionDevice, run_engine: RunEngine, recorder: Recorder) -> None:
    lonely.poller.wait_for_first_poll(PATIENCE)
    lonely.runs.add("run", "first")
    lonely.current_run = "run"
    began = time.monotonic()
    run_engine(bp.count([lonely]))
    assert time.monotonic() - began < 5.0  # far less than `drain_timeout`
    (event,) = recorder.stream("primary")
    assert (event["data"]["lonely_submitted"], event["data"]["lonely_drained"]) == (1, False)
    assert not lonely.connected


@pytest.mark.usefixtures("run_engine")
def test_bare_connect_names_the_address_and_the_remedy(lonely: ConversionDevice) -> None:
    with pytest.raises(NotConnectedError, match=rf"lonely: .*{NOBODY}.* within 0\.05 s: .*") as raised:
        asyncio.run(lonely.connect(timeout=0.05))
    lonely.poller.wait_for_first_poll(PATIENCE)
    with pytest.raises(NotConnectedError, match=rf"lonely: .*{NOBODY}.*petif serve"):
        asyncio.run(lonely.connect(timeout=0.05))
    assert raised.value.__cause__ is None


def test_plan_and_init_devices_name_the_address_too(lonely: ConversionDevice, run_engine: RunEngine) -> None:
    with pytest.raises(NotConnectedError, match=NOBODY):
        run_engine(ensure_connected(lonely, timeout=0.05))
    with pytest.raises(NotConnectedError, match=f"named: .*{NOBODY}"), init_devices(timeout=0.05):
        named = ConversionDevice(NOBODY)
    named.destroy()


@pytest.mark.usefixtures("run_engine")
def test_mock_device_takes_part_in_runs(server: FakeServer, lab: Lab, tmp_path: Path) -> None:
    with init_devices(mock=True):
        mocked = ConversionDevice(server.address, poller=server)
    with attach(lab.run_engine, mocked, recipe="xdi", spool=tmp_path / "spool.sqlite"):
        lab.run_engine(bp.count([lab.detector, mocked]))
    (event,) = lab.recorder.stream("conversion")
    assert event["data"]["mocked_converted"] == 1


def test_device_without_a_name_cannot_be_attached(server: FakeServer, run_engine: RunEngine, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no name.*init_devices"):
        attach(run_engine, ConversionDevice(server.address, poller=server), spool=tmp_path / "spool.sqlite")
    assert run_engine.preprocessors == []


@pytest.mark.parametrize("recipe", ["xdi-unsigned", {"preset": "xdi-unsigned"}, Recipe.preset("xdi-unsigned")])
def test_recipe_is_set_in_any_form(recipe: Any, converter: ConversionDevice, run_engine: RunEngine) -> None:
    assert converter.recipe.chosen is None
    run_engine(bps.mv(converter.recipe, recipe))
    assert converter.recipe.chosen == Recipe.preset("xdi-unsigned")
    reading = asyncio.run(converter.recipe.read())["converter-recipe"]
    assert Recipe.parse(reading["value"]) == Recipe.preset("xdi-unsigned")
    run_engine(bps.mv(converter.recipe, None))
    assert converter.recipe.chosen is None


def test_configure_is_that_of_the_classic_device(converter: ConversionDevice, run_engine: RunEngine) -> None:
    run_engine(bps.configure(converter, {"recipe": "xdi"}))
    assert converter.recipe.chosen == Recipe.preset("xdi")
    before, after = converter.configure({"recipe": None})
    assert Recipe.parse(before["converter_recipe"]["value"]) == Recipe.preset("xdi")
    assert after["converter_recipe"]["value"] == ""
    with pytest.raises(ValueError, match="converter: cannot configure 'rotation'"):
        converter.configure({"rotation": 90})


def test_invalid_recipe_is_refused(converter: ConversionDevice, run_engine: RunEngine) -> None:
    with pytest.raises(FailedStatus) as raised:
        run_engine(bps.mv(converter.recipe, {"preset": "xdi", "rotation": 45}))
    assert "rotation" in str(raised.value.__cause__)
    with pytest.raises(ValueError, match="allow_in_place"):
        converter.recipe.put(Recipe.preset("xdi", output={"mode": "in_place"}))
    assert converter.recipe.chosen is None


def test_trigger_can_be_awaited(converter: ConversionDevice, server: FakeServer) -> None:
    server.converts = False
    converter.runs.announce("run")
    converter.runs.add("run", "key")

    async def wait() -> None:
        status = converter.trigger()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(status, 0.01)
        assert not status.done
        status.give_up()
        await status
        assert status.success

    asyncio.run(wait())
    assert converter.reading.submitted == 1


def test_ended_run_is_not_waited_for_again(converter: ConversionDevice) -> None:
    converter.runs.announce("run")
    converter.current_run = "run"
    converter.stage()
    assert converter.current_run == "run"
    converter.runs.close("run")
    assert converter.stage().done
    assert converter.current_run is None


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("runs", [90, 1890])
def test_long_session_is_flat_in_memory(
    runs: int,
    run_engine: RunEngine,
    converter: ConversionDevice,
    server: FakeServer,
    make_detector: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("petif_bluesky.documents.assets._KEPT", KEPT_RUNS)
    detector = make_detector(shape=(8, 8))

    def held_after(runs: int) -> Counter[str]:
        for _ in range(runs):
            run_engine(bp.count([detector]))
        assert attached.wait(PATIENCE)
        server.callers.clear()
        gc.collect()
        kinds = (type(each) for each in gc.get_objects())
        return Counter(kind.__name__ for kind in kinds if kind.__module__ != "builtins")

    with attach(run_engine, converter, recipe="xdi", spool=tmp_path / "spool.sqlite") as attached:
        before = held_after(KEPT_RUNS + 10)
        grown = held_after(runs) - before
    del grown["ReferenceType"]  # of ended threads, which the standard library drops when it starts the next one
    assert not {name: count for name, count in grown.items() if name not in FAKE and count > 5}
    assert converter.reading.drained
