"""A running conversion service as its clients see it, over its restarts on one ledger."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tango_server.conversion.errors import PathError
from tango_server.jobs import capacity
from tango_server.jobs.executors.worker import Failure, Task
from tango_server.jobs.ledger.database import LedgerBusyError
from tango_server.jobs.ledger.history import UnknownIdError
from tango_server.jobs.runner import JobRunner
from tango_server.jobs.startup import open_database
from tango_server.messages import CancelQuery, FrameReport, ReportsQuery, SubmitQuery
from tango_server.recipe import Recipe
from tango_server.settings import Settings
from tests.conftest import DATA
from tests.unit.held_executor import PATIENCE, Bell, HeldExecutor

FLIPPED = Recipe.preset("xdi", flip="1")


class Server:
    """A runner, its executor and its frames."""

    def __init__(self, settings: Settings) -> None:
        self.bell = Bell()
        self.executor = HeldExecutor()
        self.folder = settings.read_roots[0] / "raw"
        self.runner = JobRunner(settings, open_database(settings), self.executor, self.bell.ring)

    def frame(self, name: str) -> str:
        return str(shutil.copy(DATA / "qxrd_f32_64.tif", self.folder / f"{name}.tif"))

    def submit(self, *names: str, run_uid: str | None = None) -> list[str]:
        """Submit complete frames; return their job ids."""
        requests: list[dict[str, Any]] = [{"source": self.frame(name), "run_uid": run_uid} for name in names]
        return [job.job_id for job in self.runner.intake.submit(SubmitQuery(requests=requests)).jobs]

    def reports(self, job_ids: list[str]) -> dict[str, FrameReport]:
        answer = self.runner.reports(ReportsQuery(job_ids=job_ids))
        assert answer.pending == len(job_ids) - len(answer.reports)
        return {str(report.job_id): report for report in answer.reports}

    def outcomes(self, job_ids: list[str]) -> list[str]:
        reports = self.reports(job_ids)
        return [reports[job_id].outcome if job_id in reports else "pending" for job_id in job_ids]

    def until_idle(self) -> None:
        self.bell.wait_for(lambda: self.runner.snapshot.queue_length == 0, "all is reported")


Serve = Callable[..., AbstractContextManager[Server]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Run a service; every one of a test has the same ledger."""
    root = tmp_path.resolve() / "data"
    (root / "raw").mkdir(parents=True)
    state = tmp_path / "state"
    state.mkdir()

    @contextmanager
    def serve(**changes: Any) -> Iterator[Server]:
        fields = {"read_roots": (root,), "state_dir": state, "numworkers": 1, "sidecar_timeout": 0.0, **changes}
        server = Server(Settings(**fields))
        try:
            yield server
        finally:
            server.runner.close()

    return serve


def no_image(task: Task) -> Failure:
    return Failure("final", f"{task.job.source}: no image")


def test_frame_is_converted_with_the_servers_recipe(serve: Serve) -> None:
    with serve(recipe=FLIPPED) as server:
        (job_id,) = server.submit("a", run_uid="run-1")
        task = server.executor.end_next()
        server.until_idle()
        report = server.reports([job_id])[job_id]
        assert (task.job.recipe, task.job.source.name) == (FLIPPED, "a.tif")
        assert (report.outcome, report.run_uid, report.output) == ("converted", "run-1", str(task.job.output))
        statistics = server.runner.history.run_statistics("run-1")
        assert (statistics.submitted, statistics.converted, statistics.pending) == (1, 1, 0)


def test_files_by_name_and_folders_become_jobs(serve: Serve) -> None:
    with serve() as server:
        first = server.frame("a")
        assert len(server.runner.submit_files([first]).jobs) == 1
        server.executor.end_next()
        server.frame("b")
        server.runner.submit_folder(str(server.folder))
        assert sorted(server.executor.end_next().job.source.name for _ in range(2)) == ["a.tif", "b.tif"]
        server.until_idle()
        assert server.runner.snapshot.converted == 3


def test_unknown_folders_and_ids_are_errors(serve: Serve) -> None:
    with serve() as server:
        with pytest.raises(PathError, match="no such folder"):
            server.runner.submit_folder(server.frame("a"))
        with pytest.raises(PathError):
            server.runner.submit_folder("/")
        assert server.runner.snapshot.queue_length == 0
        with pytest.raises(UnknownIdError):
            server.runner.reports(ReportsQuery(job_ids=["nothing"]))
        with pytest.raises(UnknownIdError):
            server.runner.history.run_statistics("nothing")


def test_cancelled_frames_are_reported_as_skipped(serve: Serve) -> None:
    with serve() as server:
        first = server.submit("a", run_uid="run-1")
        server.bell.wait_for(lambda: server.runner.snapshot.running == 1, "the first is running")
        server.runner.pause(paused=True)  # small frames would begin beside it
        server.bell.wait_for(lambda: server.runner.snapshot.paused, "it is paused")
        others = server.submit("b", "c", run_uid="run-2")
        assert server.runner.cancel(CancelQuery(run_uid="run-2")).cancelled == 2
        assert server.outcomes([*first, *others]) == ["pending", "skipped", "skipped"]
        assert server.runner.cancel(CancelQuery(all=True)).cancelled == 0
        server.executor.end_next()
        server.until_idle()
        assert server.outcomes(first) == ["converted"]
        assert server.executor.begun.empty()


