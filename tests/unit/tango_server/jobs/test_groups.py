"""Groups of frames through a real service with worker processes: what is written, and what the reports say."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tango_server.jobs.runner import JobRunner
from tango_server.jobs.startup import open_runner
from tango_server.messages import (
    CancelQuery,
    FrameReport,
    GroupReport,
    ReportsQuery,
    RunStatistics,
    SubmitAnswer,
    SubmitQuery,
)
from tango_server.recipe import Recipe
from tango_server.settings import Settings

PATIENCE = 60.0
SUM: dict[str, Any] = {"of": "event", "method": "sum"}


class Service:
    """A running service and its frames."""

    def __init__(self, settings: Settings) -> None:
        self.root = settings.read_roots[0]
        self._changed = threading.Condition()
        self.runner = open_runner(settings, self._ring)

    def _ring(self, _: JobRunner) -> None:
        with self._changed:
            self._changed.notify_all()

    def until(self, true: Callable[[], bool], what: str) -> None:
        with self._changed:
            assert self._changed.wait_for(true, PATIENCE), f"it never came to that: {what}"

    def until_idle(self) -> None:
        self.until(lambda: self.runner.snapshot.queue_length == 0, "all is reported")

    def path(self, number: int) -> Path:
        return self.root / "raw" / f"frame_{number:05d}.tif"

    def write(self, number: int) -> np.ndarray[Any, np.dtype[np.int16]]:
        image = np.random.default_rng(number).integers(0, 2000, (32, 48), np.int16)
        part = self.path(number).with_suffix(".part")
        tifffile.imwrite(part, image)
        part.rename(self.path(number))
        return image

    def request(self, number: int, member: int, group: str = "g", **fields: Any) -> dict[str, Any]:
        combine = {**SUM, **fields.pop("combine", {})}
        recipe = Recipe(combine=combine).model_dump(mode="json")
        return {
            "source": str(self.path(number)), "run_uid": "run", "stream": "primary", "seq_num": 1, "group": group,
            "member": member, "recipe": recipe, **fields,
        }  # fmt: skip

    def submit(self, requests: Sequence[dict[str, Any]] = (), **query: Any) -> SubmitAnswer:
        return self.runner.intake.submit(SubmitQuery(requests=list(requests), **query))

    def reports(self) -> list[FrameReport]:
        return self.runner.reports(ReportsQuery(run_uid="run")).reports

    def group(self) -> GroupReport:
        (found,) = (each for each in self.reports() if isinstance(each, GroupReport))
        return found

    @property
    def statistics(self) -> RunStatistics:
        return self.runner.history.run_statistics("run")


def counts(statistics: RunStatistics) -> dict[str, int]:
    names = ("submitted", "converted", "skipped", "placeholders", "failed", "pending", "grouped", "groups",
             "groups_failed", "superseded")  # fmt: skip
    return {name: count for name in names if (count := getattr(statistics, name))}


Serve = Callable[..., Any]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Run a service; every one of a test has the same ledger."""
    root = tmp_path.resolve()
    for name in ("raw", "state"):
        (root / name).mkdir()

    @contextmanager
    def serve(**changes: Any) -> Iterator[Service]:
        fields: dict[str, Any] = {
            "read_roots": (root,), "state_dir": root / "state", "numworkers": 1, "sidecar_timeout": 0.0,
            "settle_time": 0.1, "timeout": 1.0, "run_timeout": 1.0, **changes,
        }  # fmt: skip
        service = Service(Settings(**fields))
        try:
            yield service
        finally:
            service.runner.close()

    return serve


def test_ten_frames_become_one_sum_with_a_report(serve: Serve) -> None:
    with serve() as service:
        images = [service.write(number) for number in range(10)]
        service.submit([service.request(number, number, members=10) for number in reversed(range(10))])
        service.until_idle()
        report = service.group()
        assert np.array_equal(tifffile.imread(str(report.output)), np.sum(images, axis=0, dtype=np.int32))
        assert report.output == str(service.root / "processed" / "frame_00000.tif")
        assert [each.source for each in report.members] == [str(service.path(number)) for number in range(10)]
        assert {each.outcome for each in report.members} == {"grouped"}
        frames = [each for each in service.reports() if not isinstance(each, GroupReport)]
        assert {(each.outcome, each.output) for each in frames} == {("grouped", report.output)}
        assert counts(service.statistics) == {"submitted": 10, "grouped": 10, "groups": 1}
        snapshot = service.runner.snapshot
        assert (snapshot.processed, snapshot.grouped, snapshot.groups, snapshot.converted) == (10, 10, 1, 0)


