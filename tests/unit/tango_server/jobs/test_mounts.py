"""Roots whose file system goes away: frames wait, and go on when it is back."""

import shutil
from pathlib import Path

import pytest

from tango_server.jobs import mounts
from tango_server.jobs.mounts import Mount, Mounts, Place, place
from tango_server.jobs.runner import JobRunner
from tango_server.jobs.startup import open_database
from tango_server.messages import ReportsQuery, SubmitQuery
from tango_server.settings import Settings
from tests.conftest import DATA
from tests.unit.held_executor import PATIENCE, Bell, HeldExecutor, report_of

ROOT = Path("/data")
LOCAL = Mount("/", "ext4", "/dev/sda1")
NFS = Mount("/data", "nfs4", "server:/export")


class World:
    """Where a folder lies, as a test says."""

    def __init__(self, *places: Place | None) -> None:
        self.places = list(places)

    def __call__(self, _folder: Path, _noted: Place | None) -> Place | None:
        return self.places.pop(0) if len(self.places) > 1 else self.places[0]


@pytest.mark.parametrize(
    ("before", "after", "gone"),
    [
        (Place(40, NFS), Place(40, NFS), False),
        (Place(40, NFS), Place(1, LOCAL), True),
        (Place(40, NFS), Place(41, NFS), False),  # mounted again
        (Place(40, NFS), Place(41, NFS._replace(source="other:/export")), True),
        (Place(1, LOCAL), Place(40, NFS), False),  # mounted after the start
        (Place(40), Place(1), True),  # a system that tells devices only
        (Place(40), None, True),
        (None, Place(40, NFS), False),
    ],
)
def test_a_root_is_compared_with_what_it_was(before: Place | None, after: Place | None, gone: bool) -> None:
    known = Mounts([ROOT], World(before, after))
    problem = known.problem_of(ROOT)
    assert bool(problem) == bool(known.last_problem) == gone
    assert not gone or ("/data: the file system is not mounted" in problem and "Frames wait" in problem)


def test_remounted_root_is_no_problem_and_its_mount_is_remembered() -> None:
    known = Mounts([ROOT], World(Place(40, NFS), Place(1, LOCAL), Place(1, LOCAL), Place(41, NFS), Place(1, LOCAL)))
    assert [bool(known.problem_of(ROOT)) for _ in range(4)] == [True, True, False, True]


def test_a_folder_lies_where_the_nearest_one_above_it_does(tmp_path: Path) -> None:
    assert place(tmp_path / "not" / "there") == place(tmp_path)
    assert place(tmp_path) == place(tmp_path / ".")


def test_the_mount_of_a_folder_is_the_deepest_one_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"40 21 0:40 / {tmp_path} rw,relatime shared:1 - nfs4 server:/my\\040data rw\n"
        "a line of another kind\n"
        f"41 40 0:41 / {tmp_path}/other rw - tmpfs none rw\n"
    )
    monkeypatch.setattr(mounts, "_MOUNTS", table)
    found = place(tmp_path)
    assert found is not None
    assert found.mount == Mount(str(tmp_path), "nfs4", "server:/my data")
    monkeypatch.setattr(mounts, "_MOUNTS", tmp_path / "nothing")
    assert place(tmp_path) == found._replace(mount=None)
    assert place(tmp_path, found) == found, "on the same device nothing else is looked at"


def test_frames_wait_while_their_file_system_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, bell, executor = tmp_path.resolve() / "data", Bell(), HeldExecutor()
    (root / "raw").mkdir(parents=True)
    state = tmp_path / "state"
    state.mkdir()
    here = [Place(40, NFS)]
    monkeypatch.setattr(mounts, "place", lambda _folder, _noted: here[0])  # what no test can do to its own disk
    settings = Settings(
        read_roots=(root,), state_dir=state, numworkers=1, sidecar_timeout=0.0, timeout=0.2, settle_time=0.1
    )
    runner = JobRunner(settings, open_database(settings), executor, bell.ring)

    def submit(name: str) -> str:
        return (
            runner.intake.submit(SubmitQuery(requests=[{"source": str(root / "raw" / f"{name}.tif")}])).jobs[0].job_id
        )

    def outcome(job_id: str) -> list[str]:
        return [report.outcome for report in runner.reports(ReportsQuery(job_ids=[job_id])).reports]

    try:
        shutil.copy(DATA / "qxrd_f32_64.tif", root / "raw" / "a.tif")
        first = submit("a")
        task, done = executor.begun.get(timeout=PATIENCE)
        here[0] = Place(1, LOCAL)  # while the worker is at it: what it writes may lie below the mount
        done(report_of(task))
        second = submit("b")  # a frame that will be there again
        bell.wait_for(lambda: "the file system is not mounted" in runner.problem, "it is told")
        bell.wait_for(lambda: runner.snapshot.running == 0, "nothing is converted")
        assert (outcome(first), outcome(second)) == ([], [])
        shutil.copy(DATA / "qxrd_f32_64.tif", root / "raw" / "b.tif")
        here[0] = Place(41, NFS)
        assert {executor.end_next().job.source.name for _ in range(2)} == {"a.tif", "b.tif"}
        bell.wait_for(lambda: runner.snapshot.queue_length == 0, "all is reported")
        assert (outcome(first), outcome(second)) == (["converted"], ["converted"])
        assert not runner.problem
    finally:
        runner.close()
