"""The job service on real files and a real ledger; its executor does in this process what a test wants it to."""

import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tango_server.conversion.files.temporary_names import temporary_path
from tango_server.jobs.executors import worker
from tango_server.jobs.executors.base import Done, ExecutorUnavailableError, Result
from tango_server.jobs.executors.worker import Task
from tango_server.jobs.runner import JobRunner
from tango_server.jobs.startup import open_database
from tango_server.jobs.state_machine import job_state
from tango_server.messages import FrameReport, ReportsQuery, SubmitQuery
from tango_server.settings import Settings
from tests.conftest import DATA

PATIENCE = 30.0
Answer = Callable[[Task], Result | None]


class Scripted:
    """Answers one task after the other as a test says, and then as a worker would; None is no answer."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)

    def start(self, task: Task, done: Done) -> None:
        result = self._answers.pop(0)(task) if self._answers else worker.run(task)
        if result is not None:
            done(result)

    def close(self, timeout: float) -> None:
        del timeout


class Service:
    """A job service, and a wake-up whenever its numbers have changed."""

    def __init__(self, settings: Settings, executor: Scripted) -> None:
        self._changed = threading.Condition()
        self.runner = JobRunner(settings, open_database(settings), executor, self._notify)

    def _notify(self, _: JobRunner) -> None:
        with self._changed:
            self._changed.notify_all()

    def submit(self, source: Path, **output: Any) -> str:
        request: dict[str, Any] = {"source": str(source), "recipe": {"rotation": 90, "output": output or {}}}
        return self.runner.intake.submit(SubmitQuery(requests=[request])).jobs[0].job_id

    def report(self, job_id: str) -> FrameReport:
        """Wait for the report of a job."""

        def found() -> list[FrameReport]:
            return self.runner.reports(ReportsQuery(job_ids=[job_id])).reports

        with self._changed:
            assert self._changed.wait_for(found, PATIENCE), "there is no report"
        return found()[0]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path.resolve()


@pytest.fixture
def source(root: Path) -> Path:
    return Path(shutil.copy(DATA / "qxrd_f32_64.tif", root / "raw" / "a.tif"))


@pytest.fixture
def serve(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    state = tmp_path_factory.mktemp("state")

    @contextmanager
    def running(*answers: Answer, **changes: Any) -> Iterator[Service]:
        fields = {"read_roots": (root,), "state_dir": state, "sidecar_timeout": 0.0, "timeout": 60.0, **changes}
        service = Service(Settings(**fields), Scripted(*answers))
        try:
            yield service
        finally:
            service.runner.close()

    return running


def dies_after_its_output(task: Task) -> Result:
    assert isinstance(worker.run(task), FrameReport)
    return RuntimeError("the worker process died")


def never(task: Task) -> None:
    """Answer nothing, as a worker that dies with its server."""


def outputs(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "processed").iterdir())


@pytest.mark.parametrize("choice", ["number", "refuse", "skip", "replace_own"])
def test_output_with_a_lost_report_is_converted_once_and_reported(
    serve: Callable[..., Any], root: Path, source: Path, choice: str
) -> None:
    with serve(dies_after_its_output) as service:
        report = service.report(service.submit(source, on_existing=choice))
    assert (report.outcome, report.output) == ("converted", str(root / "processed" / "a.tif"))
    assert outputs(root) == ["a.tif"]


def test_second_job_for_a_frame_keeps_the_first_output_after_a_crash(
    serve: Callable[..., Any], root: Path, source: Path
) -> None:
    with serve(worker.run, dies_after_its_output) as service:
        service.report(service.submit(source, on_existing="number"))
        first = (root / "processed" / "a.tif").stat()
        report = service.report(service.submit(source, on_existing="number"))
    assert report.output == str(root / "processed" / "a-00001.tif")
    assert outputs(root) == ["a-00001.tif", "a.tif"]
    assert (root / "processed" / "a.tif").stat().st_ino == first.st_ino


def test_failed_sidecar_is_copied_later_even_without_sidecar_timeout(
    serve: Callable[..., Any], root: Path, source: Path
) -> None:
    source.with_name("a.tif.metadata").write_text("[metadata]\nwidth=64\nheight=64\n")
    obstacle = root / "processed" / "a.tif.metadata"
    obstacle.mkdir(parents=True)

    def relieved(task: Task) -> Result:
        result = worker.run(task)
        assert isinstance(result, FrameReport)
        assert "the sidecar could not be copied" in result.reason
        obstacle.rmdir()
        return result

    with serve(relieved) as service:
        report = service.report(service.submit(source))
    assert (report.outcome, report.sidecar, report.reason) == ("converted", "carried", "")
    assert obstacle.is_file()


def test_sidecar_left_behind_is_reported_and_logged(
    serve: Callable[..., Any], root: Path, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source.with_name("a.tif.metadata").write_text("[metadata]\nwidth=64\nheight=64\n")
    (root / "processed" / "a.tif.metadata").mkdir(parents=True)
    with serve(timeout=0.5, settle_time=0.1) as service:
        job_id = service.submit(source)
        report = service.report(job_id)
    assert (report.outcome, report.sidecar) == ("converted", "absent")
    assert "a.tif.metadata" in report.reason
    (told,) = [record for record in caplog.records if "sidecar" in record.getMessage()]
    assert told.levelno == logging.WARNING
    assert vars(told)["job_id"] == job_id


def test_awaited_source_that_becomes_a_link_fails_at_once(
    serve: Callable[..., Any], root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    secret = Path(shutil.copy(DATA / "qxrd_f32_64.tif", tmp_path_factory.mktemp("outside") / "a.tif"))
    with serve(timeout=10 * PATIENCE) as service:
        job_id = service.submit(root / "raw" / "late.tif")
        (root / "raw" / "late.tif").symlink_to(secret)
        report = service.report(job_id)
    assert report.outcome == "failed"
    assert "symbolic link" in report.reason
    assert not (root / "processed").exists()


def test_what_a_killed_server_left_is_gone_when_its_job_is_done(
    serve: Callable[..., Any], root: Path, source: Path
) -> None:
    with serve(never) as service:
        job_id = service.submit(source)
    (root / "processed").mkdir(exist_ok=True)
    for output in ("a.tif", "a-00001.tif", "a.tif.metadata"):
        temporary_path(root / "processed" / output, job_id).write_bytes(b"half a frame")
    with serve() as service:
        assert service.report(job_id).outcome == "converted"
    assert outputs(root) == ["a.tif"]


def test_frames_waiting_for_an_executor_are_logged_once(
    serve: Callable[..., Any], source: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_state, "_UNAVAILABLE_INTERVAL", 0.05)

    def nobody(task: Task) -> Result:
        return ExecutorUnavailableError("no worker process can be started")

    with serve(nobody, nobody, nobody) as service:
        jobs = [service.submit(source, on_existing="number") for _ in range(2)]
        assert {service.report(job_id).outcome for job_id in jobs} == {"converted"}
    told = [record for record in caplog.records if "Frames wait" in record.getMessage()]
    assert [record.levelname for record in told if record.levelno > logging.DEBUG] == ["WARNING"]
