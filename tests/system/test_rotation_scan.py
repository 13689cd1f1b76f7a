"""Rotation scans of a real RunEngine, converted to ESPERANTO by a real server: each frame has its measured angle."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import fabio
import numpy as np
import pytest
import tango
import tifffile
from bluesky import RunEngine
from fabio.xcaliburimage import RunDescription
from ophyd import Signal
from ophyd.sim import SynAxis

from petif_bluesky import ConversionCallback, PETifConverter, conversion_wrapper
from petif_bluesky.server_poller import ServerPoller
from petif_bluesky.sim import SimulatedPerkinElmer
from petif_bluesky.sim.pattern import Pattern
from tango_server.client.client import Client
from tango_server.client.local_server import LocalServer
from tango_server.recipe import Recipe
from tests.system.conftest import FAST, settings
from tests.system.waiting import until
from tests.unit.crystal import CELL, LEFT, UP, Experiment
from tests.unit.documents import Recorder
from tests.unit.indexing import index_frames

EXPOSURE = 0.05  # s
CRYSTAL = Experiment(axis=UP, columns=LEFT, rows=-UP)  # seen from the detector: the axis points up in the raw frame


class Session:
    """A RunEngine with the callback, and what its runs told."""

    def __init__(self, engine: RunEngine, root: Path, server: LocalServer) -> None:
        self.engine, self.root = engine, root
        self.poller = ServerPoller(Client(server.address))
        self.poller.wait_for_first_poll(10)
        self.converter = PETifConverter(server.address, name="converter", poller=self.poller)
        self.callback = ConversionCallback(self.converter, spool=root / "spool.sqlite")
        self.recorder = Recorder()
        self.proxy = tango.DeviceProxy(server.address)
        engine.subscribe(self.callback)
        engine.subscribe(self.recorder)

    def run(self, plan: Any, recipe: Recipe) -> str:
        (uid,) = self.engine(conversion_wrapper(plan, self.converter, recipe=recipe))
        return str(uid)

    def reports(self, uid: str) -> list[Any]:
        def done() -> bool:
            found: dict[str, Any] = json.loads(self.proxy.command_inout("GetRunStatistics", uid))
            return bool(found["submitted"]) and found["pending"] == 0

        until(done, "every frame has its report")
        return sorted(self.converter.client.reports_of_run(uid), key=lambda report: report.seq_num)

    def close(self) -> None:
        self.callback.close()
        self.poller.close()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, long_lived: set[int]) -> Iterator[Session]:
    root = tmp_path_factory.mktemp("rotation").resolve()
    engine = RunEngine({}, context_managers=[])
    with LocalServer(root, root / "state", [*settings(*FAST)]) as server:
        long_lived.add(server.pid)
        session = Session(engine, root, server)
        yield session
        session.close()
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(timeout=5)
    engine.loop.close()


@pytest.fixture
def folder(session: Session, request: pytest.FixtureRequest) -> Path:
    """The folder of one test, with an empty `raw` in it."""
    folder = session.root / request.node.name
    (folder / "raw").mkdir(parents=True)
    return folder


@pytest.fixture
def detector(folder: Path) -> Iterator[SimulatedPerkinElmer]:
    detector = SimulatedPerkinElmer(name="pe", directory=folder / "raw", shape=(256, 256), exposure_time=0.1)
    yield detector
    detector.destroy()


def recipe(**esperanto: Any) -> Recipe:
    return Recipe.preset("esperanto", esperanto=esperanto)


def angles(report: Any) -> tuple[float, float]:
    header = fabio.open(report.output).header
    return header["dom_s"], header["dom_e"]


def test_step_scan_has_the_measured_angles(session: Session, folder: Path, detector: SimulatedPerkinElmer) -> None:
    omega = SynAxis(name="omega", precision=6)
    wanted = recipe(omega={"center": "omega", "width": 0.5, "sign": -1, "offset": 90}, phi=12.0)
    uid = session.run(bp.scan([detector], omega, -1, 1, 5), wanted)
    reports = session.reports(uid)
    assert [report.outcome for report in reports] == ["converted"] * 5
    for place, (report, angle) in enumerate(zip(reports, np.linspace(-1, 1, 5), strict=True), start=1):
        assert report.output == str(folder / "processed" / folder_of(report) / name_of(report, place))
        assert angles(report) == pytest.approx((90 - angle + 0.25, 90 - angle - 0.25))
        frame = fabio.open(report.output)
        np.testing.assert_array_equal(frame.data, np.rot90(tifffile.imread(report.source), 2).astype(np.int32))
        header = frame.header
        assert header["dph_s"] == 12.0
        assert header["dexposuretimeinsec"] == pytest.approx(0.1)
        for name, value in sidecar_of(report.source).items():
            assert header[name] == pytest.approx(value), name
    described = Path(reports[0].output).parent / f"{folder_of(reports[0]).rpartition('_')[0]}.run"
    until(described.exists, "the companions are there")
    (sweep,) = RunDescription.read(described).pssweep
    assert (sweep.dstart, sweep.dwidth, sweep.iunknown3) == pytest.approx((91.25, -0.5, 5))


def folder_of(report: Any) -> str:
    return f"{Path(report.source).stem.rpartition('-')[0]}_{report.run_uid[:8]}"


def name_of(report: Any, place: int) -> str:
    return f"{Path(report.source).stem.rpartition('-')[0]}_1_{place}.esperanto"


def sidecar_of(source: str) -> dict[str, float]:
    lines = Path(source + ".metadata").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    return {
        "dalpha1": 12_398.419843320026 / float(found["energy"]),
        "ddistanceinmm": float(found["detectorDistance"]),
        "drealpixelsizex": float(found["detectorXPixelSize"]) / 1000,
        "dxorigininpix": 255 - float(found["centerX"]),
        "dyorigininpix": 255 - float(found["centerY"]),
    }


class Turning:
    """A motor that turns at an even speed, and tells where it is 50 times a second."""

    def __init__(self, start: float, velocity: float) -> None:
        """`start` in degrees, `velocity` in degrees a second."""
        self.start, self.velocity = start, velocity
        self.signal = Signal(name="omega_readback", value=start)
        self.began = time.time()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._turn)

    def at(self, moment: float) -> float:
        return self.start + self.velocity * (moment - self.began)

    def _turn(self) -> None:
        while not self._ended.wait(0.02):
            now = time.time()
            self.signal.put(self.at(now), timestamp=now)

    def __enter__(self) -> "Turning":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()


def swept(detector: Any, motor: Turning, frames: int) -> Any:
    """Take frames while the motor turns and is read; it goes on a little longer, as motors do."""

    @bpp.monitor_during_decorator([motor.signal])
    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan() -> Any:
        for _ in range(frames):
            yield from bps.trigger_and_read([detector])
        yield from bps.sleep(0.3)

    return plan()


def test_a_sweep_has_the_angles_of_each_exposure(session: Session, detector: SimulatedPerkinElmer) -> None:
    with Turning(0.0, 20.0) as motor:
        uid = session.run(swept(detector, motor, 6), recipe(omega={"during": "omega_readback"}))
    reports = session.reports(uid)
    assert [report.outcome for report in reports] == ["converted"] * 6, [report.reason for report in reports]
    taken = [event["timestamps"]["pe_image"] for event in session.recorder.stream("primary", uid)]
    for report, end in zip(reports, taken, strict=True):
        assert angles(report) == pytest.approx((motor.at(end - 0.1), motor.at(end)), abs=0.02)


@dataclass(frozen=True, kw_only=True)
class CrystalPattern(Pattern):
    """The crystal at a position of the motor, instead of powder rings."""

    def frame(self, index: int = 0, position: float = 0.0) -> Any:  # noqa: ARG002 - as the rings have it
        return CRYSTAL.frame(position)


class CrystalDetector(SimulatedPerkinElmer):
    """A flat panel before the crystal; QXRD's sidecars tell its geometry. `angle` tells where the motor is."""

    angle: Callable[[], float]

    def _position(self) -> float:
        return self.angle()


