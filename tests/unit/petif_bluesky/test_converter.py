"""The converter as an ophyd Device."""

import copy
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.protocols import Readable, Triggerable
from ophyd.utils import ReadOnlyError
from tango import AttrDataFormat, CmdArgType

from petif_bluesky import PETifConverter, conversion_wrapper
from petif_bluesky.server_poller import ServerState
from petif_bluesky.signals.server import AttributeSignal
from petif_bluesky.testing.fake_server import PATIENCE, UP, FakeServer
from tango_server.client.attributes import ATTRIBUTES, AttributeReading
from tango_server.device.converter import PETifConverter as DeviceClass
from tango_server.recipe import Recipe
from tests.unit.documents import Recorder

RECIPE = Recipe.preset("xdi", rotation=90, flip="1")
OTHER = Recipe.preset("xdi-unsigned", rotation=180)

NOBODY = "tango://127.0.0.1:9/petif/converter/1#dbase=no"
UNITS = {
    "submitted": "frames",
    "converted": "frames",
    "skipped": "frames",
    "failed": "frames",
    "placeholders": "frames",
    "conversion_time_total": "s",
    "conversion_time_mean": "s",
    "latency_median": "s",
    "latency_p95": "s",
}
OTHERS = ("drained", "problem", "used_recipe")
TYPES = {"integer": int, "number": float, "boolean": bool}


@pytest.fixture
def lonely() -> Iterator[PETifConverter]:
    """A converter whose server is not there."""
    began = time.monotonic()
    converter = PETifConverter(NOBODY, name="lonely")
    assert time.monotonic() - began < 2.0  # Tango itself would try for longer
    yield converter
    converter.destroy()


def test_construction_trigger_and_read_need_no_server(lonely: PETifConverter) -> None:
    assert lonely.client.address == NOBODY
    assert lonely.read().keys() == {f"lonely_{name}" for name in (*UNITS, *OTHERS)}
    assert lonely.poller.wait_for_first_poll(PATIENCE).down
    lonely.runs.add("run", "first")
    lonely.runs.add("run", "second")
    lonely.current_run = "run"
    began = time.monotonic()
    status = lonely.trigger()
    status.wait(PATIENCE)
    assert time.monotonic() - began < 5.0  # far less than `drain_timeout`
    assert status.success
    assert lonely.read()["lonely_submitted"]["value"] == 2
    assert lonely.read()["lonely_drained"]["value"] is False


def test_connection_times_out_with_address_and_remedy(lonely: PETifConverter) -> None:
    assert not lonely.connected
    assert lonely.poller.wait_for_first_poll(PATIENCE).down
    assert not lonely.connected
    with pytest.raises(TimeoutError, match=rf"lonely: .*{re.escape(NOBODY)}.*petif serve"):
        lonely.wait_for_connection(timeout=0.05)
    with pytest.raises(TimeoutError, match="within 0 s"):
        lonely.wait_for_connection(all_signals=True, timeout=0)


def test_connected_follows_the_server(converter: PETifConverter, server: FakeServer) -> None:
    assert converter.connected
    converter.wait_for_connection(timeout=0)
    server.go_down()
    assert not converter.connected
    assert converter.read().keys() == converter.describe().keys()
    server.go_up()
    assert converter.connected
    assert server.callers == set()


@pytest.mark.parametrize("timeout", [{}, {"timeout": None}, {"timeout": PATIENCE}])
def test_wait_for_connection_ends_when_the_server_answers(
    timeout: dict[str, Any], converter: PETifConverter, server: FakeServer
) -> None:
    server.go_down()
    waiting = threading.Thread(target=converter.wait_for_connection, kwargs=timeout)
    watchers = len(server.watchers)
    waiting.start()
    while len(server.watchers) == watchers:
        time.sleep(0.001)
    assert waiting.is_alive()
    server.go_up()
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    assert len(server.watchers) == watchers


@pytest.mark.parametrize(
    "given", [((NOBODY,), {}), ((), {"address": NOBODY}), ((), {"prefix": NOBODY}), ((NOBODY,), {"prefix": ""})]
)
def test_address_may_be_called_prefix(given: tuple[tuple[str, ...], dict[str, str]], server: FakeServer) -> None:
    arguments, named = given
    converter = PETifConverter(*arguments, **named, name="converter", poller=server)
    assert converter.prefix == NOBODY


