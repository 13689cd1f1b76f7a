"""Runs whose frames are combined: several exposures an event, maps, points taken again, two converters, fly scans."""

import math
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
import tifffile
from bluesky.utils import RunEngineInterrupted
from ophyd import Signal
from ophyd.sim import SynAxis

from petif_bluesky import ConversionCallback, PETifConverter, conversion_wrapper
from petif_bluesky.delivery import sender
from petif_bluesky.delivery.run_groups import RunGroups
from petif_bluesky.documents.frame import Frame
from petif_bluesky.remote.session import RemoteSession
from petif_bluesky.spool import Spool
from petif_bluesky.testing.fake_server import FakeServer
from petif_bluesky.testing.reports import really_combined
from tango_server.messages import FrameRequest, GroupReport
from tango_server.recipe import NewFile, Recipe
from tests.unit.burst import Burst, paused_after
from tests.unit.documents import IN_STREAM, NUMBER, ComposedRun, Recorder
from tests.unit.lab import Lab

SHAPE = (32, 48)


def recipe(of: Any, method: str = "sum", **combine: Any) -> Recipe:
    return Recipe.preset("xdi", combine={"of": of, "method": method, **combine})


@pytest.fixture
def combined(lab: Lab, callback: ConversionCallback) -> Lab:
    """A lab whose frames are combined by the code of the server."""
    lab.run_engine.subscribe(callback)
    lab.server.report_group = really_combined
    return lab


def numbers(recorder: Recorder) -> dict[str, Any]:
    event = recorder.stream("conversion")[-1]
    return {key.removeprefix("converter_"): value for key, value in event["data"].items()}


def by_group(server: FakeServer) -> dict[str, list[FrameRequest]]:
    found: dict[str, list[FrameRequest]] = {}
    for request in server.requests.values():
        found.setdefault(request.group or "", []).append(request)
    return found


def summed(requests: list[FrameRequest]) -> Any:
    """The sum of the raw frames, as numbers."""
    return sum(tifffile.imread(request.source).astype(np.float64) for request in requests)


@pytest.fixture
def burst(tmp_path: Path) -> Burst:
    return Burst(tmp_path / "raw" / "burst", 3, name="burst")


def exposures(detector: Any, count: int) -> Any:
    """Several events at each point."""

    def per_step(detectors: Any, step: Any, pos_cache: Any) -> Any:
        del detectors
        yield from bps.move_per_step(step, pos_cache)
        for _ in range(count):
            yield from bps.trigger_and_read([detector, *step])

    return per_step


def paused(lab: Lab, plan: Any, **options: Any) -> None:
    with pytest.raises(RunEngineInterrupted):
        lab.run(plan, **options)
    lab.run_engine.resume()


def require_sums(lab: Lab) -> None:
    """Each output is the sum of the frames of its group that were not superseded."""
    superseded = {request.supersedes for request in lab.server.requests.values()}
    made = dict[str, Path]()
    for event in lab.recorder.stream("converted"):
        made[event["data"]["converter_raw"]] = Path(event["data"]["converter_output"])
    groups = by_group(lab.server)
    for requests in groups.values():
        members = [request for request in requests if request.key not in superseded]
        expected = np.trunc(summed(members)).astype(np.int32)
        np.testing.assert_array_equal(tifffile.imread(made.pop(members[0].source)), expected)
    assert not made


def test_exposures_of_an_event_become_one_frame(combined: Lab, burst: Burst) -> None:
    combined.run(bp.count([burst], num=2), recipe=recipe("event"))
    combined.recorder.check()
    require_sums(combined)
    first, _ = combined.recorder.stream("converted")
    assert (Path(first["data"]["converter_raw"]).name, first["data"]["converter_seq_num"]) == ("burst_000000.tiff", 1)
    assert not combined.recorder.stream("unconverted")
    found = numbers(combined.recorder)
    assert [found[key] for key in ("submitted", "converted", "grouped", "groups", "failed")] == [6, 0, 6, 2, 0]
    assert [found[key] for key in ("groups_failed", "superseded", "drained")] == [0, 0, True]
    report = combined.converter.reports[-1]
    assert isinstance(report, GroupReport)
    assert [member.outcome for member in report.members] == ["grouped"] * 3