@pytest.fixture
def panel(folder: Path) -> Iterator[CrystalDetector]:
    panel = CrystalDetector(name="pe", directory=folder / "raw", shape=CRYSTAL.shape, exposure_time=EXPOSURE)
    panel._pattern = CrystalPattern(shape=CRYSTAL.shape, center=CRYSTAL.center, distance=CRYSTAL.distance, energy=1.0)
    panel.beam_center_x.put(CRYSTAL.center[0])
    panel.beam_center_y.put(CRYSTAL.center[1])
    panel.distance.put(CRYSTAL.distance)
    panel.energy.put(12_398.419843320026 / CRYSTAL.wavelength)
    panel.pixel_size.put(1000 * CRYSTAL.pixel)
    yield panel
    panel.destroy()


def assert_is_the_crystal(reports: list[Any]) -> None:
    found = index_frames([Path(report.output) for report in reports], CELL)
    assert found.spots > 150
    assert found.indexed > 0.9 * found.spots
    assert found.cell == pytest.approx(CELL, rel=0.005)


def test_a_step_scan_of_a_crystal_is_indexed(session: Session, panel: CrystalDetector) -> None:
    omega = SynAxis(name="omega", precision=6)
    panel.angle = lambda: float(omega.readback.get())
    wanted = recipe(omega={"center": "omega", "width": 1.0}, axis="up")
    reports = session.reports(session.run(bp.scan([panel], omega, -15, 14, 30), wanted))
    assert [report.outcome for report in reports] == ["converted"] * 30
    assert_is_the_crystal(reports)


