"""An ophyd-async session: a real server, RunEngine and catalogue."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import psutil
import pytest
import tango
import tifffile
from bluesky import RunEngine
from ophyd_async.core import NotConnectedError, init_devices

from petif_bluesky import attach
from petif_bluesky.ophyd_async import ConversionDevice
from petif_bluesky.sim import SimulatedPerkinElmer
from tango_server.client.attributes import ATTRIBUTES
from tango_server.client.local_server import LocalServer
from tango_server.recipe import Recipe
from tests.system.waiting import until

SESSION = """
from bluesky import RunEngine, plans as bp
from ophyd_async.core import init_devices
from petif_bluesky import attach
from petif_bluesky.ophyd_async import ConversionDevice
from petif_bluesky.sim import SimulatedPerkinElmer
RE = RunEngine()
with init_devices():
    converter = ConversionDevice(ADDRESS)
pe = SimulatedPerkinElmer(name="pe", directory=DIRECTORY, shape=(48, 64))
attached = attach(RE, converter, recipe="xdi", tiled=CATALOGUE)
RE(bp.count([pe], num=3))
assert attached.wait(30)
"""
LATER = {"NumOverexposedFrames", "CorrectionsInUse"}
"""Attributes that servers of 2db7c4c lack: connecting to one with signals for them would fail."""
UNITS = {"QueueLength": "frames", "NumWorkers": "processes", "LatencyMedian": "s", "FreeSpace": "B"}


pytestmark = pytest.mark.usefixtures("own_state")


@pytest.fixture
def converter(server: LocalServer, run_engine: RunEngine) -> Iterator[ConversionDevice]:
    with init_devices():
        converter = ConversionDevice(server.address)
    yield converter
    converter.destroy()


@pytest.mark.long
def test_twelve_lines_give_frames_statistics_and_recipe(
    server: LocalServer, tiled: Any, client: Any, root: Path
) -> None:
    assert len(SESSION.strip().splitlines()) <= 12
    names: dict[str, Any] = {"ADDRESS": server.address, "DIRECTORY": root / "raw", "CATALOGUE": tiled.uri}
    exec(SESSION, names)
    names["attached"].close()
    names["converter"].destroy()
    stop(names["RE"])
    run = client.values().last()
    taken = [tifffile.imread(path) for path in sorted((root / "raw").glob("*.tif"))]
    np.testing.assert_array_equal(run["primary"]["pe_image"].read()[:, 0], taken)
    np.testing.assert_array_equal(run["converted"]["converter_image"].read()[:, 0], np.array(taken).astype(np.int32))
    assert Recipe.parse(run.metadata["start"]["conversion"]["recipe"]) == Recipe.preset("xdi")
    numbers = run.metadata["conversion"]
    assert (numbers["submitted"], numbers["converted"], numbers["pending"]) == (3, 3, 0)
    row = run["conversion"].read()
    assert (row["converter_converted"].values[0], row["converter_drained"].values[0]) == (3, True)
    assert Recipe.parse(str(row["converter_used_recipe"].values[0])) == Recipe.preset("xdi")


def stop(engine: RunEngine) -> None:
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(timeout=5)
    engine.loop.close()


def in_loop(engine: RunEngine, work: Any) -> Any:
    return asyncio.run_coroutine_threadsafe(work, engine.loop).result(30)


def test_signals_are_the_attributes_with_their_units(
    converter: ConversionDevice, run_engine: RunEngine, proxy: tango.DeviceProxy
) -> None:
    for name in sorted(set(ATTRIBUTES) - LATER):
        signal = getattr(converter, name)
        value, described = in_loop(run_engine, signal.get_value()), in_loop(run_engine, signal.describe())[signal.name]
        expected = {"integer": int, "number": float, "string": str, "array": (list, tuple)}[described["dtype"]]
        assert isinstance(value, expected), name
        assert described.get("units") == (proxy.get_attribute_config(name).unit or None), name
    units = {
        name: in_loop(run_engine, getattr(converter, name).describe())[f"converter-{name}"]["units"] for name in UNITS
    }
    assert units == UNITS


def test_subscribers_see_changes(
    converter: ConversionDevice, run_engine: RunEngine, proxy: tango.DeviceProxy, put: Callable[..., Path]
) -> None:
    seen: list[int] = []

    def on_reading(reading: dict[str, Any]) -> None:
        seen.append(reading["converter-StatisticsTotalFrames"]["value"])

    def call(method: Callable[[Any], None]) -> Any:
        method(on_reading)
        yield from bps.null()

    run_engine(call(converter.StatisticsTotalFrames.subscribe_reading))
    proxy.AddFiles([str(put("qxrd_f32_64.tif"))])
    until(lambda: 1 in seen, "the converted frame is seen")
    run_engine(call(converter.StatisticsTotalFrames.clear_sub))


@pytest.mark.long
def test_killed_server_costs_no_frame(
    run_engine: RunEngine, start_server: Callable[..., LocalServer], client: Any, root: Path
) -> None:
    first = start_server("--port", "0")
    port = first.address.split(":")[2].split("/")[0]
    with init_devices():
        converter = ConversionDevice(first.address)
    before = in_loop(run_engine, converter.NumWorkers.get_value())
    detector = SimulatedPerkinElmer(name="pe", directory=root / "raw", shape=(48, 64), exposure_time=0.0)

    def kill() -> None:
        psutil.Process(first.pid).kill()
        first.stop()
        until(lambda: not converter.connected, "its end is seen")

    def restart() -> None:
        start_server("--port", port)
        until(lambda: converter.connected, "the new one is seen")

    interferences = {2: kill, 5: restart}

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan() -> Any:
        for point in range(8):
            interferences.get(point, lambda: None)()
            yield from bps.trigger_and_read([detector])

    with attach(run_engine, converter, recipe="xdi", tiled=client) as attached:
        (uid,) = run_engine(plan())
        assert attached.wait(60)
    run = client[uid]
    row = run["conversion"].read()
    assert (row["converter_converted"].values[0], row["converter_drained"].values[0]) == (8, True)
    assert run.metadata["conversion"]["converted"] == 8
    assert run["converted"]["converter_image"].shape == (8, 1, 48, 64)
    assert in_loop(run_engine, converter.NumWorkers.get_value()) == before
    converter.destroy()


@pytest.mark.long
def test_session_works_before_its_server(
    run_engine: RunEngine, start_server: Callable[..., LocalServer], root: Path
) -> None:
    first = start_server("--port", "0")
    port = first.address.split(":")[2].split("/")[0]
    first.stop()
    converter = ConversionDevice(first.address, name="converter", drain_timeout=20)
    detector = SimulatedPerkinElmer(name="pe", directory=root / "raw", shape=(48, 64), exposure_time=0.0)
    with pytest.raises(NotConnectedError, match=first.address):
        in_loop(run_engine, converter.connect(timeout=0.1))
    with attach(run_engine, converter, recipe="xdi") as attached:
        (uid,) = run_engine(bp.count([detector], num=2))
        start_server("--port", port)
        assert attached.wait(60)
        assert converter.client.run_statistics(uid).converted == 2
    in_loop(run_engine, converter.connect(timeout=10))
    assert in_loop(run_engine, converter.StatisticsTotalFrames.get_value()) == 2
    converter.destroy()
