"""Files of several frames in a running service: one job for each frame, over cancellations, restarts and a full queue.

The files are texts that say how many frames they have, so that no format is needed.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tango_server.conversion.file_state import FileState
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import Roots
from tango_server.jobs import expansion, file_checks
from tango_server.jobs.executors.base import Done
from tango_server.jobs.executors.worker import Task
from tango_server.jobs.runner import JobRunner
from tango_server.jobs.startup import open_database
from tango_server.messages import CancelQuery, FrameReport, ReportsQuery, SubmitQuery, frame_job_id
from tango_server.settings import Settings
from tests.unit.held_executor import Bell, HeldExecutor, report_of


class AtOnce(HeldExecutor):
    """Converts every frame at once."""

    def start(self, task: Task, done: Done) -> None:
        done(report_of(task))


class Server:
    """A runner, its executor and its files."""

    def __init__(self, settings: Settings, executor: HeldExecutor) -> None:
        self.bell = Bell()
        self.executor = executor
        self.folder = settings.read_roots[0] / "raw"
        self.runner = JobRunner(settings, open_database(settings), executor, self.bell.ring)

    def submit(self, name: str, frames: int | str, **fields: Any) -> str:
        (self.folder / name).write_text(f"{frames}")
        return self.request(str(self.folder / name), run_uid="run-1", **fields)

    def request(self, source: str, **fields: Any) -> str:
        answer = self.runner.intake.submit(SubmitQuery(requests=[{"source": source, **fields}]))
        return answer.jobs[0].job_id

    def report(self, job_id: str) -> FrameReport:
        return self.runner.reports(ReportsQuery(job_ids=[job_id])).reports[0]

    def reports(self) -> list[FrameReport]:
        return self.runner.reports(ReportsQuery(run_uid="run-1")).reports

    def until_idle(self) -> None:
        self.bell.wait_for(lambda: self.runner.snapshot.queue_length == 0, "all is reported")


Serve = Callable[..., AbstractContextManager[Server]]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Run a service; every one of a test has the same ledger."""
    root = tmp_path.resolve() / "data"
    (root / "raw").mkdir(parents=True)
    state = tmp_path / "state"
    state.mkdir()

    def check_file(location: FrameLocation, roots: Roots, *, may_crash: bool) -> FileState:
        assert (bool(roots.read), may_crash) == (True, False)
        found = location.file.stat()
        count, _, problem = location.file.read_text().partition(" ")
        state = "incomplete" if problem and location.index is None else "complete"
        return FileState(state, problem, found.st_size, found.st_mtime_ns, found.st_ino, "counted", int(count))

    monkeypatch.setattr(file_checks, "check_file", check_file)
    monkeypatch.setattr(expansion, "_RETRY_INTERVAL", 0.02)

    @contextmanager
    def serve(executor: HeldExecutor | None = None, **changes: Any) -> Iterator[Server]:
        fields = {"read_roots": (root,), "state_dir": state, "numworkers": 1, "sidecar_timeout": 0.0, **changes}
        server = Server(Settings(**fields), executor or AtOnce())
        try:
            yield server
        finally:
            server.runner.close()

    return serve


def frames_of(reports: list[FrameReport]) -> list[int]:
    return sorted(report.frame for report in reports if report.frame is not None)


def test_a_file_of_several_frames_becomes_one_job_for_each(serve: Serve) -> None:
    with serve(HeldExecutor()) as server:
        recipe = {"rotation": 90, "flip": "1", "pixel_type": "int32"}
        parent = server.submit("scan.h5", 3, recipe=recipe, stream="primary", seq_num=7, metadata={"sample": "CeO2"})
        tasks = [server.executor.end_next() for _ in range(3)]
        server.until_idle()
        jobs = sorted((task.job for task in tasks), key=lambda job: job.output)
        assert [job.job_id for job in jobs] == [frame_job_id(parent, index) for index in range(3)]
        assert [job.request.frame for job in jobs] == [0, 1, 2]
        assert [job.output.name for job in jobs] == ["scan_00000.tif", "scan_00001.tif", "scan_00002.tif"]
        assert {job.output.parent.name for job in jobs} == {"processed"}
        assert {(job.recipe.rotation, job.recipe.flip, job.request.metadata["sample"]) for job in jobs} == {
            (90, "1", "CeO2")
        }
        report = server.report(parent)
        assert (report.outcome, report.reason, report.frames) == ("skipped", "3 frames, one job each", 3)
        assert {(each.run_uid, each.stream, each.seq_num) for each in server.reports()} == {("run-1", "primary", 7)}
        statistics = server.runner.history.run_statistics("run-1")
        assert (statistics.submitted, statistics.converted, statistics.skipped, statistics.pending) == (4, 3, 1, 0)


def test_a_file_with_a_data_set_keeps_it_in_its_jobs(serve: Serve) -> None:
    with serve(HeldExecutor()) as server:
        (server.folder / "scan.h5").write_text("2")
        server.request(f"{server.folder / 'scan.h5'}::/entry/data")
        locations = {server.executor.end_next().job.location for _ in range(2)}
        assert locations == {FrameLocation(server.folder / "scan.h5", "/entry/data", index) for index in range(2)}


def test_a_template_may_name_the_frames_of_a_file(serve: Serve) -> None:
    with serve() as server:
        server.submit(
            "scan.h5", 2, recipe={"output": {"template": "{sample}_{frame:03d}"}}, metadata={"sample": "CeO2"}
        )
        server.until_idle()
        outputs = sorted(Path(report.output).name for report in server.reports() if report.output)
        assert outputs == ["CeO2_000.tif", "CeO2_001.tif"]