def test_data_keys_of_the_converter_never_change_within_a_run(combined: Lab, burst: Burst) -> None:
    """It may be part of a baseline, which is read before and after the frames of a run."""
    for of in (None, "event", None):
        used = recipe(of) if of else Recipe.preset("xdi")
        plan = bpp.baseline_wrapper(bp.count([burst]), [combined.converter])
        combined.run(plan, recipe=used)
    combined.recorder.check()
    found = [event["data"].get("converter_groups") for event in combined.recorder.stream("conversion")]
    assert found == [None, 1, None]


def test_snake_scan_has_one_frame_for_each_point(combined: Lab) -> None:
    rng = np.random.default_rng(24)
    motors = [SynAxis(name=name, readback_func=lambda x: x + rng.normal(0, 0.01)) for name in ("sample_y", "sample_x")]
    plan = bp.grid_scan(
        [combined.detector], motors[0], 0, 1, 2, motors[1], 0, 0.02, 3, snake_axes=True,
        per_step=exposures(combined.detector, 3),
    )  # fmt: skip
    combined.run(plan, recipe=recipe({"by": {"sample_x": 0.005, "sample_y": 0.005}}))
    require_sums(combined)
    assert [name.rpartition("/")[2] for name in by_group(combined.server)] == [
        "0.0,0.0", "0.01,0.0", "0.02,0.0", "0.02,1.0", "0.01,1.0", "0.0,1.0",
    ]  # fmt: skip
    found = numbers(combined.recorder)
    assert [found[key] for key in ("submitted", "grouped", "groups", "drained")] == [18, 18, 6, True]


@pytest.mark.parametrize("of", ["event", "run", {"every": 2}, {"by": {"sample_x": 0.1}}])
def test_point_taken_again_supersedes_the_earlier_one(combined: Lab, of: Any) -> None:
    motor = SynAxis(name="sample_x")
    plan = bp.count([combined.detector, motor], num=4, per_shot=paused_after(2))
    paused(combined, plan, recipe=recipe(of))
    assert [event["seq_num"] for event in combined.recorder.stream("primary")] == [1, 2, 2, 3, 4]
    require_sums(combined)
    found = numbers(combined.recorder)
    assert [found[key] for key in ("submitted", "grouped", "superseded", "drained")] == [5, 4, 1, True]
    assert len(combined.recorder.stream("converted")) == found["groups"]


def test_frames_without_a_position_are_named_and_the_run_goes_on(combined: Lab) -> None:
    motor = SynAxis(name="sample_x")
    extra = Signal(name="note", value=0.0)

    def plan() -> Any:
        yield from bps.open_run()
        for value in (0.0, math.nan, 0.0):
            extra.put(value)  # a move to NaN never ends
            yield from bps.trigger_and_read([combined.detector, motor, extra])
        yield from bps.close_run()

    combined.run(bpp.stage_wrapper(plan(), [combined.detector]), recipe=recipe({"by": {"sample_x": 0.1, "note": 0.1}}))
    found = numbers(combined.recorder)
    assert [found[key] for key in ("submitted", "grouped", "failed", "groups", "drained")] == [3, 2, 1, 1, True]
    (failed,) = combined.recorder.stream("unconverted")
    assert "'note' of its event is not a number" in failed["data"]["converter_reason"]
    assert failed["data"]["converter_seq_num"] == 2


def test_group_that_fails_is_in_the_run_and_others_go_on(combined: Lab, burst: Burst) -> None:
    lost = burst._folder / "burst_000001.tiff"
    combined.server.converts = False
    combined.server.on_follow = lambda: lost.unlink(missing_ok=True) or _convert(combined.server)
    combined.run(bp.count([burst], num=2), recipe=recipe("event"))
    found = numbers(combined.recorder)
    assert [found[key] for key in ("groups", "groups_failed", "grouped", "drained")] == [1, 1, 3, True]
    reasons = [event["data"]["converter_reason"] for event in combined.recorder.stream("unconverted")]
    assert any("1 of 3 frames are missing" in reason for reason in reasons)


