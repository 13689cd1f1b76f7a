"""The masters of a recipe: paths as those of frames, from the request to the worker."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tango_server.conversion.errors import PathError
from tango_server.conversion.files.path_map import PathMap
from tango_server.conversion.files.roots import Roots, caching_resolver
from tango_server.jobs import mounts
from tango_server.jobs.executors.worker import Failure, Task
from tango_server.jobs.masters import locator
from tango_server.jobs.mounts import Place
from tango_server.jobs.runner import JobRunner
from tango_server.jobs.startup import open_database
from tango_server.messages import FrameReport, ReportsQuery, SubmitAnswer, SubmitQuery
from tango_server.recipe import Recipe
from tango_server.recipe.corrections import DARK_FACTS, Corrections
from tango_server.settings import Settings
from tests.conftest import DATA
from tests.unit.held_executor import PATIENCE, Bell, HeldExecutor, report_of

links_only = pytest.mark.skipif(os.name == "nt", reason="links need rights there")
Reply = Callable[[Task], FrameReport | Failure]


class Server:
    """A running service with frames below one root and masters below another; `state` lies below the second."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.masters, self.state = base / "masters", base / "masters" / "state"
        for folder in (base / "data" / "raw", self.state, base / "outside"):
            folder.mkdir(parents=True)
        self.source = self.file(base / "data" / "raw" / "a.tif")
        self.settings = Settings(
            read_roots=(base / "data", self.masters),
            write_roots=(base / "data",),
            state_dir=self.state,
            numworkers=1,
            sidecar_timeout=0.0,
            settle_time=0.0,
            run_timeout=0.2,
            path_maps=("M:\\ -> " + str(self.masters),),
        )
        self.start()

    def start(self) -> None:
        self.executor, self.bell = HeldExecutor(), Bell()
        self.runner = JobRunner(self.settings, open_database(self.settings), self.executor, self.bell.ring)

    def file(self, path: Path) -> Path:
        path.write_bytes((DATA / "qxrd_f32_64.tif").read_bytes())
        return path

    def submit(self, corrections: dict[str, Any], **fields: Any) -> SubmitAnswer:
        request = {"source": str(self.source), "recipe": {"corrections": corrections}, **fields}
        return self.runner.intake.submit(SubmitQuery(requests=[request]))

    def reason(self, corrections: dict[str, Any], **fields: Any) -> str:
        """Return why a request is refused."""
        answer = self.submit(corrections, **fields)
        assert not answer.jobs, corrections
        return answer.refused[0].reason

    def task(self, corrections: dict[str, Any], reply: Reply = report_of, **fields: Any) -> Task:
        """Return the task of a request that is accepted."""
        answer = self.submit(corrections, **fields)
        assert not answer.refused, answer.refused
        return self.executor.end_next(reply)

    def report(self, answer: SubmitAnswer) -> FrameReport:
        (job,) = answer.jobs
        query = ReportsQuery(job_ids=[job.job_id])
        self.bell.wait_for(lambda: not self.runner.reports(query).pending, "it is reported")
        return self.runner.reports(query).reports[0]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path.resolve())
    yield running
    running.runner.close()


def test_masters_are_mapped_and_resolved_and_the_recipe_stays(server: Server) -> None:
    for name in ("dark.tif", "flat.h5", "mask.edf"):
        server.file(server.masters / name)
    given = {"dark": "M:\\dark.tif", "flat": "M:\\flat.h5::/entry/flat", "mask": ["M:\\mask.edf", "::/entry/mask"]}
    task = server.task({**given, "saturation": 60000})
    there = server.masters
    assert task.job.corrections == Corrections(
        dark=str(there / "dark.tif"),
        flat=f"{there}/flat.h5::/entry/flat",
        mask=(f"{there}/mask.edf", "::/entry/mask"),
        saturation=60000,
    )
    assert task.job.recipe.corrections == Corrections.model_validate({**given, "saturation": 60000})
    assert server.masters in task.roots.named.read
    assert task.roots.read == (server.base / "data",)


def test_a_frame_without_masters_gets_its_own_root_only(server: Server) -> None:
    task = server.task({"saturation": 60000})
    assert task.roots.named.read == (server.base / "data",)


@links_only
def test_masters_are_those_of_when_the_frame_was_accepted(server: Server) -> None:
    link, first = server.masters / "current.tif", server.file(server.masters / "first.tif")
    link.symlink_to(first)
    server.runner.pause(paused=True)
    answer = server.submit({"dark": str(link)})
    server.runner.close()
    link.unlink()
    link.symlink_to(server.file(server.masters / "second.tif"))
    server.start()
    server.runner.pause(paused=False)
    job = server.executor.end_next().job
    assert (job.job_id, job.corrections) == (answer.jobs[0].job_id, Corrections(dark=str(first)))
    assert server.report(answer).outcome == "converted"


