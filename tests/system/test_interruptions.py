"""Pause, rewind, abort, dropped events, run keys, dark and flat streams, a configuration in mid-run: in a real session.

Whatever happens to a run, the catalogue has each frame of its events once, with its converted file.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
import pytest
import tifffile
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted

from petif_bluesky import attach
from petif_bluesky.attachment import Attached
from petif_bluesky.sim import SimulatedPerkinElmer
from tango_server.client.local_server import LocalServer
from tests.unit.documents import Recorder


@pytest.fixture
def attached(run_engine: RunEngine, server: LocalServer, client: Any, root: Path) -> Iterator[Attached]:
    with attach(run_engine, server.address, recipe="xdi", tiled=client, spool=root / "spool.sqlite") as attached:
        yield attached


@pytest.fixture
def detector(root: Path) -> SimulatedPerkinElmer:
    return SimulatedPerkinElmer(name="pe", directory=root / "raw", shape=(24, 32), exposure_time=0.0)


def check(client: Any, recorder: Recorder, uid: str, streams: dict[str, int]) -> None:
    """Compare the catalogued run with the events that were emitted; `streams` has the number of events of each."""
    run = client[uid]
    emitted = {name: recorder.stream(name, uid) for name in streams}
    assert {name: len(events) for name, events in emitted.items()} == streams
    converted = run["converted"].read()
    raw = [str(name) for name in converted["converter_raw"].values]
    assert max(Counter(raw).values()) == 1, "every frame once"
    streams_and_numbers = [converted[f"converter_{key}"].values for key in ("stream", "seq_num")]
    expected = [
        (event["data"]["pe_full_file_name"], name, event["seq_num"]) for name in streams for event in emitted[name]
    ]
    assert sorted(zip(raw, *streams_and_numbers, strict=True)) == sorted(expected)
    for name, events in emitted.items():
        paths = [event["data"]["pe_full_file_name"] for event in events]
        table = run[name].read()
        assert [str(path) for path in table["pe_full_file_name"].values] == paths
        np.testing.assert_array_equal(table["pe_image"].values[:, 0], [tifffile.imread(path) for path in paths])
    images = [tifffile.imread(path).astype(np.int32) for path in raw]
    np.testing.assert_array_equal(run["converted"]["converter_image"].read()[:, 0], images)
    numbers = run.metadata["conversion"]
    assert (numbers["submitted"], numbers["converted"], numbers["pending"]) == (len(raw), len(raw), 0)
    assert bool(run["conversion"].read()["converter_drained"].values[0])


def test_streams_dropped_events_and_a_configuration_in_mid_run(
    run_engine: RunEngine, attached: Attached, client: Any, recorder: Recorder, detector: SimulatedPerkinElmer
) -> None:
    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan() -> Any:
        for stream in ("dark", "flat", "primary"):
            yield from bps.trigger_and_read([detector], name=stream)
        yield from bps.trigger(detector, wait=True)
        yield from bps.create("primary")
        yield from bps.read(detector)
        yield from bps.drop()
        yield from bps.configure(detector, {"exposure_time": 0.001})
        yield from bps.trigger_and_read([detector])
        yield from bps.trigger_and_read([detector], name="dark")

    (uid,) = run_engine(plan())
    assert attached.wait(30.0)
    check(client, recorder, uid, {"dark": 2, "flat": 1, "primary": 2})


@pytest.mark.long
@pytest.mark.parametrize("ending", ["resume", "abort"])
def test_pause_and_rewind(
    run_engine: RunEngine,
    attached: Attached,
    client: Any,
    recorder: Recorder,
    detector: SimulatedPerkinElmer,
    ending: str,
) -> None:
    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.checkpoint()
        yield from bps.trigger_and_read([detector])
        yield from bps.checkpoint()
        yield from bps.trigger_and_read([detector])
        yield from bps.pause()  # goes back to the checkpoint: the second point is taken again
        yield from bps.trigger_and_read([detector])

    with pytest.raises(RunEngineInterrupted):
        run_engine(plan())
    (uid,) = run_engine.resume() if ending == "resume" else run_engine.abort()
    assert attached.wait(30.0)
    events = recorder.stream("primary", uid)
    assert [event["seq_num"] for event in events] == ([1, 2, 2, 3] if ending == "resume" else [1, 2])
    check(client, recorder, uid, {"primary": len(events)})


@pytest.mark.long
def test_interleaved_runs(
    run_engine: RunEngine, attached: Attached, client: Any, recorder: Recorder, root: Path
) -> None:
    detectors = [SimulatedPerkinElmer(name="pe", directory=root / "raw" / name, shape=(24, 32)) for name in "ab"]

    def keyed(key: int, plan: Any) -> Any:
        return bpp.set_run_key_wrapper(plan, str(key))

    @bpp.stage_decorator(detectors)
    def plan() -> Any:
        for key in (0, 1):
            yield from keyed(key, bps.open_run())
        for key in (0, 1, 1, 0, 1):
            yield from keyed(key, bps.trigger_and_read([detectors[key]]))
        for key in (0, 1):
            yield from keyed(key, bps.close_run())

    first, second = run_engine(plan())
    assert attached.wait(30.0)
    check(client, recorder, first, {"primary": 2})
    check(client, recorder, second, {"primary": 3})
