"""Runs whose frames a real server combines: pixels, statistics, streams and catalogue agree with the files."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import fabio
import numpy as np
import pytest
import tifffile
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from ophyd import Component, Device, Kind, Signal
from ophyd.sim import SynAxis
from ophyd.status import Status

from petif_bluesky import Attached, PETifConverter, attach
from petif_bluesky.sim import SimulatedPerkinElmer
from tango_server.client.local_server import LocalServer
from tango_server.messages import FrameReport, GroupReport
from tango_server.recipe import Recipe
from tests.system.waiting import until
from tests.unit.burst import Burst, paused_after
from tests.unit.documents import Recorder

pytestmark = pytest.mark.usefixtures("own_state")

Image = np.ndarray[Any, Any]
Groups = list[list[Path]]


def recipe(of: Any, method: str = "sum", preset: str = "xdi", **fields: Any) -> Recipe:
    combine = {"of": of, "method": method, **fields.pop("combine", {})}
    return Recipe.preset(preset, combine=combine, **fields)


def summed(images: Sequence[Image]) -> Image:
    return np.trunc(np.sum(images, axis=0, dtype=np.float64)).astype(np.int32)


class Session:
    """A RunEngine with a converter and a catalogue."""

    def __init__(self, engine: RunEngine, attached: Attached, root: Path, client: Any) -> None:
        self.engine, self.attached, self.root, self.client = engine, attached, root, client
        self.recorder = Recorder()
        engine.subscribe(self.recorder)

    def run(self, plan: Any, used: Recipe, in_pause: Callable[[], object] | None = None) -> str:
        """Run a plan, which is paused once if `in_pause` is given; return the uid when all is in the catalogue."""
        md = {"conversion": used.model_dump(mode="json")}
        if in_pause is None:
            (uid,) = self.engine(plan, **md)
        else:
            with pytest.raises(RunEngineInterrupted):
                self.engine(plan, **md)
            in_pause()
            (uid,) = self.engine.resume()
        assert self.attached.wait(30.0)
        return str(uid)

    def files(self, uid: str, stream: str = "primary") -> list[Path]:
        return [Path(event["data"]["pe_full_file_name"]) for event in self.recorder.stream(stream, uid)]

    def reports(self, uid: str) -> tuple[list[GroupReport], list[FrameReport]]:
        found = self.attached.converter.client.reports_of_run(uid)
        groups = [each for each in found if isinstance(each, GroupReport)]
        return groups, [each for each in found if not isinstance(each, GroupReport)]

    def check(
        self,
        uid: str,
        expected: Groups,
        combined: Callable[[Sequence[Image]], Image] = summed,
        *,
        superseded: Iterable[Path] = (),
        failed: Iterable[Path] = (),
        groups_failed: int = 0,
        corrected: Callable[[Path], Image] = tifffile.imread,
    ) -> None:
        """Compare outputs, reports, statistics, streams and catalogue with the raw files of the events that count."""
        self.recorder.check()
        groups, frames = self.reports(uid)
        made = {tuple(each.source for each in report.members): report for report in groups if report.output}
        assert set(made) == {tuple(map(str, group)) for group in expected}
        images = {}
        for group in expected:
            report = made[tuple(map(str, group))]
            assert {each.outcome for each in report.members} == {"grouped"}
            images[str(report.output)] = combined([corrected(path) for path in group])
            np.testing.assert_array_equal(tifffile.imread(str(report.output)), images[str(report.output)])
        outcomes = {name: set() for name in ("grouped", "superseded", "failed")}
        for frame in frames:
            outcomes[frame.outcome].add(Path(frame.source))
        grouped = {path for group in expected for path in group}
        assert outcomes == {"grouped": grouped, "superseded": set(superseded), "failed": set(failed)}
        counts = {name: len(paths) for name, paths in outcomes.items()}
        counts |= {"submitted": len(frames), "groups_failed": groups_failed}
        self._check_numbers(uid, counts, sorted(images))
        self._check_streams(uid, images)

    def _check_numbers(self, uid: str, counts: dict[str, int], outputs: list[str]) -> None:
        """The statistics are those of the files, on the server, in the run and in the catalogue."""
        on_disk = sorted(
            str(path) for path in (self.root / "processed").rglob("*") if path.suffix not in {".metadata", ".csv", ""}
        )
        assert outputs == on_disk, "no output is left over"
        expected = {**counts, "groups": len(outputs), "pending": 0, "converted": 0}
        statistics = self.attached.converter.client.run_statistics(uid)
        assert {name: getattr(statistics, name) for name in expected} == expected
        assert statistics.bytes_out == sum(Path(path).stat().st_size for path in outputs)
        in_catalogue = self.client[uid].metadata["conversion"]
        assert {name: in_catalogue.get(name, 0) for name in expected} == expected
        event = self.recorder.stream("conversion", uid)[-1]
        numbers = {name.removeprefix("converter_"): value for name, value in event["data"].items()}
        assert {name: numbers[name] for name in expected if name in numbers} == {
            name: count for name, count in expected.items() if name in numbers
        }
        assert numbers["drained"]
        read = event["timestamps"]["converter_drained"]
        assert all(Path(path).stat().st_mtime <= read for path in outputs), "drained before the last output was there"

    def _check_streams(self, uid: str, images: dict[str, Image]) -> None:
        rows = [event["data"] for event in self.recorder.stream("converted", uid)]
        assert sorted(row["converter_output"] for row in rows) == sorted(images), "one row a group"
        catalogued = self.client[uid]["converted"]["converter_image"].read()[:, 0]
        np.testing.assert_array_equal(catalogued, [images[row["converter_output"]] for row in rows])


class Position(Device):
    """A position that is another one at each event, also when an event is taken again."""

    x = Component(Signal, value=0.0, kind=Kind.hinted)

    def __init__(self, *values: float) -> None:
        super().__init__(name="sample")
        self._values = iter(values)

    def trigger(self) -> Status:
        self.x.put(next(self._values))
        done = Status(self)
        done.set_finished()
        return done


BY_X = {"by": {"sample_x": 0.01}}


@pytest.fixture
def session(run_engine: RunEngine, server: LocalServer, root: Path, client: Any) -> Iterator[Session]:
    with attach(run_engine, server.address, tiled=client) as attached:
        yield Session(run_engine, attached, root, client)


@pytest.fixture
def detector(root: Path) -> SimulatedPerkinElmer:
    return SimulatedPerkinElmer(
        name="pe", directory=root / "raw", shape=(32, 48), exposure_time=0.01, pixel_type="uint16"
    )


@pytest.fixture
def burst(root: Path) -> Burst:
    return Burst(root / "raw", 3, name="burst")


def of_burst(root: Path, *events: int) -> Groups:
    """The three files of each of these events, counted from 0 in the order in which they were taken."""
    return [
        [root / "raw" / f"burst_{number:06d}.tiff" for number in range(3 * event, 3 * event + 3)] for event in events
    ]


@pytest.mark.long
def test_three_frames_of_an_event_become_their_sum(session: Session, burst: Burst, root: Path) -> None:
    uid = session.run(bp.count([burst], num=3), recipe("event"))
    session.check(uid, of_burst(root, 0, 1, 2))


def test_event_that_is_taken_again_replaces_the_earlier_sum(session: Session, burst: Burst, root: Path) -> None:
    """The earlier sum was written when the event was taken again."""

    def sum_is_written() -> None:
        until((root / "processed" / "burst_000003.tiff").exists, "the sum of the second event is written")

    uid = session.run(bp.count([burst], num=3, per_shot=paused_after(2)), recipe("event"), sum_is_written)
    (earlier,) = of_burst(root, 1)
    session.check(uid, of_burst(root, 0, 2, 3), superseded=earlier)


def exposures(count: int) -> Any:
    """Several events at each point of a scan."""

    def per_step(detectors: Any, step: Any, pos_cache: Any) -> Any:
        yield from bps.move_per_step(step, pos_cache)
        for _ in range(count):
            yield from bps.trigger_and_read([*detectors, *step])

    return per_step


def test_snake_scan_gives_one_frame_for_each_point(session: Session, detector: SimulatedPerkinElmer) -> None:
    rng = np.random.default_rng(24)
    motors = [SynAxis(name=name, readback_func=lambda x: x + rng.normal(0, 0.002)) for name in ("y", "x")]
    plan = bp.grid_scan(
        [detector], motors[0], 0, 1, 2, motors[1], 0, 0.02, 3, snake_axes=True, per_step=exposures(3)
    )  # fmt: skip
    uid = session.run(plan, recipe({"by": {"x": 0.005, "y": 0.005}}, "mean"))
    files = session.files(uid)
    assert len(files) == 18
    session.check(
        uid,
        [files[number : number + 3] for number in range(0, 18, 3)],
        lambda images: np.trunc(np.mean(images, axis=0, dtype=np.float64)).astype(np.int32),
    )


def test_positions_within_tolerance_come_back_to_their_group(session: Session, detector: SimulatedPerkinElmer) -> None:
    """The group was written before its last members came."""
    position = Position(0.0, 0.004, 1.0, 1.0, 0.009, 2.0)
    uid = session.run(bp.count([detector, position], num=6), recipe(BY_X))
    files = session.files(uid)
    session.check(uid, [[files[0], files[1], files[4]], files[2:4], files[5:]])


def rewound(detector: Any, position: Position, events: int) -> Any:
    """Events without a checkpoint between them, which are all taken again after a pause, and one event more."""

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.checkpoint()
        for _ in range(events):
            yield from bps.trigger_and_read([detector, position])
        yield from bps.pause()
        yield from bps.checkpoint()
        yield from bps.trigger_and_read([detector, position])

    return plan()


@pytest.mark.long
def test_points_taken_again_where_they_were(session: Session, detector: SimulatedPerkinElmer) -> None:
    position = Position(0.0, 1.0, 0.0, 1.0, 1.0)
    uid = session.run(rewound(detector, position, 2), recipe(BY_X), lambda: written(session, 0))
    files = session.files(uid)
    session.check(uid, [files[2:3], files[3:]], superseded=files[:2])


@pytest.mark.long
def test_point_taken_again_elsewhere_leaves_its_group(session: Session, detector: SimulatedPerkinElmer) -> None:
    """One group, already written, loses its first frame, and another its last."""
    position = Position(0.0, 0.0, 1.0, 1.0, 5.0, 0.0, 1.0, 6.0, 6.0)
    uid = session.run(rewound(detector, position, 4), recipe(BY_X), lambda: written(session, 0))
    files = session.files(uid)
    session.check(uid, [files[4:5], files[5:6], files[6:7], files[7:]], superseded=files[:4])


@pytest.mark.long
def test_group_whose_points_are_all_taken_elsewhere_is_gone(session: Session, detector: SimulatedPerkinElmer) -> None:
    position = Position(0.0, 1.0, 5.0, 1.0, 1.0)
    uid = session.run(rewound(detector, position, 2), recipe(BY_X), lambda: written(session, 0))
    files = session.files(uid)
    session.check(uid, [files[2:3], files[3:]], superseded=files[:2])


def written(session: Session, number: int) -> None:
    """Wait until the group whose first file has this number is written."""
    first = Path(session.recorder.stream("primary")[number]["data"]["pe_full_file_name"])
    until((session.root / "processed" / first.name).exists, "the first group is written")


def test_frames_without_a_position_fail_and_the_run_goes_on(session: Session, detector: SimulatedPerkinElmer) -> None:
    position = Position(0.0, math.nan, 0.0, 1.0)

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan() -> Any:
        for _ in range(3):
            yield from bps.trigger_and_read([detector, position])
        yield from bps.trigger_and_read([detector], name="without")
        yield from bps.trigger_and_read([detector, position])

    uid = session.run(plan(), recipe(BY_X))
    files, without = session.files(uid), session.files(uid, "without")
    session.check(uid, [[files[0], files[2]], files[3:]], failed=[files[1], *without])
    reasons = {report.source: report.reason for report in session.reports(uid)[1] if report.outcome == "failed"}
    assert "'sample_x' of its event is not a number" in reasons[str(files[1])]
    assert "sample_x" in reasons[str(without[0])]
    rows = [event["data"]["converter_raw"] for event in session.recorder.stream("unconverted", uid)]
    assert sorted(rows) == sorted(map(str, [files[1], *without]))


@pytest.mark.long
def test_damaged_frame_fails_its_group_and_others_go_on(session: Session, burst: Burst, root: Path) -> None:
    """The frame of the second event is cut before the third one is taken."""

    def per_shot(detectors: Any) -> Any:
        yield from bps.trigger_and_read(detectors)
        if (second := root / "raw" / "burst_000004.tiff").exists():
            second.write_bytes(b"not a frame at all")

    uid = session.run(bp.count([burst], num=3, per_shot=per_shot), recipe("event"))
    (second,) = of_burst(root, 1)
    session.check(uid, of_burst(root, 0, 2), failed=second, groups_failed=1)
    (report,) = (each for each in session.reports(uid)[0] if each.outcome == "failed")
    assert second[1].name in report.reason
    assert "1 of 3" in report.reason


def test_each_member_has_the_dark_that_was_taken_before_it(session: Session, detector: SimulatedPerkinElmer) -> None:
    """The dark changes within a group, which the plan leaves and comes back to."""
    position = Position(0.0, 0.0, 1.0, 0.0)

    def dark() -> Any:
        yield from bps.mv(detector.shutter, "closed")
        yield from bps.trigger_and_read([detector], name="dark")
        yield from bps.mv(detector.shutter, "open")

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from dark()
        yield from bps.trigger_and_read([detector, position])
        yield from dark()
        for _ in range(3):
            yield from bps.trigger_and_read([detector, position])

    uid = session.run(plan(), recipe(BY_X, corrections={"dark": "run"}))
    files, (first, second) = session.files(uid), map(tifffile.imread, session.files(uid, "dark"))
    assert np.any(first != second)

    def corrected(path: Path) -> Image:
        return tifffile.imread(path).astype(np.float64) - (first if path == files[0] else second)

    session.check(uid, [[files[0], files[1], files[3]], files[2:3]], corrected=corrected)
    (report,) = (each for each in session.reports(uid)[0] if len(each.members) == 3)
    assert {master.path for master in report.masters} == set(map(str, session.files(uid, "dark")))


@pytest.mark.long
def test_two_converters_combine_the_same_frames(session: Session, burst: Burst, root: Path) -> None:
    """One sums the frames of each event; the other averages the run, before whose end it makes nothing."""
    other = PETifConverter(session.attached.address, name="mean")
    mean = recipe("run", "mean", output={"folder": str(root / "mean")})
    with ExitStack() as stack:
        stack.callback(other.destroy)
        attached = stack.enter_context(attach(session.engine, other, recipe=mean, tiled=session.client))
        uid = session.run(bp.count([burst], num=2), recipe("event"))
        assert attached.wait(30.0)
        statistics = other.client.run_statistics(f"{uid}#mean")
    session.check(uid, of_burst(root, 0, 1))
    files = [path for group in of_burst(root, 0, 1) for path in group]
    expected = np.trunc(np.mean([tifffile.imread(path) for path in files], axis=0, dtype=np.float64)).astype(np.int32)
    (row,) = session.recorder.stream("converted_mean", uid)
    np.testing.assert_array_equal(tifffile.imread(row["data"]["mean_output"]), expected)
    assert (statistics.grouped, statistics.groups, statistics.pending) == (6, 1, 0)
    (numbers,) = session.recorder.stream("conversion_mean", uid)
    assert (numbers["data"]["mean_groups"], numbers["data"]["mean_drained"]) == (1, True)
    assert session.client[uid].metadata["conversion_mean"]["groups"] == 1


@pytest.mark.parametrize(("width", "is_contiguous"), [(0.5, True), pytest.param(0.4, False, marks=pytest.mark.long)])
def test_esperanto_of_combined_frames_has_contiguous_angles(
    session: Session, root: Path, width: float, is_contiguous: bool
) -> None:
    detector = SimulatedPerkinElmer(name="pe", directory=root / "raw", shape=(256, 256), exposure_time=0.1)
    omega = SynAxis(name="omega", precision=6)
    used = recipe({"every": 2}, preset="esperanto", esperanto={"omega": {"center": "omega", "width": width}})
    uid = session.run(bp.scan([detector], omega, 0, 1.5, 4), used)
    files = session.files(uid)
    groups = sorted(session.reports(uid)[0], key=lambda report: report.source)
    assert [[each.source for each in report.members] for report in groups] == [
        [str(path) for path in files[:2]], [str(path) for path in files[2:]],
    ]  # fmt: skip
    (numbers,) = session.recorder.stream("conversion", uid)
    assert numbers["data"]["converter_drained"]
    if not is_contiguous:
        assert [report.outcome for report in groups] == ["failed"] * 2
        assert all("omega" in report.reason for report in groups), groups[0].reason
        assert not list((root / "processed").rglob("*.esperanto"))
        return
    for report, start, pair in zip(groups, (-0.25, 0.75), (files[:2], files[2:]), strict=True):
        assert report.outcome == "converted", report.reason
        assert str(report.output).endswith(f"_1_{1 if start < 0 else 2}.esperanto"), "numbered one by one"
        frame = fabio.open(str(report.output))
        expected = np.rot90(summed([tifffile.imread(path) for path in pair]), 2)
        np.testing.assert_array_equal(frame.data, np.where(expected == -1, 0, expected))  # -1 means masked there
        assert (frame.header["dom_s"], frame.header["dom_e"]) == pytest.approx((start, start + 1.0))
        assert frame.header["dexposuretimeinsec"] == pytest.approx(0.2)