def test_a_late_member_is_awaited_and_pending_until_the_output_is_there(serve: Serve) -> None:
    with serve(run_timeout=60.0) as service:
        images = [service.write(number) for number in range(2)]
        service.submit([service.request(number, number) for number in range(3)])
        service.submit(close_groups={"g": 3})
        assert service.statistics.pending == 3
        assert not (service.root / "processed").exists()
        images.append(service.write(2))
        while (now := service.statistics).pending:
            assert not counts(now).keys() & {"grouped", "groups"}
        report = service.group()
        assert np.array_equal(tifffile.imread(str(report.output)), np.sum(images, axis=0, dtype=np.int32))


def test_one_failed_member_fails_its_group_and_a_retry_makes_it(serve: Serve) -> None:
    with serve() as service:
        images = [service.write(number) for number in (0, 1)]
        service.path(2).write_bytes(b"not a frame at all")
        service.submit([service.request(number, number, members=3) for number in range(3)])
        service.until_idle()
        report = service.group()
        assert report.outcome == "failed"
        assert "1 of 3 frames are missing or failed" in report.reason
        assert [each.outcome for each in report.members] == ["failed"] * 3
        assert counts(service.statistics) == {"submitted": 3, "failed": 3, "groups_failed": 1}
        assert service.runner.snapshot.failed == 3
        images.append(service.write(2))
        assert service.runner.retry_failed() == 3
        service.until_idle()
        assert np.array_equal(tifffile.imread(str(service.group().output)), np.sum(images, axis=0, dtype=np.int32))
        assert counts(service.statistics) == {"submitted": 3, "grouped": 3, "groups": 1}


def test_the_others_are_combined_where_the_recipe_says_so(serve: Serve) -> None:
    with serve() as service:
        images = [service.write(number) for number in (0, 2)]
        combine = {"on_incomplete": "combine"}
        service.submit([service.request(number, number, members=3, combine=combine) for number in range(3)])
        service.until_idle()
        report = service.group()
        assert Path(str(report.output)).name == "frame_00000_2of3.tif"
        assert "2 of 3" in report.reason
        assert [each.outcome for each in report.members] == ["grouped", "failed", "grouped"]
        assert np.array_equal(tifffile.imread(str(report.output)), np.sum(images, axis=0, dtype=np.int32))
        assert counts(service.statistics) == {"submitted": 3, "grouped": 2, "failed": 1, "groups": 1}
        images.append(service.write(1))
        assert service.runner.retry_failed() == 1
        service.until_idle()
        whole = service.group()
        assert np.array_equal(tifffile.imread(str(whole.output)), np.sum(images, axis=0, dtype=np.int32))
        assert [path.name for path in (service.root / "processed").glob("*.tif")] == ["frame_00000.tif"]


def test_a_member_that_comes_late_makes_the_group_anew(serve: Serve) -> None:
    with serve() as service:
        images = [service.write(number) for number in range(3)]
        service.submit([service.request(number, number, members=2) for number in range(2)])
        service.until_idle()
        service.submit([service.request(2, 2)])
        service.until_idle()
        report = service.group()
        assert len(report.members) == 3
        assert np.array_equal(tifffile.imread(str(report.output)), np.sum(images, axis=0, dtype=np.int32))
        assert counts(service.statistics) == {"submitted": 3, "grouped": 3, "groups": 1}


def test_a_later_frame_of_the_same_place_supersedes_the_earlier(serve: Serve) -> None:
    with serve() as service:
        images = [service.write(number) for number in range(3)]
        service.submit([service.request(number, number, members=2) for number in range(2)])
        service.until_idle()
        service.submit([service.request(2, 1)])
        service.until_idle()
        expected = np.sum([images[0], images[2]], axis=0, dtype=np.int32)
        assert np.array_equal(tifffile.imread(str(service.group().output)), expected)
        assert counts(service.statistics) == {"submitted": 3, "grouped": 2, "superseded": 1, "groups": 1}


def test_points_taken_elsewhere_leave_no_outputs_behind(serve: Serve) -> None:
    """One group loses its first frame, another its only one; a file of others by that name stays."""
    with serve() as service:
        images = [service.write(number) for number in range(5)]
        service.submit([
            service.request(0, 0, members=2, key="0"), service.request(1, 1, key="1"),
            service.request(2, 0, "h", members=1, key="2"),
        ])  # fmt: skip
        service.until_idle()
        processed = service.root / "processed"
        assert sorted(path.name for path in processed.glob("*.tif")) == ["frame_00000.tif", "frame_00002.tif"]
        service.submit([
            service.request(3, 0, "i", members=2, supersedes="0"), service.request(4, 1, "i", supersedes="2"),
        ])  # fmt: skip
        service.until_idle()
        found = {path.name: tifffile.imread(path) for path in processed.glob("*.tif")}
        assert found.keys() == {"frame_00001.tif", "frame_00003.tif"}
        assert {path.name for path in processed.iterdir()} == {*found, *(f"{name}.members.csv" for name in found)}
        assert np.array_equal(found["frame_00001.tif"], images[1])
        assert np.array_equal(found["frame_00003.tif"], images[3].astype(np.int32) + images[4])
        assert counts(service.statistics) == {"submitted": 5, "grouped": 3, "superseded": 2, "groups": 2}
        outcomes = {each.group: each.outcome for each in service.reports() if isinstance(each, GroupReport)}
        assert outcomes == {"g": "converted", "h": "superseded", "i": "converted"}