@pytest.mark.parametrize("given", [{}, {"address": NOBODY, "prefix": NOBODY}])
def test_address_must_be_given_once(given: dict[str, str], server: FakeServer) -> None:
    with pytest.raises(TypeError, match=r"converter: .*`address`.*`prefix`"):
        PETifConverter(**given, name="converter", poller=server)
    assert server.watchers == {}


def test_copy_has_the_same_address_and_settings(lonely: PETifConverter) -> None:
    lonely.drain_timeout = 7.0
    copied = copy.copy(lonely)
    assert (copied.prefix, copied.client.address, copied.name) == (NOBODY, NOBODY, "lonely")
    assert copied.drain_timeout == 7.0
    assert copied.read_attrs == lonely.read_attrs
    copied.destroy()


def test_converter_is_a_bluesky_detector(converter: PETifConverter) -> None:
    assert isinstance(converter, Readable)
    assert isinstance(converter, Triggerable)
    assert converter.name == "converter"
    assert converter.parent is None


def test_readings_are_described_with_units(converter: PETifConverter) -> None:
    described = converter.describe()
    assert {name: described[f"converter_{name}"]["units"] for name in UNITS} == UNITS
    assert converter.read().keys() == described.keys() == {f"converter_{name}" for name in (*UNITS, *OTHERS)}


def test_readings_have_the_described_type(converter: PETifConverter) -> None:
    for run_uid in (None, "run"):
        converter.current_run = run_uid
        converter.trigger().wait(PATIENCE)
        readings, descriptions = converter.read(), converter.describe()
        for name in (*UNITS, "drained"):
            value, described = readings[f"converter_{name}"]["value"], descriptions[f"converter_{name}"]
            assert described["shape"] == [], name
            assert type(value) is TYPES[described["dtype"]], name
            assert np.dtype(described["dtype_numpy"]).kind == np.asarray(value).dtype.kind, name


def test_readings_are_read_only(converter: PETifConverter) -> None:
    with pytest.raises(ReadOnlyError):
        converter.converted.put(3)
    assert converter.converted.get() == 0


def test_converter_can_be_counted(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, server: FakeServer
) -> None:
    run_engine(bp.count([converter], num=2))
    assert [event["data"]["converter_submitted"] for event in recorder.stream("primary")] == [0, 0]
    recorder.check()
    assert server.callers == set()


def test_readings_have_the_time_they_were_taken(converter: PETifConverter, server: FakeServer) -> None:
    def stamps() -> set[Any]:
        return {reading["timestamp"] for reading in converter.read().values()}

    before = max(stamps())
    converter.current_run = "run"
    converter.trigger().wait(PATIENCE)
    (taken,) = stamps()
    assert before <= taken <= time.time()


def state(**attributes: Any) -> ServerState:
    readings = {name: AttributeReading(value, 1.7e9 + 5) for name, value in attributes.items()}
    return replace(UP, attributes=readings, polled=1.7e9 + 6)


def server_signals(converter: PETifConverter) -> dict[str, AttributeSignal]:
    """The signals of the server's attributes, by the names of these."""
    signals = (getattr(converter.server, name) for name in converter.server.component_names)
    return {signal.attribute: signal for signal in signals if isinstance(signal, AttributeSignal)}


def test_signals_match_the_servers_attributes(converter: PETifConverter) -> None:
    signals = server_signals(converter)
    assert signals.keys() == set(ATTRIBUTES)
    types = {CmdArgType.DevLong64: "integer", CmdArgType.DevDouble: "number", CmdArgType.DevString: "string"}
    for name in sorted(set(ATTRIBUTES) - {"State", "Status"}):
        attribute, signal = getattr(DeviceClass, name), signals[name]
        described = signal.describe()[signal.name]
        spectrum = attribute.attr_format == AttrDataFormat.SPECTRUM
        assert described["dtype"] == ("array" if spectrum else types[attribute.attr_type]), name
        assert described.get("units", "") == attribute.att_prop.unit, name
        if described["dtype"] in {"integer", "number"}:
            assert described["precision"] == int(re.sub(r"\D", "", attribute.att_prop.format) or 0), name
        assert described["source"] == f"TANGO:{converter.client.address}/{name}", name


