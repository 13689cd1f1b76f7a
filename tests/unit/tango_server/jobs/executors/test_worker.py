"""What a worker does with its task, called in this process."""

import multiprocessing
import os
import pickle
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from tango_server.conversion.files.roots import Roots
from tango_server.conversion.files.temporary_names import remove_leftovers
from tango_server.jobs.executors import worker
from tango_server.jobs.executors.worker import Failure, Task
from tango_server.jobs.job import Job
from tango_server.messages import FrameReport, FrameRequest
from tango_server.recipe import Recipe
from tests.conftest import DATA, QXRD_FILES, UNFINISHED_FILES

MakeTask = Callable[..., Task]


@pytest.fixture
def make_task(tmp_path: Path) -> MakeTask:
    """Put a file into a folder of raw frames; return the task to convert it to a new file."""
    folder = tmp_path.resolve()
    (folder / "raw").mkdir()

    def make(name: str) -> Task:
        source = folder / "raw" / name
        if (DATA / name).exists():
            shutil.copy(DATA / name, source)
        output = folder / "processed" / name
        request = FrameRequest(source=str(source), recipe=Recipe.preset("xdi", rotation=90))
        return Task(Job("0f3e", request, source, output, accepted=1.7e9), Roots.of([folder]))

    return make


def with_recipe(task: Task, recipe: Recipe) -> Task:
    job = task.job
    return replace(task, job=replace(job, request=job.request.model_copy(update={"recipe": recipe})))


@pytest.mark.parametrize("name", QXRD_FILES)
def test_a_frame_becomes_a_new_file_and_a_report_and_nothing_else(name: str, make_task: MakeTask) -> None:
    task = make_task(name)
    report = worker.run(task)
    assert isinstance(report, FrameReport)
    assert (report.outcome, report.source, report.output) == ("converted", str(task.job.source), str(task.job.output))
    assert report.recipe_hash == task.job.recipe.hash
    expected = np.rot90(tifffile.imread(DATA / name)).astype(np.int32)
    np.testing.assert_array_equal(tifffile.imread(task.job.output), expected)
    assert list(task.job.output.parent.iterdir()) == [task.job.output]
    assert task.job.source.read_bytes() == (DATA / name).read_bytes()


@pytest.mark.parametrize("name", [*UNFINISHED_FILES, "truncated_tail.tif", "empty.tif", "never_written.tif"])
def test_a_file_that_is_not_complete_or_gone_is_not_ready(name: str, make_task: MakeTask) -> None:
    task = make_task(name)
    failure = worker.run(task)
    assert isinstance(failure, Failure)
    assert failure.kind == "not_ready"
    assert str(task.job.source) in failure.reason
    assert not task.job.output.exists()


def test_what_is_no_tiff_fails_for_good(make_task: MakeTask) -> None:
    task = make_task("not_a_tiff.tif")
    failure = worker.run(task)
    assert isinstance(failure, Failure)
    assert failure.kind == "final"
    assert str(task.job.source) in failure.reason
    assert "b'hell'" in failure.reason
    assert not task.job.output.exists()


def test_foreign_file_at_the_output_path_is_kept_and_job_fails(make_task: MakeTask) -> None:
    task = make_task("qxrd_r16_64.tif")
    task.job.output.parent.mkdir()
    task.job.output.write_bytes(b"someone's result")
    failure = worker.run(task)
    assert isinstance(failure, Failure)
    assert failure.kind == "final"
    assert str(task.job.output) in failure.reason
    assert task.job.output.read_bytes() == b"someone's result"


def test_source_replaced_by_a_link_out_of_roots_is_not_touched(
    make_task: MakeTask, tmp_path_factory: pytest.TempPathFactory
) -> None:
    task = make_task("qxrd_r16_64.tif")
    outside = tmp_path_factory.mktemp("outside") / "frame.tif"
    task.job.source.rename(outside)
    task.job.source.symlink_to(outside)
    failure = worker.run(task)
    assert isinstance(failure, Failure)
    assert failure.kind == "final"
    assert "outside the folders that may be read" in failure.reason
    assert not task.job.output.exists()


def test_reconversion_with_the_same_recipe_replaces_the_frame(make_task: MakeTask) -> None:
    task = make_task("qxrd_r16_64.tif")
    worker.run(task)
    again = worker.run(task)
    assert isinstance(again, FrameReport)
    assert again.outcome == "converted"


def test_in_place_frame_finished_before_a_crash_is_not_rotated_twice(make_task: MakeTask) -> None:
    task = make_task("qxrd_r16_64.tif")
    task = with_recipe(task, Recipe.model_validate({"rotation": 90, "output": {"mode": "in_place"}}))
    worker.run(task)
    turned = task.job.source.read_bytes()
    assert turned != (DATA / "qxrd_r16_64.tif").read_bytes()
    again = worker.run(task)
    assert isinstance(again, FrameReport)
    assert again.outcome == "skipped"
    assert task.job.source.read_bytes() == turned


TWINS = 25


def with_a_twin(task: Task) -> FrameReport | Failure:
    """Start two attempts at the same time, as when the first was taken for dead; answer the second's.

    The first one's temporary file is taken away by the server: nobody listens to it any more.
    """
    start = threading.Barrier(2)

    def first() -> None:
        start.wait(10)
        worker.run(task)

    def second() -> FrameReport | Failure:
        start.wait(10)
        remove_leftovers(task.job.output, task.job.job_id, task.roots)
        return worker.run(task)

    with ThreadPoolExecutor(2) as threads:
        taken_for_dead, answer = threads.submit(first), threads.submit(second)
    taken_for_dead.result()
    return answer.result()