@pytest.mark.parametrize("kind", ["dark", "flat", "mask"])
def test_masters_that_are_no_files_are_refused_by_kind_and_name(kind: str, server: Server) -> None:
    absent, folder = server.masters / "absent.tif", server.masters / "folder.tif"
    folder.mkdir()
    outside = server.file(server.base / "outside" / "master.tif")
    own = server.file(server.state / "master.tif")
    expected = {
        str(absent): "no such file",
        f"{absent}::/entry/data": "no such file",
        str(folder): "not a file",
        str(outside): "outside the folders that may be read",
        str(own): "outside the folders that may be read",
        "/proc/self/environ": "outside the folders that may be read",
        "dark.tif": "a relative path",
        "C:\\dark.tif": "a Windows path",
    }
    for path, problem in expected.items():
        reason = server.reason({kind: path})
        assert reason.startswith(path.partition("::")[0])
        assert f"cannot be used as {kind}" in reason
        assert problem in reason
        with pytest.raises(PathError, match=f"cannot be used as {kind}"):
            server.runner.set_recipe(Recipe.parse({"corrections": {kind: path}}))


def test_outside_of_the_roots_nothing_shows_whether_a_master_exists(server: Server) -> None:
    there, absent = server.file(server.base / "outside" / "a.tif"), server.base / "outside" / "b.tif"
    reasons = {server.reason({"dark": str(path)}).replace(str(path), "PATH") for path in (there, absent)}
    assert len(reasons) == 1


def test_a_dark_of_a_run_may_follow_but_not_from_outside(server: Server) -> None:
    facts = {DARK_FACTS: {"run_uid": "r"}}
    dark = server.masters / "dark.tif"
    answer = server.submit({"dark": str(dark)}, run_uid="r", metadata=facts)
    server.file(dark)
    assert server.executor.end_next().job.corrections == Corrections(dark=str(dark))
    assert server.report(answer).outcome == "converted"
    outside = str(server.base / "outside" / "dark.tif")
    assert "outside" in server.reason({"dark": outside}, metadata=facts)
    assert "no such file" in server.reason({"dark": str(dark), "flat": f"{dark}.flat"}, metadata=facts)


def test_a_dark_of_a_run_that_never_comes_fails_its_frame_by_name(server: Server) -> None:
    dark = server.masters / "never.tif"
    answer = server.submit({"dark": str(dark)}, run_uid="r", metadata={DARK_FACTS: {}})
    report = server.report(answer)
    assert report.outcome == "failed"
    assert report.reason.startswith(f"{server.source}: ")
    assert str(dark) in report.reason
    assert "no such file" in report.reason


def test_a_request_whose_run_has_no_dark_is_accepted(server: Server) -> None:
    task = server.task({"dark": "run"}, run_uid="r", metadata={DARK_FACTS: {"note": "no dark"}})
    assert task.job.corrections == Corrections(dark="run")


def test_a_master_that_vanished_costs_its_frames_only_and_they_are_retried(server: Server) -> None:
    dark = server.file(server.masters / "dark.tif")
    lost = server.submit({"dark": str(dark)})
    server.executor.end_next(lambda _: Failure("final", f"{dark}: no such file"))
    other = server.submit({"saturation": 60000})
    server.executor.end_next()
    assert [server.report(answer).outcome for answer in (lost, other)] == ["failed", "converted"]
    assert server.runner.retry_failed() == 1
    assert server.executor.end_next().job.corrections == Corrections(dark=str(dark))
    assert server.report(lost).outcome == "converted"


def test_frames_wait_while_the_file_system_of_a_master_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away: set[Path] = set()
    monkeypatch.setattr(mounts, "place", lambda folder, _noted: Place(1 if folder in away else 40))
    server = Server(tmp_path.resolve())
    try:
        dark = server.file(server.masters / "dark.tif")
        answer = server.submit({"dark": str(dark)})
        task, done = server.executor.begun.get(timeout=PATIENCE)
        away.add(server.masters)  # while the worker reads the frame
        done(Failure("final", f"{dark}: no such file"))
        server.bell.wait_for(lambda: server.runner.snapshot.running == 0, "nothing is converted")
        assert "not mounted" in server.runner.problem
        assert not server.runner.reports(ReportsQuery(job_ids=[task.job.job_id])).reports
        away.clear()
        assert server.executor.end_next().job == task.job
        assert server.report(answer).outcome == "converted"
    finally:
        server.runner.close()


def test_masters_are_found_only_once_in_a_call(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    (root / "dark.tif").touch()
    locate = locator(Roots.of([root]), PathMap(), caching_resolver())
    corrections = Corrections(dark=str(root / "dark.tif"))
    found = locate(corrections, False)
    (root / "dark.tif").unlink()
    assert locate(corrections.model_copy(), False) is found
