"""Runs whose frames are corrected by their own darks: real bluesky-darkframes, RunEngine, server and catalogue."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
import tifffile
from bluesky import RunEngine
from bluesky_darkframes import DarkFramePreprocessor, SnapshotDevice

from petif_bluesky import Attached, attach
from petif_bluesky.plans import reprocess_run
from petif_bluesky.sim import SimulatedPerkinElmer
from tango_server.client.local_server import LocalServer
from tango_server.messages import FrameReport
from tests.unit.documents import Recorder
from tests.unit.petif_bluesky.test_darkframes import apply_workaround

pytestmark = pytest.mark.usefixtures("own_state")

RECIPE = {"preset": "xdi", "rotation": 90, "corrections": {"dark": "run", "saturation": 65_535}}
Attach = Callable[..., Attached]


@pytest.fixture
def detector(root: Path) -> SimulatedPerkinElmer:
    return SimulatedPerkinElmer(
        name="pe", directory=root / "raw", shape=(32, 48), exposure_time=0.01, pixel_type="uint16", spot=150_000
    )


@pytest.fixture
def attached(run_engine: RunEngine, server: LocalServer, client: Any) -> Iterator[Attached]:
    with attach(run_engine, server.address, recipe=RECIPE, tiled=client) as attached:
        yield attached


def dark_plan(detector: Any) -> Any:
    yield from bps.unstage(detector)
    yield from bps.mv(detector.shutter, "closed")
    yield from bps.stage(detector)
    yield from bps.trigger(detector, group="dark")
    yield from bps.wait("dark")
    snapshot = SnapshotDevice(detector)
    yield from bps.unstage(detector)
    yield from bps.mv(detector.shutter, "open")
    yield from bps.stage(detector)
    return snapshot


def require_corrected(report: FrameReport, dark: str) -> None:
    """Fail unless a frame was corrected by this dark and no other."""
    assert report.outcome == "converted", report.reason
    assert [(master.kind, master.path) for master in report.masters] == [("dark", dark)]
    raw = tifffile.imread(report.source)
    expected = np.rot90(raw.astype(np.int32) - tifffile.imread(dark))
    np.testing.assert_array_equal(tifffile.imread(str(report.output)), expected)
    assert report.pixels.overexposed == np.count_nonzero(raw == 65_535) > 0


def files(recorder: Recorder, stream: str) -> list[str]:
    return [event["data"]["pe_full_file_name"] for event in recorder.stream(stream)]


@pytest.mark.long
def test_exposure_changed_in_mid_run(
    run_engine: RunEngine,
    attached: Attached,
    client: Any,
    recorder: Recorder,
    detector: SimulatedPerkinElmer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    apply_workaround(monkeypatch)
    preprocessor = DarkFramePreprocessor(
        dark_plan=dark_plan, detector=detector, max_age=100, locked_signals=[detector.exposure_time]
    )
    run_engine.preprocessors.append(preprocessor)

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan() -> Any:
        for exposure in (0.01, 0.02, 0.01):
            yield from bps.mv(detector.exposure_time, exposure)
            yield from bps.trigger_and_read([detector])
            yield from bps.trigger_and_read([detector])

    (uid,) = run_engine(plan())
    assert attached.wait(30.0)
    short, long, again = files(recorder, "dark")
    assert short == again
    reports = sorted(attached.converter.client.reports_of_run(uid), key=lambda report: report.seq_num or 0)
    assert [report.source for report in reports] == files(recorder, "primary")
    for report, dark in zip(reports, (short, short, long, long, short, short), strict=True):
        require_corrected(report, dark)
    assert client[uid].metadata["conversion"]["converted"] == 6, "darks are not converted"
    assert Path(short).name in attached.status


def test_darks_of_a_run_of_their_own_then_of_a_later_event(
    run_engine: RunEngine, attached: Attached, client: Any, recorder: Recorder, detector: SimulatedPerkinElmer
) -> None:
    """As xpdAcq writes them; and a run that takes its dark too late, which only reprocessing may use."""
    detector.shutter.put("closed")
    (dark_uid,) = run_engine(bp.count([detector], md={"dark_frame": True}))
    detector.shutter.put("open")
    (uid,) = run_engine(bp.count([detector], num=2, md={"sc_dk_field_uid": dark_uid}))
    assert attached.wait(30.0)
    dark = files(recorder, "primary")[0]
    for report in attached.converter.client.reports_of_run(uid):
        require_corrected(report, dark)
        assert report.masters[0].run_uid == dark_uid

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def dark_too_late() -> Any:
        yield from bps.mv(detector.exposure_time, 0.03)
        yield from bps.trigger_and_read([detector])
        yield from bps.mv(detector.shutter, "closed")
        yield from bps.trigger_and_read([detector], name="dark")
        yield from bps.mv(detector.shutter, "open")

    (late,) = run_engine(dark_too_late())
    assert attached.wait(30.0)
    (failed,) = attached.converter.client.reports_of_run(late)
    assert (failed.outcome, "no dark" in failed.reason) == ("failed", True)
    (again,) = run_engine(reprocess_run(attached.converter, late, recipe=RECIPE, catalogue=client))
    (report,) = attached.converter.client.reports_of_run(again)
    require_corrected(report, files(recorder, "dark")[0])
    assert "after the frame" in report.reason