def test_concurrent_attempts_rotate_an_in_place_frame_once(make_task: MakeTask) -> None:
    task = make_task("qxrd_r16_64.tif")
    task = with_recipe(task, Recipe.model_validate({"rotation": 90, "output": {"mode": "in_place"}}))
    original = tifffile.imread(task.job.source)
    for _ in range(TWINS):
        shutil.copy(DATA / task.job.source.name, task.job.source)
        answer = with_a_twin(task)
        assert isinstance(answer, FrameReport) or answer.kind == "not_ready", answer
        np.testing.assert_array_equal(tifffile.imread(task.job.source), np.rot90(original))
        assert list(task.job.source.parent.iterdir()) == [task.job.source]
        third = worker.run(task)
        assert isinstance(third, FrameReport)
        assert third.outcome == "skipped"


@pytest.mark.parametrize("on_existing", ["replace_own", "skip", "number", "refuse"])
def test_one_new_file_is_made_by_two_attempts_at_the_same_time(on_existing: str, make_task: MakeTask) -> None:
    task = make_task("qxrd_f32_64.tif")
    task = with_recipe(task, Recipe.preset("xdi", rotation=90, output={"mode": "new", "on_existing": on_existing}))
    expected = np.rot90(tifffile.imread(task.job.source)).astype(np.int32)
    for _ in range(TWINS):
        shutil.rmtree(task.job.output.parent, ignore_errors=True)
        assert isinstance(with_a_twin(task), FrameReport)
        np.testing.assert_array_equal(tifffile.imread(task.job.output), expected)
        assert list(task.job.output.parent.iterdir()) == [task.job.output]


@pytest.mark.parametrize("on_existing", ["replace_own", "skip", "number", "refuse"])
def test_delayed_duplicate_attempt_makes_no_second_file(on_existing: str, make_task: MakeTask) -> None:
    task = make_task("qxrd_f32_64.tif")
    task = with_recipe(task, Recipe.preset("xdi", rotation=90, output={"mode": "new", "on_existing": on_existing}))
    for _ in range(2):
        assert isinstance(worker.run(task), FrameReport)
    assert list(task.job.output.parent.iterdir()) == [task.job.output]


def test_attempt_whose_temporary_file_was_removed_fails_harmlessly(
    make_task: MakeTask,
) -> None:
    task = make_task("large.tif")
    image = np.random.default_rng(1).normal(100, 50, (2048, 2048)).astype(np.float32)
    tifffile.imwrite(task.job.source, image)
    ended = threading.Event()

    def clean_up() -> None:
        while not ended.is_set():
            remove_leftovers(task.job.output, task.job.job_id)

    other = threading.Thread(target=clean_up)
    other.start()
    try:
        failure = worker.run(task)
    finally:
        ended.set()
        other.join()
    assert isinstance(failure, Failure)
    assert failure.kind == "blocked"  # it is worth another attempt, if it was not the one taken for dead
    assert not list(task.job.output.parent.iterdir())
    assert isinstance(worker.run(task), FrameReport)
    np.testing.assert_array_equal(tifffile.imread(task.job.output), np.rot90(image).astype(np.int32))


@pytest.mark.parametrize("name", ["qxrd_r16_64.tif", "not_a_tiff.tif"], ids=["report", "failure"])
def test_task_and_answer_can_cross_to_another_process(name: str, make_task: MakeTask) -> None:
    task = make_task(name)
    assert pickle.loads(pickle.dumps(task)) == task
    answer = worker.run(task)
    assert pickle.loads(pickle.dumps(answer)) == answer


@pytest.mark.skipif(os.name == "nt", reason="the sentinel of a process is a handle on Windows, not a pipe")
@pytest.mark.parametrize("alive", [True, False])
def test_a_worker_whose_server_is_dead_begins_with_no_frame(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, alive: bool
) -> None:
    task = make_task("qxrd_r16_64.tif")
    ours, theirs = multiprocessing.Pipe()
    server_lives, server_s_end = os.pipe()

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(multiprocessing, "parent_process", lambda: SimpleNamespace(sentinel=server_lives))
    monkeypatch.setattr(os, "_exit", leave)
    with ours, theirs:
        ours.send([task])
        if alive:
            serving = threading.Thread(target=worker.serve, args=(theirs, lambda: None, worker.run))
            serving.start()
            assert ours.recv() is None
            (report,) = ours.recv()
            assert isinstance(report, FrameReport)
            ours.close()
            serving.join()
        else:
            os.close(server_s_end)
            with pytest.raises(SystemExit):
                worker.serve(theirs, lambda: None, worker.run)
    os.close(server_lives)
    if alive:
        os.close(server_s_end)
    assert task.job.output.parent.exists() == alive


@pytest.fixture
def interrupt() -> Iterator[Callable[[], None]]:
    """Send this process a Ctrl-C; how it takes it is restored after the test."""
    before = signal.getsignal(signal.SIGINT)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_a_prepared_worker_is_deaf_to_ctrl_c(interrupt: Callable[[], None]) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    worker.prepare()
    interrupt()