def _convert(server: FakeServer) -> None:
    server.converts = True


def test_run_is_not_drained_before_its_last_group_is_written(combined: Lab) -> None:
    combined.converter.drain_timeout = 0.2
    combined.server.converts = False
    combined.run(bp.count([combined.detector], num=2), recipe=recipe("run"))
    assert (numbers(combined.recorder)["drained"], numbers(combined.recorder)["submitted"]) == (False, 2)
    combined.server.converts = True
    combined.run(bp.count([combined.detector], num=2), recipe=recipe("run"))
    assert (numbers(combined.recorder)["drained"], numbers(combined.recorder)["groups"]) == (True, 1)


def test_points_are_not_waited_for_while_their_group_is_open(combined: Lab) -> None:
    before = time.monotonic()
    combined.run(bp.count([combined.detector], num=4), recipe=recipe({"every": 2}), wait="point")
    assert time.monotonic() - before < 0.5 * combined.converter.drain_timeout
    require_sums(combined)
    kinds = [event["seq_num"] for event in combined.recorder.events()]
    assert len(kinds) == 4 + 2 + 1
    assert numbers(combined.recorder)["drained"]


def test_another_process_closes_the_groups_at_the_stop_document(lab: Lab, tmp_path: Path, burst: Burst) -> None:
    lab.server.report_group = really_combined
    lab.converter.drain_timeout = 0.2
    with closing(ConversionCallback(RemoteSession(lab.server), spool=tmp_path / "remote.sqlite")) as callback:
        lab.run_engine.subscribe(callback)
        lab.run(bp.count([burst], num=2), recipe=recipe("run"))
        (uid,) = {request.run_uid for request in lab.server.requests.values()}
        assert uid is not None
        lab.server.until(lambda: lab.server.statistics(uid).groups == 1)
    assert not numbers(lab.recorder)["drained"], "the group was written after the run"
    assert lab.server.statistics(uid).grouped == 6


def test_two_converters_have_groups_of_their_own(
    combined: Lab, server: FakeServer, burst: Burst, tmp_path: Path
) -> None:
    other = PETifConverter(server.address, name="mean", poller=server, drain_timeout=20.0)
    of_run = recipe("run", "mean", timeout=5.0).model_copy(update={"output": NewFile(folder=str(tmp_path / "mean"))})
    with closing(ConversionCallback(other, spool=tmp_path / "other.sqlite")) as callback:
        combined.run_engine.subscribe(callback)
        inner = conversion_wrapper(bp.count([burst], num=2), combined.converter, recipe=recipe("event"))
        (uid,) = combined.run_engine(conversion_wrapper(inner, other, recipe=of_run))
    assert {name: len(requests) for name, requests in by_group(server).items()} == {
        f"{uid}/burst_image/primary/1": 3, f"{uid}/burst_image/primary/2": 3, f"{uid}#mean/burst_image/primary/0": 6,
    }  # fmt: skip
    assert len(combined.recorder.stream("converted")) == 2
    (event,) = combined.recorder.stream("converted_mean")
    frames = [request for request in server.requests.values() if request.run_uid == f"{uid}#mean"]
    expected = np.trunc(summed(frames) / 6).astype(np.int32)
    np.testing.assert_array_equal(tifffile.imread(event["data"]["mean_output"]), expected)


@pytest.mark.parametrize(("of", "sizes"), [("event", [2, 2, 2]), ("run", [6]), ({"every": 4}, [4, 2])])
def test_fly_scan_without_events_is_combined(
    callback: ConversionCallback, server: FakeServer, of: Any, sizes: list[int]
) -> None:
    run = ComposedRun(callback, conversion={"recipe": recipe(of).model_dump(mode="json")})
    run.stream(pe={"image": {**IN_STREAM, "shape": [2, 48, 64]}})
    datum = run.stream_resource("pe_image", "file://localhost/data/raw/", "a_{:06d}.tiff", chunk_shape=[1, 48, 64])
    datum(0, 2)
    datum(2, 3, seq_num=3)
    run.stop()
    server.until(lambda: server.statistics(run.uid).groups == len(sizes))
    assert [len(requests) for requests in by_group(server).values()] == sizes
    assert server.statistics(run.uid).pending == 0


