"""The simulated detector of ophyd-async under a real RunEngine, its files read by tifffile."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
import tifffile
from bluesky import RunEngine
from bluesky.run_engine import call_in_bluesky_event_loop
from bluesky.utils import FailedStatus
from ophyd.sim import SynAxis
from ophyd_async.core import StaticFilenameProvider, StaticPathProvider, TriggerInfo
from ophyd_async.sim import SimMotor

from petif_bluesky.sim.async_detector import Shutter, SimulatedPerkinElmer
from tango_server.conversion.sidecar import read_sidecar
from tests.unit.conftest import SHAPE
from tests.unit.documents import Recorder

Make = Callable[..., SimulatedPerkinElmer]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return tmp_path / "raw" / "sample"


@pytest.fixture
def make(run_engine: RunEngine, raw: Path) -> Make:
    def make(name: str = "pe", file_name: str = "sample", **options: Any) -> SimulatedPerkinElmer:
        paths = StaticPathProvider(StaticFilenameProvider(file_name), raw)
        detector = SimulatedPerkinElmer(paths, **{"shape": SHAPE, "exposure_time": 0.01, "name": name, **options})
        call_in_bluesky_event_loop(detector.connect())
        return detector

    return make


def announced(recorder: Recorder) -> list[Path]:
    """The files to which the documents lead, in their order, for detectors with one frame per event."""
    resources = {resource["uid"]: resource for resource in recorder.of("stream_resource")}
    found = []
    for datum in recorder.of("stream_datum"):
        resource = resources[datum["stream_resource"]]
        assert resource["mimetype"] == "multipart/related;type=image/tiff"
        folder = Path(resource["uri"].removeprefix("file://localhost"))
        template = resource["parameters"]["template"]
        found += [folder / template.format(n) for n in range(datum["indices"]["start"], datum["indices"]["stop"])]
    return found


def fly(detector: SimulatedPerkinElmer, info: TriggerInfo) -> Any:
    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(detector, info, wait=True)
        yield from bps.declare_stream(detector, name="fly", collect=True)
        yield from bps.kickoff(detector, wait=True)
        yield from bps.collect_while_completing([detector], [detector], flush_period=0.05, stream_name="fly")

    return plan()


def test_step_scan_writes_the_frames_of_the_classic_detector(
    run_engine: RunEngine, recorder: Recorder, make: Make, raw: Path, make_detector: Callable[..., Any], tmp_path: Path
) -> None:
    run_engine(bp.count([make()], num=3))
    recorder.check()
    files = announced(recorder)
    assert files == [raw / f"sample_0001-{number:05d}.tif" for number in range(3)]
    assert set(raw.iterdir()) == {path for file in files for path in (file, file.with_name(f"{file.name}.metadata"))}
    run_engine(bp.count([make_detector(directory=tmp_path / "classic")], num=3))
    classic = sorted((tmp_path / "classic").glob("*.tif"))
    for ours, theirs in zip(files, classic, strict=True):
        np.testing.assert_array_equal(tifffile.imread(ours), tifffile.imread(theirs))
    described = recorder.of("descriptor")[0]["data_keys"]["pe"]
    assert (described["shape"], described["dtype_numpy"]) == ([1, *SHAPE], "<f4")


def test_frame_is_dark_while_the_shutter_is_closed(
    run_engine: RunEngine, recorder: Recorder, make: Make, raw: Path
) -> None:
    detector = make(pixel_type="uint16")
    run_engine(bps.mv(detector.shutter, Shutter.CLOSED))
    run_engine(bp.count([detector]))
    assert np.percentile(tifffile.imread(*announced(recorder)), 99) < 2010


def test_fly_scan_has_the_exposure_time_and_frames_that_were_prepared(
    run_engine: RunEngine, recorder: Recorder, make: Make, raw: Path
) -> None:
    run_engine(fly(make(), TriggerInfo(number_of_events=3, collections_per_event=2, livetime=0.02, deadtime=0.01)))
    recorder.check()
    descriptor = recorder.of("descriptor")[0]
    assert descriptor["data_keys"]["pe"]["shape"] == [2, *SHAPE]
    assert descriptor["configuration"]["pe"]["data"]["pe-exposure_time"] == 0.02
    assert descriptor["configuration"]["pe"]["data_keys"]["pe-exposure_time"]["units"] == "s"
    assert recorder.of("stop")[0]["num_events"] == {"fly": 3}
    files = sorted(raw.glob("*.tif"))
    assert [file.name for file in files] == [f"sample_0001-{number:05d}.tif" for number in range(6)]
    assert {read_sidecar(file).header.exposure for file in files} == {0.02}


def test_each_staging_has_names_of_its_own(run_engine: RunEngine, recorder: Recorder, make: Make, raw: Path) -> None:
    raw.mkdir(parents=True)
    (raw / "a {b}_0001-00001.tif").write_bytes(b"precious")
    first, second = make("first", "a {b}"), make("second", "a {b}")
    for _ in range(2):
        run_engine(bp.count([first, second]))
    files = announced(recorder)
    assert sorted(file.name for file in files) == [f"a {{b}}_{number:04d}-00000.tif" for number in (2, 3, 4, 5)]
    assert all(tifffile.imread(file).shape == SHAPE for file in files)
    assert (raw / "a {b}_0001-00001.tif").read_bytes() == b"precious"


def test_file_of_another_program_is_neither_overwritten_nor_announced(
    run_engine: RunEngine, recorder: Recorder, make: Make, raw: Path, caplog: pytest.LogCaptureFixture
) -> None:
    detector, taken = make(), raw / "sample_0001-00001.tif"

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(detector, TriggerInfo(exposure_timeout=0.3), wait=True)
        yield from bps.trigger_and_read([detector])
        taken.write_bytes(b"precious")
        yield from bps.trigger_and_read([detector])

    with pytest.raises(FailedStatus):
        run_engine(plan())
    assert announced(recorder) == [raw / "sample_0001-00000.tif"]
    assert taken.read_bytes() == b"precious"
    assert {path.name for path in raw.glob("*.tif")} == {"sample_0001-00000.tif", taken.name}
    assert str(taken) in caplog.text


@pytest.mark.parametrize("kind", ["ophyd", "ophyd-async"])
def test_motor_moves_the_rings(
    run_engine: RunEngine, recorder: Recorder, make: Make, make_detector: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    motor: Any = SynAxis(name="motor") if kind == "ophyd" else SimMotor(name="motor", instant=True)
    if kind == "ophyd-async":
        call_in_bluesky_event_loop(motor.connect())
    run_engine(bp.scan([make(motor=motor)], motor, 0, 5, 2))
    axis = SynAxis(name="axis")
    run_engine(bp.scan([make_detector(directory=tmp_path / "classic", motor=axis)], axis, 0, 5, 2))
    for ours, theirs in zip(announced(recorder), sorted((tmp_path / "classic").glob("*.tif")), strict=True):
        np.testing.assert_array_equal(tifffile.imread(ours), tifffile.imread(theirs))


def test_unstaging_ends_the_acquisition(run_engine: RunEngine, make: Make, raw: Path) -> None:
    detector = make()
    run_engine.subscribe(lambda _name, _document: time.sleep(0.1), "stop")  # the loop waits, the camera goes on

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(detector, TriggerInfo(number_of_events=1000), wait=True)
        yield from bps.kickoff(detector, wait=True)
        yield from bps.sleep(0.1)

    run_engine(plan())
    time.sleep(0.1)
    taken = len(list(raw.glob("*.tif.metadata")))
    time.sleep(0.1)
    assert 0 < len(list(raw.glob("*.tif"))) == taken < 1000


def test_frames_come_later_as_on_a_network_share(
    run_engine: RunEngine, recorder: Recorder, make: Make, raw: Path
) -> None:
    there: list[bool] = []
    run_engine.subscribe(lambda _name, _document: there.append(announced(recorder)[0].exists()), "stream_datum")
    detector = make(write_delay=0.3)
    run_engine(bp.count([detector]))

    def wait() -> Any:
        yield from bps.sleep(0.5)

    run_engine(wait())
    assert there == [False]
    assert announced(recorder)[0].exists()


def test_pixel_types_that_qxrd_does_not_save_are_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="float64"):
        make(pixel_type="float64")
