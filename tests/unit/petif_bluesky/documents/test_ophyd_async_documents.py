"""Frames in the documents that a RunEngine emits for detectors of ophyd-async."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import h5py
import pytest
from bluesky import RunEngine
from bluesky.run_engine import call_in_bluesky_event_loop
from bluesky.utils import RunEngineInterrupted
from ophyd.sim import SynAxis
from ophyd_async.core import StaticFilenameProvider, StaticPathProvider, TriggerInfo
from ophyd_async.sim import SimBlobDetector

from petif_bluesky.documents.frame import Frame
from petif_bluesky.documents.selection import FrameSelection
from petif_bluesky.sim.async_detector import SimulatedPerkinElmer
from tests.unit.conftest import SHAPE
from tests.unit.documents import FrameFinder


class Listener:
    """Subscribed to a RunEngine: the frames, and how many waited for documents when the run stopped."""

    def __init__(self, selection: FrameSelection | None = None) -> None:
        self.finder = FrameFinder(selection)
        self.frames: list[Frame] = []
        self.waiting: int | None = None

    def __call__(self, name: str, document: Any) -> None:
        if name == "stop":
            self.waiting = self.finder.router.waiting(document["run_start"])
        self.frames += self.finder.feed(name, document)


@pytest.fixture
def listener(run_engine: RunEngine) -> Listener:
    listener = Listener()
    run_engine.subscribe(listener)
    return listener


@pytest.fixture
def connect(run_engine: RunEngine, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    def connect(kind: type, name: str, **options: Any) -> Any:
        paths = StaticPathProvider(StaticFilenameProvider(name), tmp_path)
        device = kind(paths, name=name, **options)
        call_in_bluesky_event_loop(device.connect())
        return device

    return connect


@pytest.fixture
def detector(connect: Callable[..., Any]) -> SimulatedPerkinElmer:
    return connect(SimulatedPerkinElmer, "pe", shape=SHAPE, exposure_time=0.01)


@pytest.fixture
def blob(connect: Callable[..., Any]) -> SimBlobDetector:
    return connect(SimBlobDetector, "blob")


def test_frames_of_a_step_scan_have_the_readings_of_their_event(
    run_engine: RunEngine, listener: Listener, detector: SimulatedPerkinElmer, tmp_path: Path
) -> None:
    run_engine(bp.scan([detector], SynAxis(name="motor"), 1, 2, 2))
    assert [frame.path for frame in listener.frames] == [str(tmp_path / f"pe_0001-{n:05d}.tif") for n in range(2)]
    found = [(frame.seq_num, frame.metadata["motor"], frame.metadata["exposure_time"]) for frame in listener.frames]
    assert found == [(1, 1.0, 0.01), (2, 2.0, 0.01)]
    assert listener.frames[0].metadata["shape"] == list(SHAPE)
    assert listener.waiting == 0


def test_other_data_in_streams_keep_nothing_waiting(
    run_engine: RunEngine, listener: Listener, detector: SimulatedPerkinElmer, blob: SimBlobDetector
) -> None:
    run_engine(bp.count([detector, blob], num=2))
    found = sorted((frame.data_key, frame.seq_num, frame.frame) for frame in listener.frames)
    assert found == [("blob", 1, 0), ("blob", 2, 1), ("pe", 1, None), ("pe", 2, None)]  # and none of "blob-sum"
    assert (listener.waiting, listener.finder.notes) == (0, [])


def test_detectors_that_are_not_selected_are_not_mentioned(
    run_engine: RunEngine, detector: SimulatedPerkinElmer, blob: SimBlobDetector
) -> None:
    listener = Listener(FrameSelection(without_detectors=("blob",)))
    run_engine(bp.count([detector, blob], num=2), listener)
    assert (len(listener.frames), listener.waiting, listener.finder.notes) == (2, 0, [])


@pytest.mark.parametrize("recipe", [None, {"format": "esperanto"}])
def test_point_taken_again_has_its_new_readings(
    run_engine: RunEngine, listener: Listener, detector: SimulatedPerkinElmer, recipe: Any
) -> None:
    motor = SynAxis(name="motor")
    positions = iter(range(10))

    @bpp.stage_decorator([detector])
    @bpp.run_decorator(md={"conversion": {"recipe": recipe}})
    def plan() -> Any:
        yield from bps.trigger_and_read([detector, motor])
        yield from bps.checkpoint()
        for _ in range(2):
            yield from bps.trigger_and_read([detector, motor])
        yield from bps.pause()
        yield from bps.trigger_and_read([detector, motor])

    def move(name: str, _document: Any) -> None:
        motor.set(next(positions))

    run_engine.subscribe(move, "event")
    with pytest.raises(RunEngineInterrupted):
        run_engine(plan())
    run_engine.resume()
    found = sorted((frame.path[-9:], frame.seq_num, frame.metadata["motor"]) for frame in listener.frames)
    assert found == [
        ("00000.tif", 1, 0), ("00001.tif", 2, 0), ("00002.tif", 3, 1),
        ("00003.tif", 2, 2), ("00004.tif", 3, 3), ("00005.tif", 4, 4),
    ]  # fmt: skip
    assert listener.waiting == 0


def test_frames_of_a_blob_detector_are_those_in_its_file(
    run_engine: RunEngine, listener: Listener, blob: SimBlobDetector, tmp_path: Path
) -> None:
    run_engine(bp.scan([blob], SynAxis(name="motor"), 1, 3, 3))
    assert {frame.path for frame in listener.frames} == {f"{tmp_path / 'blob.h5'}::/entry/data/data"}
    found = [(frame.frame, frame.seq_num, frame.metadata["motor"]) for frame in listener.frames]
    assert found == [(0, 1, 1.0), (1, 2, 2.0), (2, 3, 3.0)]
    with h5py.File(tmp_path / "blob.h5") as file:
        assert file["entry/data/data"].shape == (3, *listener.frames[0].metadata["shape"])
    assert (listener.waiting, listener.finder.notes) == (0, [])


@pytest.mark.parametrize("each", [1, 3])
def test_flown_frames_are_found_while_the_scan_goes_on(
    run_engine: RunEngine, listener: Listener, blob: SimBlobDetector, tmp_path: Path, each: int
) -> None:
    events, in_batches = 4, set[int]()
    run_engine.subscribe(lambda _name, _document: in_batches.add(len(listener.frames)), "stream_datum")

    @bpp.stage_decorator([blob])
    @bpp.run_decorator()
    def plan() -> Any:
        info = TriggerInfo(number_of_events=events, collections_per_event=each, livetime=0.02)
        yield from bps.prepare(blob, info, wait=True)
        yield from bps.declare_stream(blob, name="fly", collect=True)
        yield from bps.kickoff(blob, wait=True)
        yield from bps.collect_while_completing([blob], [blob], flush_period=0.02, stream_name="fly")

    run_engine(plan())
    with h5py.File(tmp_path / "blob.h5") as file:
        written = len(file["entry/data/data"])
    expected = [(index, index // each + 1, index % each) for index in range(written)]
    assert [(frame.frame, frame.seq_num, frame.metadata["number"]) for frame in listener.frames] == expected
    assert written == events * each
    assert len(in_batches) > 1  # the first frames did not wait for the last


@pytest.mark.parametrize("recipe", [None, {"format": "esperanto"}])
def test_blob_taken_again_after_a_pause_is_a_frame_of_its_own(
    run_engine: RunEngine, listener: Listener, blob: SimBlobDetector, recipe: Any
) -> None:
    motor = SynAxis(name="motor")
    positions = iter(range(10))

    @bpp.stage_decorator([blob])
    @bpp.run_decorator(md={"conversion": {"recipe": recipe}})
    def plan() -> Any:
        yield from bps.trigger_and_read([blob, motor])
        yield from bps.checkpoint()
        yield from bps.trigger_and_read([blob, motor])
        yield from bps.pause()
        yield from bps.trigger_and_read([blob, motor])

    run_engine.subscribe(lambda _name, _document: motor.set(next(positions)), "event")
    with pytest.raises(RunEngineInterrupted):
        run_engine(plan())
    run_engine.resume()
    found = sorted((frame.frame or 0, frame.seq_num, frame.metadata["motor"]) for frame in listener.frames)
    assert found == [(0, 1, 0), (1, 2, 0), (2, 2, 1), (3, 3, 2)]
    assert len({frame.request()["key"] for frame in listener.frames}) == 4
    assert listener.waiting == 0
