"""The dark of each frame with bluesky-darkframes and a real RunEngine; the server is a stand-in."""

import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky.protocols import WritesExternalAssets
from bluesky_darkframes import DarkFramePreprocessor, SnapshotDevice, _SnapshotShell

from petif_bluesky import ConversionCallback, attach
from petif_bluesky.documents.darks import Dark
from petif_bluesky.documents.detector_settings import DetectorSettings
from petif_bluesky.sim import SimulatedPerkinElmer
from petif_bluesky.testing.fake_server import PATIENCE, FakeServer
from tango_server.messages import FrameRequest
from tango_server.recipe import Recipe
from tango_server.recipe.corrections import DARK_FACTS
from tests.unit.documents import Recorder
from tests.unit.lab import Lab

RECIPE = Recipe.preset("xdi", corrections={"dark": "run", "on_missing_dark": "convert"})
MD = {"conversion": {"recipe": RECIPE.model_dump(mode="json")}}


def apply_workaround(patch: pytest.MonkeyPatch) -> None:
    """What the documentation recommends for Python 3.12 and later; it does no harm before."""
    for name in ("collect_asset_docs", "stage", "unstage"):
        method = lambda self, name=name: getattr(self.get_snapshot(), name)()  # noqa: E731
        patch.setattr(_SnapshotShell, name, method, raising=False)


class HidingShell(_SnapshotShell):
    """A shell as Python 3.12 and later see the original one: it has no asset documents."""

    def __getattr__(self, key: str) -> Any:
        if key in {"collect_asset_docs", "stage", "unstage"}:
            raise AttributeError(key)
        return super().__getattr__(key)


def faulty_shell() -> _SnapshotShell:
    """The original shell where it has the fault; of a class of its own, since Python keeps what a class can do."""
    return HidingShell() if sys.version_info < (3, 12) else type("Fresh", (_SnapshotShell,), {})()


def dark_plan(detector: Any) -> Any:
    yield from bps.unstage(detector)
    yield from bps.stage(detector)
    yield from bps.trigger(detector, group="dark")
    yield from bps.wait("dark")
    snapshot = SnapshotDevice(detector)
    yield from bps.unstage(detector)
    yield from bps.stage(detector)
    return snapshot


def darkframes(detector: Any) -> DarkFramePreprocessor:
    return DarkFramePreprocessor(
        dark_plan=dark_plan, detector=detector, max_age=100, locked_signals=[detector.exposure_time]
    )


def requests(server: FakeServer) -> list[FrameRequest]:
    return list(server.requests.values())


def dark_of(request: FrameRequest) -> Any:
    assert request.recipe is not None
    assert request.recipe.corrections is not None
    return request.recipe.corrections.dark


def files(recorder: Recorder, stream: str) -> list[str]:
    return [event["data"]["pe_full_file_name"] for event in recorder.stream(stream)]


@pytest.fixture
def detector(make_detector: Callable[..., SimulatedPerkinElmer]) -> SimulatedPerkinElmer:
    return make_detector(exposure_time=0.01)