def test_a_frame_named_by_its_index_is_one_job(serve: Serve) -> None:
    with serve() as server:
        server.submit("scan.h5", 3, frame=2)
        server.until_idle()
        assert [(report.outcome, report.frame) for report in server.reports()] == [("converted", 2)]


def test_a_file_without_an_image_is_skipped_and_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with serve() as server:
        parent = server.submit("table.h5", 0)
        server.until_idle()
        report = server.report(parent)
        assert (report.outcome, report.reason, report.frames) == ("skipped", "no image in this file", 0)
    assert f"{server.folder / 'table.h5'}: skipped: no image in this file" in caplog.text


def test_files_larger_than_the_queue_are_converted_in_portions(serve: Serve) -> None:
    with serve(backlog_limit=5) as server:
        files = [server.folder / name for name in ("a.h5", "b.h5", "c.h5", "d.h5", "e.h5")]  # as many as it holds
        for file in files:
            file.write_text("7")
        requests = [{"source": str(file), "run_uid": "run-1"} for file in files]
        server.runner.intake.submit(SubmitQuery(requests=requests))
        server.until_idle()
        reports = [report for report in server.reports() if report.outcome == "converted"]
        assert len({(report.source, report.frame) for report in reports}) == len(reports) == 35


def test_other_requests_are_refused_while_the_frames_fill_the_queue(serve: Serve) -> None:
    with serve(HeldExecutor(), backlog_limit=5) as server:
        server.submit("a.h5", 100)
        server.bell.wait_for(lambda: server.runner.snapshot.queue_length == 6, "five frames and their file wait")
        assert server.runner.snapshot.alarms == ("The queue is full (5 frames)",)


@pytest.mark.parametrize("by", ["job", "run", "all"])
def test_cancelling_a_file_ends_its_expansion_and_its_frames(serve: Serve, by: str) -> None:
    queries = {"job": {}, "run": {"run_uid": "run-1"}, "all": {"all": True}}
    with serve(backlog_limit=5) as server:
        server.runner.pause(paused=True)
        parent = server.submit("a.h5", 100)
        server.bell.wait_for(lambda: server.runner.snapshot.queue_length == 6, "five frames and their file wait")
        query = CancelQuery.model_validate(queries[by] or {"job_ids": [parent]})
        assert server.runner.cancel(query).cancelled == 6
        server.bell.wait_for(lambda: server.runner.snapshot.queue_length == 0, "there is room for another frame")
        server.runner.pause(paused=False)
        server.request(str(server.folder / "a.h5"), frame=7)  # later than any further frame of the file
        server.until_idle()
        assert {report.reason for report in server.reports()} == {"cancelled on request"}
        assert frames_of(server.reports()) == [0, 1, 2, 3, 4]
        assert server.runner.snapshot.converted == 1


def test_an_interrupted_expansion_makes_no_frame_twice(serve: Serve) -> None:
    with serve(HeldExecutor(), backlog_limit=5) as server:
        parent = server.submit("a.h5", 20)
        server.bell.wait_for(lambda: server.runner.snapshot.queue_length == 6, "five frames and their file wait")
        server.executor.end_next()
    with serve() as server:
        server.until_idle()
        assert frames_of(server.reports()) == list(range(20))
        assert server.report(parent).reason == "20 frames, one job each"
        assert server.runner.snapshot.skipped == 1


def test_the_run_of_a_file_never_looks_finished_before_its_frames_are(serve: Serve) -> None:
    with serve(backlog_limit=5) as server:
        pending = []
        server.submit("a.h5", 40)

        def is_over() -> bool:
            pending.append(server.runner.history.run_statistics("run-1").pending)
            return len(server.reports()) == 41

        server.bell.wait_for(is_over, "all frames are reported")
        assert 0 not in pending[:-1]


def test_an_incomplete_file_that_no_longer_grows_is_expanded_with_a_note(serve: Serve) -> None:
    with serve(timeout=0.2, run_timeout=0.2, settle_time=0.1) as server:
        parent = server.submit("a.h5", "3 b.h5 is missing")
        server.until_idle()
        assert server.report(parent).reason == "3 frames, one job each; the file is not complete: b.h5 is missing"
        assert frames_of(server.reports()) == [0, 1, 2]


def test_a_recipe_in_place_fails_the_file_by_name(serve: Serve) -> None:
    with serve() as server:
        parent = server.submit("a.stack", 3, recipe={"output": {"mode": "in_place", "allow_in_place": True}})
        server.until_idle()
        report = server.report(parent)
        assert report.outcome == "failed"
        assert "frames in a container are never converted in place" in report.reason


def test_a_file_that_claims_countless_frames_fails_by_name(serve: Serve) -> None:
    with serve() as server:
        parent = server.submit("a.h5", 10**12)
        server.until_idle()
        assert "cannot make a job for each of 1000000000000 frames" in server.report(parent).reason


@pytest.mark.parametrize(
    ("name", "beside", "reason"),
    [
        ("run_m02.nxs", "run_m01.nxs", "the frames of this module are converted with those of the first one beside it"),
        ("run_master.nxs", "run_m1.nxs", "its frames are converted from the modules beside it"),
        ("run_data_000001.h5", "run_master.h5", "its frames are converted from the master beside it"),
    ],
)
def test_a_file_whose_frames_another_one_converts_is_skipped(serve: Serve, name: str, beside: str, reason: str) -> None:
    with serve() as server:
        (server.folder / beside).write_text("3")
        parent = server.submit(name, 3)
        server.until_idle()
        report = server.report(parent)
        assert (report.outcome, report.reason) == ("skipped", reason)
        assert len(server.reports()) == 1


def test_a_data_file_without_its_master_makes_its_own_jobs(serve: Serve) -> None:
    with serve() as server:
        server.submit("run_data_000001.h5", 3)
        server.until_idle()
        assert frames_of(server.reports()) == [0, 1, 2]
