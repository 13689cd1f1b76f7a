"""ophyd-async's detectors and ours, with classic devices, in one session: a real RunEngine, server and catalogue.

Every TIFF frame is converted once, with the stream and the number of its event, and the catalogue has raw and converted
frames. Those of HDF5 files come with their index; other tests do not select them.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import h5py
import numpy as np
import pytest
import tifffile
from bluesky import RunEngine
from bluesky.run_engine import call_in_bluesky_event_loop
from bluesky.utils import RunEngineInterrupted
from ophyd.sim import SynAxis
from ophyd_async.core import (
    StandardDetector,
    StaticFilenameProvider,
    StaticPathProvider,
    TriggerInfo,
    UUIDFilenameProvider,
)
from ophyd_async.sim import SimBlobDetector

from petif_bluesky import Recipe, attach
from petif_bluesky.attachment import Attached
from petif_bluesky.documents.selection import FrameSelection
from petif_bluesky.sim import SimulatedPerkinElmer
from petif_bluesky.sim.async_detector import SimulatedPerkinElmer as AsyncPerkinElmer
from tango_server.client.local_server import LocalServer
from tests.system.mock_area_detector import SHAPE, MockAreaDetector
from tests.unit.documents import Recorder

Frame = tuple[Path, str, int]
"""Path, stream and seq_num."""

TURNED = Recipe.preset("xdi", rotation=90)


@dataclass
class Session:
    """What a test of this module works with; `check` compares a run with the frames that were taken in it."""

    run_engine: RunEngine
    attached: Attached
    client: Any
    recorder: Recorder
    raw: Path

    def paths(self, name: str) -> StaticPathProvider:
        return StaticPathProvider(UUIDFilenameProvider(), self.raw / name)

    def ours(self, name: str = "async_pe", **options: Any) -> AsyncPerkinElmer:
        paths = StaticPathProvider(StaticFilenameProvider("sample"), self.raw / name)
        return self._connected(AsyncPerkinElmer(paths, shape=SHAPE, exposure_time=0.01, name=name, **options))

    def area_detector(self, writer: str) -> MockAreaDetector:
        detector = MockAreaDetector(writer, self.paths(writer), writer)
        call_in_bluesky_event_loop(detector.connect_mock())
        return detector

    def blob(self) -> SimBlobDetector:
        (self.raw / "blob").mkdir()
        return self._connected(SimBlobDetector(self.paths("blob"), name="blob"))

    def _connected(self, device: Any) -> Any:
        call_in_bluesky_event_loop(device.connect())
        return device

    def files(self, folder: str) -> list[Path]:
        """The TIFF files in a folder below `raw`, in the order in which they were taken."""
        files = (path for path in (self.raw / folder).iterdir() if path.suffix in {".tif", ".tiff"})
        return sorted(files, key=lambda path: path.stat().st_mtime_ns)

    def run(self, plan: Any) -> str:
        (uid,) = self.run_engine(plan)
        return uid

    def check_stacks(self, uid: str, stream: str, **frames_of_each: int) -> None:
        """Check a run of HDF5 detectors, each with its frames per event: every frame of their files, once."""
        assert self.attached.wait(60.0)
        self.recorder.check()
        events = [event for each in ("converted", "converted-2") for event in self.recorder.stream(each, uid)]
        found = sorted(
            tuple(event["data"][f"converter_{key}"] for key in ("raw", "frame", "stream", "seq_num", "output"))
            for event in events
        )
        expected = []
        for name, each in frames_of_each.items():
            (file,) = (self.raw / name).glob("*.h5")
            with h5py.File(file, locking=False) as opened:
                stack = opened["entry/data/data"][()]
            raw = f"{file}::/entry/data/data"
            expected += [(raw, index, stream, index // each + 1) for index in range(len(stack))]
            outputs = {index: output for path, index, *_, output in found if path == raw}
            for index, image in enumerate(stack):
                np.testing.assert_array_equal(tifffile.imread(outputs[index]), np.rot90(image).astype(np.int32))
        assert [row[:-1] for row in found] == sorted(expected)
        numbers = self.client[uid].metadata["conversion"]
        count = len(expected)
        assert (numbers["submitted"], numbers["converted"], numbers["pending"]) == (count, count, 0)

    def check(self, uid: str, **frames: list[Frame]) -> None:
        """Check a run whose frames are given for each image key."""
        assert self.attached.wait(30.0)
        self.recorder.check()
        run = self.client[uid]
        expected = sorted((str(path), stream, number) for each in frames.values() for path, stream, number in each)
        table = run["converted"].read()
        columns = [table[f"converter_{key}"].values for key in ("raw", "stream", "seq_num")]
        assert sorted(zip(*columns, strict=True)) == expected
        turned = [np.rot90(tifffile.imread(path)).astype(np.int32) for path in columns[0]]
        np.testing.assert_array_equal(run["converted"]["converter_image"].read()[:, 0], turned)
        for key, each in frames.items():
            for stream in dict.fromkeys(stream for _, stream, _ in each):
                images = [tifffile.imread(path) for path, of, _ in each if of == stream]
                np.testing.assert_array_equal(run[stream][key].read().reshape(-1, *SHAPE), images)
        numbers = run.metadata["conversion"]
        count = len(expected)
        assert (numbers["submitted"], numbers["converted"], numbers["pending"]) == (count, count, 0)
        assert bool(run["conversion"].read()["converter_drained"].values[0])


@pytest.fixture
def without_detectors() -> tuple[str, ...]:
    return ("hdf", "blob")


@pytest.fixture
def session(
    run_engine: RunEngine, server: LocalServer, client: Any, root: Path, without_detectors: tuple[str, ...]
) -> Iterator[Session]:
    recorder = Recorder()
    frames = FrameSelection(without_detectors=without_detectors)
    spool = root / "spool.sqlite"
    with attach(run_engine, server.address, recipe=TURNED, tiled=client, spool=spool, frames=frames) as attached:
        run_engine.subscribe(recorder)
        yield Session(run_engine, attached, client, recorder, root / "raw")
        call_in_bluesky_event_loop(_nothing_awaited())


async def _nothing_awaited() -> None:
    """Cancel the tasks that wait in vain for the end of a fly scan that was aborted."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def flown(events: int, frames_of_each: dict[StandardDetector, int]) -> Any:
    """A plan for a fly scan in one stream, collected while it goes on; each detector has its frames per event."""
    detectors = list(frames_of_each)

    @bpp.stage_decorator(detectors)
    @bpp.run_decorator()
    def plan() -> Any:
        for detector, count in frames_of_each.items():
            info = TriggerInfo(number_of_events=events, collections_per_event=count, livetime=0.03)
            yield from bps.prepare(detector, info, wait=True)
        yield from bps.declare_stream(*detectors, name="fly", collect=True)
        yield from bps.checkpoint()
        yield from bps.kickoff_all(*detectors, wait=True)
        yield from bps.collect_while_completing(detectors, detectors, flush_period=0.05, stream_name="fly")

    return plan()