@pytest.mark.parametrize("is_first", [True, False])
def test_a_group_that_lost_frames_has_one_output(serve: Serve, is_first: bool) -> None:
    """The first is a placeholder, or a sum with a frame whose point was taken again."""
    some: dict[str, Any] = {"members": 2, "combine": {"on_incomplete": "combine"}}
    with serve(on_timeout="placeholder", placeholder_shape=(32, 48), timeout=0.2, run_timeout=0.2) as service:
        if not is_first:
            image = service.write(0)
            service.write(1)
        service.submit([service.request(number, number, key=str(number), **some) for number in range(2)])
        service.until_idle()
        assert [path.name for path in (service.root / "processed").glob("*.tif")] == ["frame_00000.tif"]
        if is_first:
            image = service.write(0)
        service.path(2).write_bytes(b"no TIFF")
        service.submit([service.request(2, 1, supersedes="1", **some)])
        service.until_idle()
        (output,) = (service.root / "processed").glob("*.tif")
        assert output.name == "frame_00000_1of2.tif"
        assert np.array_equal(tifffile.imread(output), image)


def test_a_file_of_others_is_never_removed_as_an_earlier_output(serve: Serve) -> None:
    with serve() as service:
        for number in range(3):
            service.write(number)
        service.submit([service.request(0, 0, members=2, key="0"), service.request(1, 1)])
        service.until_idle()
        (output,) = (service.root / "processed").glob("*.tif")
        output.write_bytes(service.path(2).read_bytes())
        service.submit([service.request(2, 0, "h", members=1, supersedes="0")])
        service.until_idle()
        assert output.read_bytes() == service.path(2).read_bytes()


def test_a_server_that_starts_again_awaits_no_superseded_frame(serve: Serve) -> None:
    with serve() as service:
        service.runner.pause(paused=True)
        images = [service.write(number) for number in range(3)]
        service.submit([service.request(0, 0, members=2, key="0"), service.request(1, 1, key="1")])
        service.submit([service.request(2, 0, "h", members=1, supersedes="1")])
    with serve() as service:
        service.runner.pause(paused=False)
        service.until_idle()
        found = {path.name: tifffile.imread(path) for path in (service.root / "processed").glob("*.tif")}
        assert found.keys() == {"frame_00000.tif", "frame_00002.tif"}
        assert np.array_equal(found["frame_00000.tif"], images[0])


def test_closing_is_repeatable_and_unknown_groups_are_named(serve: Serve) -> None:
    with serve() as service:
        service.write(0)
        service.submit([service.request(0, 0)], close_groups={"g": 1})
        service.until_idle()
        before = service.group()
        answer = service.submit(close_groups={"g": 1, "nobody": 4})
        assert [each.source for each in answer.refused] == ["nobody"]
        assert "no frame of it was accepted" in answer.refused[0].reason
        assert service.group() == before


def test_a_larger_number_makes_the_group_wait_for_the_rest(serve: Serve) -> None:
    with serve() as service:
        images = [service.write(0), service.write(1)]
        service.submit([service.request(0, 0)], close_groups={"g": 1})
        service.until_idle()
        service.submit(close_groups={"g": 2})
        assert service.statistics.pending == 1
        service.submit([service.request(1, 1)])
        service.until_idle()
        assert np.array_equal(tifffile.imread(str(service.group().output)), np.sum(images, axis=0, dtype=np.int32))


def test_a_group_without_a_number_ends_by_its_time_out(serve: Serve) -> None:
    with serve() as service:
        image = service.write(0)
        service.submit([service.request(0, 0, combine={"timeout": 0.3})])
        service.until_idle()
        report = service.group()
        assert np.array_equal(tifffile.imread(str(report.output)), image)
        assert len(report.members) == 1


def test_members_that_never_come_become_one_placeholder(serve: Serve) -> None:
    with serve(on_timeout="placeholder", placeholder_shape=(32, 48)) as service:
        service.submit([service.request(number, number, members=2) for number in range(2)])
        service.until_idle()
        report = service.group()
        assert report.outcome == "placeholder"
        assert not tifffile.imread(str(report.output)).any()
        assert {each.outcome for each in service.reports()} == {"placeholder"}
        assert counts(service.statistics) == {"submitted": 2, "placeholders": 2, "groups": 1}