def test_failed_frames_are_retried_unless_dismissed_by_a_reset(serve: Serve) -> None:
    with serve() as server:
        jobs = server.submit("a", "b")
        failed = server.executor.end_next(no_image)
        server.executor.end_next()
        server.until_idle()
        assert sorted(server.outcomes(jobs)) == ["converted", "failed"]
        assert server.runner.retry_failed() == 1
        assert server.executor.end_next().job.job_id == failed.job.job_id
        server.until_idle()
        assert server.outcomes(jobs) == ["converted", "converted"]
        assert server.runner.retry_failed() == 0
        later = server.submit("c")
        server.executor.end_next(no_image)
        server.until_idle()
        server.runner.reset_statistics()
        assert server.runner.retry_failed() == 0
        assert server.outcomes(later) == ["failed"]


def test_pause_holds_over_a_restart(serve: Serve) -> None:
    with serve() as server:
        server.runner.pause(paused=True)
        jobs = server.submit("a", "b")
        server.bell.wait_for(lambda: server.runner.snapshot.paused, "it is paused")
        assert server.runner.snapshot.queue_length == 2
    with serve() as server:
        server.bell.wait_for(lambda: server.runner.snapshot.queue_length == 2, "the queue is taken up")
        assert server.runner.snapshot.paused
        assert server.executor.begun.empty()
        server.runner.pause(paused=False)
        server.executor.end_next()
        server.executor.end_next()
        server.until_idle()
        assert server.outcomes(jobs) == ["converted", "converted"]
    with serve() as server:
        assert not server.runner.snapshot.paused


def test_a_restart_goes_on_where_the_server_was_and_repeats_no_report(serve: Serve) -> None:
    with serve() as server:
        jobs = server.submit("a", "b", "c", "d")
        first = server.executor.end_next()
        server.bell.wait_for(lambda: server.runner.snapshot.processed == 1, "the first is reported")
        before = server.reports([first.job.job_id])
    with serve() as server:
        rest = [server.executor.end_next().job.job_id for _ in range(3)]
        server.until_idle()
        assert {first.job.job_id, *rest} == set(jobs)
        assert server.reports([first.job.job_id]) == before
        assert server.outcomes(jobs) == ["converted"] * 4
        assert server.runner.snapshot.processed == 3, "the numbers are of this start"


def test_set_recipe_is_kept_over_restarts_if_it_is_valid(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    turned = Recipe.preset("xdi", rotation=180)
    elsewhere = Recipe.model_validate({"output": {"folder": "/elsewhere"}})
    with serve(recipe=FLIPPED) as server:
        assert server.runner.recipe == FLIPPED
        with pytest.raises(PathError):
            server.runner.set_recipe(elsewhere)
    with serve(recipe=FLIPPED) as server:
        assert server.runner.recipe == FLIPPED
        server.runner.set_recipe(turned)
    with serve(recipe=FLIPPED) as server:
        assert server.runner.recipe == turned
        server.submit("a")
        assert server.executor.end_next().job.recipe == turned
        server.runner._ledger.keep("recipe", '{"rotation": 45}')
    with serve(recipe=FLIPPED) as server:
        assert server.runner.recipe == FLIPPED
    assert "SetRecipe" in caplog.text


def test_a_failure_is_an_alarm_until_somebody_has_seen_it(serve: Serve) -> None:
    with serve() as server:
        server.submit("a")
        server.executor.end_next(no_image)
        server.bell.wait_for(lambda: server.runner.snapshot.unacknowledged == 1, "the failure is told")
        server.runner.acknowledge()
        server.bell.wait_for(lambda: server.runner.snapshot.unacknowledged == 0, "it was seen")
        assert server.runner.snapshot.failed == 1


def test_a_full_queue_is_an_alarm(serve: Serve) -> None:
    with serve(backlog_limit=2) as server:
        server.submit("a", "b")
        assert any("The queue is full (2 frames)" in alarm for alarm in server.runner.snapshot.alarms)
        server.executor.end_next()
        server.executor.begun.get(timeout=PATIENCE)
        server.bell.wait_for(lambda: not server.runner.snapshot.alarms, "there is room again")


def test_the_disk_that_receives_the_outputs_is_checked(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(folder: Path) -> SimpleNamespace:  # `processed` is a mount of its own
        return SimpleNamespace(free=10**6 if "processed" in folder.parts else 10**12)

    monkeypatch.setattr(capacity.shutil, "disk_usage", usage)
    with serve(free_space_warning=2_000_000, free_space_limit=0) as server:
        server.bell.wait_for(lambda: server.runner.snapshot.free_space == 10**12, "the disks were looked at")
        (folder := server.folder.with_name("processed")).mkdir()
        server.submit("a")
        server.bell.wait_for(lambda: bool(server.runner.snapshot.warning), "the disk is warned of")
        assert f"{folder}: only 1.0 MB free" in server.runner.snapshot.warning


@pytest.mark.skipif(os.name == "nt", reason="no folder with open files can be taken away there")
@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "deleted"])
def test_missing_state_folder_is_a_fault_even_when_idle(serve: Serve, tmp_path: Path, replaced: bool) -> None:
    with serve() as server:
        state = tmp_path / "state"
        state.rename(tmp_path / "away")  # at once, whatever is just being written there
        if replaced:
            state.mkdir()
        else:
            shutil.rmtree(tmp_path / "away")
        server.bell.wait_for(lambda: "moved, deleted or replaced" in server.runner.fault, "the fault is noticed")
        with pytest.raises(LedgerBusyError):
            server.submit("a")
        if replaced:
            state.rmdir()
            (tmp_path / "away").rename(state)
            server.bell.wait_for(lambda: not server.runner.fault, "the fault is over")
            server.submit("a")