def numbered(files: list[Path], stream: str = "primary", each: int = 1) -> list[Frame]:
    """Frames of which `each` belong to one event, with no event taken again."""
    return [(path, stream, index // each + 1) for index, path in enumerate(files)]


@pytest.mark.long
def test_step_scan_with_classic_devices(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    motor = SynAxis(name="motor")
    classic = SimulatedPerkinElmer(name="pe", directory=session.raw / "pe", shape=SHAPE, exposure_time=0.0)
    detectors = [classic, session.ours(motor=motor), session.area_detector("tiff")]
    uid = session.run(bp.scan([*detectors, session.area_detector("hdf"), session.blob()], motor, -1, 1, 3))
    taken = {"pe_image": session.files("pe"), **{name: session.files(name) for name in ("async_pe", "tiff")}}
    assert [len(files) for files in taken.values()] == [3, 3, 3]
    session.check(uid, **{key: numbered(files) for key, files in taken.items()})
    assert not [record.message for record in caplog.records if "images of" in record.message]


def test_fly_scan_collected_while_flying(session: Session) -> None:
    ours, tiff, hdf = session.ours(), session.area_detector("tiff"), session.area_detector("hdf")
    uid = session.run(flown(6, {ours: 1, tiff: 2, hdf: 1, session.blob(): 1}))
    batches = [datum["indices"] for datum in session.recorder.of("stream_datum")]
    assert len(batches) > 2 * 5, "one for each of five data keys, several times"
    ours_taken, tiff_taken = session.files("async_pe"), session.files("tiff")
    assert (len(ours_taken), len(tiff_taken)) == (6, 12)
    session.check(uid, async_pe=numbered(ours_taken, "fly"), tiff=numbered(tiff_taken, "fly", each=2))


@pytest.mark.parametrize("without_detectors", [()])
def test_hdf5_frames_are_converted_while_flying(session: Session) -> None:
    hdf, blob = session.area_detector("hdf"), session.blob()
    uid = session.run(flown(4, {hdf: 2, blob: 1}))
    session.check_stacks(uid, "fly", hdf=2, blob=1)


@pytest.mark.long
@pytest.mark.parametrize("without_detectors", [()])
def test_hdf5_frames_of_a_step_scan(session: Session) -> None:
    motor = SynAxis(name="motor")
    uid = session.run(bp.scan([session.area_detector("hdf"), session.blob()], motor, -1, 1, 3))
    session.check_stacks(uid, "primary", hdf=1, blob=1)


@pytest.mark.long
def test_pause_rewind_and_abort(session: Session) -> None:
    motor, ours, tiff = SynAxis(name="motor"), session.ours(), session.area_detector("tiff")

    @bpp.stage_decorator([ours, tiff])
    @bpp.run_decorator()
    def plan() -> Any:
        for position in range(2):
            yield from bps.checkpoint()
            yield from bps.mv(motor, position)
            yield from bps.trigger_and_read([ours, tiff, motor])
        yield from bps.pause()  # goes back to the checkpoint: the second point is taken again
        yield from bps.trigger_and_read([ours, tiff, motor])
        yield from bps.pause()

    for act in (lambda: session.run_engine(plan()), session.run_engine.resume):
        with pytest.raises(RunEngineInterrupted):
            act()
    (uid,) = session.run_engine.abort()
    numbers = [1, 2, 2, 3]
    frames = {
        name: [(path, "primary", number) for path, number in zip(session.files(name), numbers, strict=True)]
        for name in ("async_pe", "tiff")
    }
    session.check(uid, **frames)


@pytest.mark.long
def test_fly_scan_that_is_aborted(session: Session) -> None:
    ours, tiff = session.ours(), session.area_detector("tiff")
    pause = Timer(0.15, session.run_engine.request_pause)
    session.run_engine.subscribe(lambda _name, _document: pause.ident or pause.start(), "stream_datum")
    with pytest.raises(RunEngineInterrupted):
        session.run_engine(flown(200, {ours: 1, tiff: 1}))
    (uid,) = session.run_engine.abort()
    pause.join()
    announced = session.recorder.of("stop")[0]["num_events"]["fly"]
    assert 0 < announced <= len(session.files("async_pe")) < 200
    session.check(uid, **{name: numbered(session.files(name)[:announced], "fly") for name in ("async_pe", "tiff")})


@pytest.mark.long
def test_interleaved_runs_with_several_frames_in_each_event(session: Session) -> None:
    ours, tiff, motor = session.ours(), session.area_detector("tiff"), SynAxis(name="motor")
    detectors = [ours, tiff]

    def keyed(key: int, plan: Any) -> Any:
        return bpp.set_run_key_wrapper(plan, str(key))

    @bpp.stage_decorator(detectors)
    def plan() -> Any:
        for detector, count in ((ours, 3), (tiff, 2)):
            yield from bps.prepare(detector, TriggerInfo(collections_per_event=count), wait=True)
        for key in (0, 1):
            yield from keyed(key, bps.open_run())
        for key in (0, 1, 1, 0, 1):
            yield from keyed(key, bps.trigger_and_read([detectors[key], motor]))
        for key in (0, 1):
            yield from keyed(key, bps.close_run())

    first, second = session.run_engine(plan())
    ours_taken, tiff_taken = session.files("async_pe"), session.files("tiff")
    assert (len(ours_taken), len(tiff_taken)) == (2 * 3, 3 * 2)
    session.check(first, async_pe=numbered(ours_taken, each=3))
    session.check(second, tiff=numbered(tiff_taken, each=2))