def test_server_signals_show_the_polled_state(converter: PETifConverter, server: FakeServer) -> None:
    assert converter.server.queue_length.get() == 0
    changes: list[int] = []
    converter.server.queue_length.subscribe(lambda value, **_: changes.append(value), run=False)
    server.poll(state(QueueLength=3, State="RUNNING", FailedFiles=["/a", "/b"]))
    converter.server.wait_for_connection()
    reading = converter.server.queue_length.read()["converter_server_queue_length"]
    assert reading == {"value": 3, "timestamp": 1.7e9 + 5}
    assert converter.server.state.get() == "RUNNING"
    assert converter.server.failed_files.get() == ["/a", "/b"]
    assert (converter.server.version.get(), converter.server.reachable.get()) == ("1.2.3", True)
    server.go_down()
    assert converter.server.reachable.get() is False
    assert converter.server.queue_length.read()["converter_server_queue_length"] == reading


def test_server_is_configuration_not_reading(converter: PETifConverter, server: FakeServer) -> None:
    server.poll(state(NumWorkers=2, Recipe='{"rotation": 90}'))
    values = {key: reading["value"] for key, reading in converter.read_configuration().items()}
    assert values == {
        "converter_recipe": "",
        "converter_server_recipe": '{"rotation": 90}',
        "converter_server_workers": 2,
        "converter_server_version": "1.2.3",
    }
    assert values.keys() == converter.describe_configuration().keys()
    for name in converter.server.component_names:
        getattr(converter.server, name).kind = "normal"
    assert converter.read().keys() == converter.describe().keys()


@pytest.mark.parametrize("given", [RECIPE, RECIPE.model_dump(mode="json"), RECIPE.model_dump_json()])
def test_configured_recipe_applies_to_the_next_runs(
    given: Any, run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, server: FakeServer
) -> None:
    def plan() -> Any:
        before, after = yield from bps.configure(converter, {"recipe": given})
        assert before["converter_recipe"]["value"] == ""
        assert Recipe.model_validate_json(after["converter_recipe"]["value"]) == RECIPE
        yield from bp.count([])
        yield from conversion_wrapper(bp.count([]), converter, recipe=OTHER)
        yield from bps.mv(converter.recipe, None)
        yield from bp.count([])

    run_engine(conversion_wrapper(plan(), converter))
    facts = [start["conversion"] for start in recorder.of("start")]
    assert [each["recipe_source"] for each in facts] == ["run", "run", "server"]
    assert [Recipe.model_validate(each["recipe"]) for each in facts[:2]] == [RECIPE, OTHER]
    assert {thread.name for thread in server.callers} <= {"petif-drain"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"recipe": {"rotation": 45}}, "rotation.*45"),
        ({"recipe": "turn it"}, "preset.*'turn it'"),
        ({"recipe": {"output": {"mode": "in_place"}}}, r"recipe\.output.*in place"),
        ({"numworkers": 3}, "cannot configure 'numworkers'.*'recipe'"),
    ],
)
def test_invalid_configuration_changes_nothing(values: dict[str, Any], words: str, converter: PETifConverter) -> None:
    converter.configure({"recipe": RECIPE})
    with pytest.raises(ValueError, match=words):
        converter.configure(values)
    assert converter.recipe.chosen == RECIPE


def test_stage_forgets_a_run_that_has_ended(converter: PETifConverter, server: FakeServer) -> None:
    server.converts = False
    converter.current_run = "ended"
    converter.runs.add("ended", "frame")
    converter.runs.close("ended")
    assert converter in converter.stage()
    converter.trigger().wait(PATIENCE)
    converter.unstage()
    assert server.listeners == {}


def test_without_a_wrapper_the_callbacks_run_is_current(converter: PETifConverter, server: FakeServer) -> None:
    for run_uid in ("first", "second", "third"):
        converter.runs.announce(run_uid)
    converter.current_run = "third"
    converter.runs.close("third")
    server.converts = False
    server.prompt = False
    converter.trigger()
    assert [run_uid for run_uid, _ in server.listeners.values()] == ["second"]
    server.tell("second", None)