def test_a_cancelled_run_leaves_no_group(serve: Serve) -> None:
    with serve() as service:
        service.runner.pause(paused=True)
        for number in range(4):
            service.write(number)
        service.submit([service.request(number, number % 2, f"g{number // 2}", members=2) for number in range(4)])
        service.until(lambda: service.runner.snapshot.queue_length == 6, "all are read")
        assert service.runner.cancel(CancelQuery(run_uid="run")).cancelled == 4
        service.until_idle()
        service.runner.pause(paused=False)
        assert counts(service.statistics) == {"submitted": 4, "skipped": 4}
        assert service.runner.snapshot.skipped == 4
        assert not list((service.root).rglob("processed/*"))


def test_a_paused_server_combines_when_it_goes_on(serve: Serve) -> None:
    with serve() as service:
        service.runner.pause(paused=True)
        service.write(0)
        answer = service.submit([service.request(0, 0, members=1)])
        service.until(lambda: service.runner.snapshot.queue_length == 2, "both are read")
        assert service.runner.reports(ReportsQuery(job_ids=[answer.jobs[0].job_id])).pending == 1
        service.runner.pause(paused=False)
        service.until_idle()
        assert service.group().outcome == "converted"


def test_members_of_another_recipe_or_run_are_refused_by_name(serve: Serve) -> None:
    with serve() as service:
        for number in range(3):
            service.write(number)
        answer = service.submit([
            service.request(0, 0, members=1),
            service.request(1, 1, combine={"method": "mean"}),
            service.request(2, 2, run_uid="another"),
            service.request(2, 10_000),
            {**service.request(2, 2), "group": None},
            {**service.request(2, 2), "member": None},
        ])  # fmt: skip
        assert len(answer.jobs) == 1
        assert ["recipe" in answer.refused[0].reason, "run" in answer.refused[1].reason] == [True, True]
        assert "member" in answer.refused[2].reason
        assert {"group and member belong together" in each.reason for each in answer.refused[3:]} == {True}
        service.until_idle()
        assert service.group().outcome == "converted"


def test_what_a_run_must_say_is_refused_without_a_group(serve: Serve) -> None:
    with serve() as service:
        service.write(0)
        recipe = Recipe(combine=SUM).model_dump(mode="json")  # type: ignore[arg-type]
        answer = service.submit([{"source": str(service.path(0)), "recipe": recipe}])
        assert "needs the documents of a run" in answer.refused[0].reason


def test_a_folder_is_counted_in_natural_order(serve: Serve) -> None:
    with serve() as service:
        every = Recipe(combine={"of": {"every": 2}, "method": "sum"})  # type: ignore[arg-type]
        service.runner.set_recipe(every)
        images = {}
        for number in (1, 2, 9, 10, 11):
            images[number] = service.write(number)
            service.path(number).rename(service.path(number).with_name(f"f{number}.tif"))
        service.runner.submit_folder(str(service.root / "raw"))
        service.until_idle()
        found = {path.name: tifffile.imread(path) for path in (service.root / "processed").glob("*.tif")}
        assert found.keys() == {"f1.tif", "f9.tif"}
        assert np.array_equal(found["f9.tif"], images[9].astype(np.int32) + images[10])
        assert "1 of 2 frames are missing" in service.runner.snapshot.last_error  # the last group has one frame


def test_every_counts_the_frames_inside_of_a_container(serve: Serve) -> None:
    h5py = pytest.importorskip("h5py")
    with serve() as service:
        combine = {"of": {"every": 3}, "method": "sum", "on_incomplete": "combine"}
        service.runner.set_recipe(Recipe(combine=combine))  # type: ignore[arg-type]
        data = np.arange(7 * 64, dtype=np.uint16).reshape(7, 8, 8)
        with h5py.File(service.root / "raw" / "scan.h5", "w") as file:
            file["/entry/data/data"] = data
        service.runner.submit_files([str(service.root / "raw" / "scan.h5")])
        service.until_idle()
        found = {path.name: tifffile.imread(path) for path in (service.root / "processed").glob("*.tif")}
        assert found.keys() == {"scan_00000.tif", "scan_00003.tif", "scan_00006_1of3.tif"}
        assert np.array_equal(found["scan_00006_1of3.tif"], data[6])
        assert np.array_equal(found["scan_00003.tif"], data[3:6].sum(axis=0))


@pytest.mark.long
def test_a_group_of_two_thousand_members_works(serve: Serve) -> None:
    with serve() as service:
        image = service.write(0)
        requests = [service.request(number, number, members=2000) for number in range(2000)]
        for number in range(1, 2000):
            service.path(number).hardlink_to(service.path(0))
        service.submit(requests)
        service.until_idle()
        report = service.group()
        assert np.array_equal(tifffile.imread(str(report.output)), image.astype(np.int32) * 2000)
        assert json.loads(report.model_dump_json())["members"][1999]["outcome"] == "grouped"