@pytest.mark.long  # it turns in real time, and on a busy machine exposures begin too late to be indexed
def test_a_sweep_of_a_crystal_is_indexed(session: Session, panel: CrystalDetector) -> None:
    wanted = recipe(omega={"during": "omega_readback"}, axis="up", encoding="4BYTE_LONG")
    with Turning(-17.0, 10.0) as motor:
        panel.angle = lambda: motor.at(time.time() + EXPOSURE / 2)
        uid = session.run(swept(panel, motor, 40), wanted)
    reports = session.reports(uid)
    assert [report.outcome for report in reports] == ["converted"] * 40, [report.reason for report in reports]
    assert_is_the_crystal(reports)


def test_frame_without_its_angle_fails_with_a_reason(
    session: Session, folder: Path, detector: SimulatedPerkinElmer
) -> None:
    uid = session.run(bp.count([detector], num=2), recipe(omega="omega", phi={"during": "phi"}))
    for report in session.reports(uid):
        assert (report.outcome, report.output) == ("failed", None)
        assert "omega.center (no 'omega' in the frame's metadata)" in report.reason
        assert "phi.during (no readings of 'phi' around the start of the exposure)" in report.reason
    assert not (folder / "processed").exists()


def test_late_sidecar_is_waited_for(session: Session, folder: Path, data: Path) -> None:
    source = Path(shutil.copy(data / "qxrd_f32_64.tif", folder / "raw" / "pat-00001.tif"))
    request = {
        "source": str(source),
        "recipe": recipe(omega=1.5).model_dump(mode="json"),
        "run_uid": "late",
        "seq_num": 1,
    }
    session.converter.client.submit([request], ["late"])
    text = "[metadata]\nexposureTime=1\n[centerfinder]\ncenterX=3\ncenterY=4\ndetectorXPixelSize=200\n"
    text += "detectorYPixelSize=200\ndetectorDistance=350\nenergy=42700\n"
    source.with_name("pat-00001.tif.metadata").write_text(text)
    (report,) = session.reports("late")
    assert report.outcome == "converted", report.reason
    assert angles(report) == (1.5, 1.5)
    never = shutil.copy(data / "qxrd_f32_64.tif", folder / "raw" / "pat-00002.tif")
    session.converter.client.submit([{**request, "source": str(never), "run_uid": "never"}], ["never"])
    (report,) = session.reports("never")
    assert (report.outcome, "wavelength; distance" in report.reason) == ("failed", True)


def test_mixed_plans_do_not_wait_for_missing_documents(session: Session, detector: SimulatedPerkinElmer) -> None:
    def two_points() -> Any:
        yield from bps.open_run()
        for _ in range(2):
            yield from bps.trigger_and_read([detector])
        yield from bps.close_run()

    uid = session.run(bpp.stage_wrapper(two_points(), [detector]), recipe(omega={"start": 10, "step": 0.25}))
    assert [angles(report) for report in session.reports(uid)] == [(10.0, 10.25), (10.25, 10.5)]