@pytest.mark.parametrize("first", ["datum", "event"])
def test_stream_datums_wait_for_the_positions_in_their_event(
    callback: ConversionCallback, server: FakeServer, first: str
) -> None:
    of_positions = recipe({"by": {"sample_x": 0.1}})
    run = ComposedRun(callback, conversion={"recipe": of_positions.model_dump(mode="json")})
    run.stream(pe={"image": IN_STREAM}, sample={"x": NUMBER})
    datum = run.stream_resource("pe_image", "file://localhost/data/raw/", "a_{:06d}.tiff")
    for number, position in enumerate((0.0, 0.05, 1.0, 0.05)):
        if first == "datum":
            datum(number, number + 1, seq_num=number + 1)
        run.event(sample_x=position)
        if first == "event":
            datum(number, number + 1, seq_num=number + 1)
    run.stop()
    server.until(lambda: server.statistics(run.uid).groups == 2 and not server.statistics(run.uid).pending)
    members = {name.rpartition("/")[2]: [each.seq_num for each in of] for name, of in by_group(server).items()}
    assert members == {"0.0": [1, 2, 4], "1.0": [3]}


def test_recipe_of_the_server_combines_the_frames_of_a_run(combined: Lab, burst: Burst) -> None:
    combined.server.poll(replace(combined.server.state, recipe=recipe("event").model_dump(mode="json")))
    combined.run(bp.count([burst]))
    assert numbers(combined.recorder)["groups"] == 1


def test_run_with_open_groups_is_announced_again(
    combined: Lab, monkeypatch: pytest.MonkeyPatch, server: FakeServer
) -> None:
    monkeypatch.setattr(sender, "_STILL_OPEN", 0.02)

    def wait(name: str, document: Any) -> None:
        if name == "event" and document["seq_num"] == 1:
            (start,) = combined.recorder.of("start")
            server.until(lambda: server.announced.count(start["uid"]) >= 4)

    combined.run_engine.subscribe(wait)
    combined.run(bp.count([combined.detector], num=2), recipe=recipe("run"))
    assert not combined.converter.runs.with_open_groups()
    assert numbers(combined.recorder)["groups"] == 1


def test_closings_survive_the_end_of_a_session(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    with closing(Spool(path)) as spool:
        spool.put_all([{"key": "k", "run_uid": "1f", "source": "/raw/a.tif"}], {"1f/pe/primary/0": 1})
    with closing(Spool(path)) as spool:
        member, end = spool.first(10)
        assert (member.closing, end.closing, end.request) == (None, ("1f/pe/primary/0", 1), None)
        assert spool.frames == 1


def test_members_are_sent_before_their_group_is_closed(tmp_path: Path, server: FakeServer) -> None:
    """Also if the server was away, and the session that has combined them is over."""
    path = tmp_path / "spool.sqlite"
    frames = [
        Frame(f"/data/raw/{number}.tif", number, "1f", "primary", "pe_image", recipe("run").model_dump(mode="json"))
        for number in range(120)
    ]
    with closing(Spool(path)) as spool:
        groups = RunGroups(spool.put_all, lambda _run, _members: None)
        groups.put(frames)
        groups.close("1f")
    with closing(Spool(path)) as spool:
        delivery = sender.Sender(spool, server)
        delivery.wake()
        server.until(lambda: server.statistics("1f").groups == 1)
        delivery.close(5.0)
    (report,) = (each for each in server.reports_of_run("1f") if isinstance(each, GroupReport))
    assert [Path(member.source).stem for member in report.members] == [str(number) for number in range(120)]