def test_each_frame_gets_the_last_dark_before_it(
    lab: Lab, callback: ConversionCallback, detector: SimulatedPerkinElmer, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply_workaround(monkeypatch)
    lab.run_engine.subscribe(callback)
    lab.run_engine.preprocessors.append(darkframes(detector))

    @bpp.stage_decorator([detector])
    @bpp.run_decorator(md=MD)
    def plan() -> Any:
        for exposure in (0.01, 0.02, 0.01):
            yield from bps.mv(detector.exposure_time, exposure)
            yield from bps.trigger_and_read([detector])
            yield from bps.trigger_and_read([detector])

    (uid,) = lab.run_engine(plan())
    short, long, again = files(lab.recorder, "dark")
    assert short == again != long, "a cached dark comes again under its path"
    lab.server.until(lambda: len(lab.server.requests) == 6)
    found = requests(lab.server)
    assert [request.source for request in found] == files(lab.recorder, "primary")
    assert [dark_of(request) for request in found] == [short, short, long, long, short, short]
    assert {request.metadata[DARK_FACTS]["run_uid"] for request in found} == {uid}
    assert found[0].metadata[DARK_FACTS]["exposure_time"] == 0.01
    assert "exposure_time" not in found[2].metadata[DARK_FACTS], "the descriptor has that of its first event"
    assert lab.converter.runs.counts(uid) == {"dark": (3, 0), "primary": (6, 6)}
    lab.recorder.check()
    (second,) = lab.run_engine(bp.count([detector], md=MD))
    lab.server.until(lambda: len(lab.server.requests) == 7)
    assert dark_of(requests(lab.server)[-1]) == short, "taken in the first run"
    assert requests(lab.server)[-1].metadata[DARK_FACTS]["run_uid"] == second


def test_dark_without_files_is_refused_by_name(
    lab: Lab, callback: ConversionCallback, detector: SimulatedPerkinElmer
) -> None:
    lab.run_engine.subscribe(callback)
    preprocessor = darkframes(detector)
    lab.run_engine.preprocessors.append(preprocessor)
    with pytest.MonkeyPatch.context() as patch:
        apply_workaround(patch)
        lab.run_engine(bp.count([detector], md=MD))
    preprocessor._current_snapshot = faulty_shell()
    preprocessor.clear()
    (uid,) = lab.run_engine(bp.count([detector], num=2, md=MD))
    lab.server.until(lambda: len(lab.server.requests) == 3)
    first, *later = requests(lab.server)
    assert dark_of(first) == files(lab.recorder, "dark")[0]
    assert [dark_of(request) for request in later] == ["run", "run"], "the older dark is not taken instead"
    for request in later:
        assert set(request.metadata[DARK_FACTS]) == {"note"}
        assert "names no files" in request.metadata[DARK_FACTS]["note"]
        assert "collect_asset_docs" in request.metadata[DARK_FACTS]["note"]
    assert lab.converter.runs.submitted(uid) == 2


def test_original_shell_has_the_fault_on_later_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, bluesky-darkframes is repaired: the documentation needs no workaround any more."""
    assert not isinstance(faulty_shell(), WritesExternalAssets)
    apply_workaround(monkeypatch)
    assert isinstance(_SnapshotShell(), WritesExternalAssets)


def test_attachment_tells_the_masters_in_use(
    lab: Lab, detector: SimulatedPerkinElmer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrections = {"dark": "run", "dark_max_age": 3600, "mask": "/masters/mask.edf"}
    spool = tmp_path / "own.sqlite"
    with attach(lab.run_engine, lab.converter, recipe={"preset": "xdi", "corrections": corrections}, spool=spool) as on:
        assert "no dark is known yet" in on.status
        lab.run_engine(bp.count([detector], md={"dark_frame": True}))
        (dark,) = files(lab.recorder, "primary")
        line = rf"pe: dark {re.escape(Path(dark).name)} \(0\.01 s, [\d.]+ s old\), mask mask\.edf"
        assert re.search(line, on.status)
        assert (on.alarms, "ALARM" in repr(on)) == ([], False)
        now = time.time()
        monkeypatch.setattr("petif_bluesky.attachment.time.time", lambda: now + 3 * 3600)
        alarm = "the newest dark of pe is 3 h old, dark_max_age is 1 h"
        assert on.alarms == [alarm]
        assert on.status.endswith(f"ALARM: {alarm}")
        assert f"ALARM: {alarm}" in repr(on)


def test_run_waits_for_a_dark_that_is_looked_up(
    lab: Lab, callback: ConversionCallback, detector: SimulatedPerkinElmer
) -> None:
    answer = threading.Event()

    def find(_uid: str) -> list[Dark]:
        assert answer.wait(PATIENCE)
        return [Dark("dark", DetectorSettings("pe", "pe_image"), ("/data/raw/d.tif",), 1.7e9, of_dark_run=True)]

    callback.darks.find = find
    lab.run_engine.subscribe(callback)
    lab.server.on_follow = lambda: threading.Timer(0.2, answer.set).start()
    lab.run(bp.count([detector], num=2, md={"sc_dk_field_uid": "dark"}), recipe=RECIPE)
    assert lab.converter.reading.drained
    assert [dark_of(request) for request in requests(lab.server)] == ["/data/raw/d.tif"] * 2
