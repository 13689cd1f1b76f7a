"""Where requests come in: refused, or on the ledger before anybody is answered."""

from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tango_server.conversion.errors import PathError
from tango_server.jobs.capacity import BacklogFullError, DiskFullError, FreeSpace, NoRoomError
from tango_server.jobs.intake import Intake, requests_for
from tango_server.jobs.ledger.database import Database, LedgerBusyError
from tango_server.jobs.ledger.history import History, UnknownIdError
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.state_machine.events import Accepted, Event, Refused
from tango_server.messages import SubmitAnswer, SubmitQuery
from tango_server.recipe import Recipe
from tango_server.settings import Settings
from tests.unit.ledger_entries import pending_ids

XDI = Recipe.preset("xdi")
LIMIT = 35


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path.resolve() / "data"
    (root / "raw").mkdir(parents=True)
    return root


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def make(root: Path, tmp_path: Path, ledger: Ledger, told: list[Event]) -> Callable[..., Intake]:
    def make(*, waiting: Callable[[], int] = ledger.pending, tell: Callable[[Event], None] = told.append) -> Intake:
        settings = Settings(
            read_roots=(root,),
            state_dir=tmp_path,
            backlog_limit=LIMIT,
            free_space_limit=10**9,
            free_space_warning=2 * 10**9,
        )
        return Intake(settings, ledger, recipe=lambda: XDI, waiting=waiting, post=tell)

    return make


@pytest.fixture
def reception(make: Callable[..., Intake]) -> Intake:
    return make()


@pytest.fixture
def submit(reception: Intake, root: Path) -> Callable[..., SubmitAnswer]:
    """Submit requests, of which the source may be left out or be a name in the folder of raw frames."""

    def submit(*requests: dict[str, Any], runs: list[str] | None = None) -> SubmitAnswer:
        placed = [{**one, "source": str(root / "raw" / one.get("source", "a.tif"))} for one in requests]
        return reception.submit(SubmitQuery(requests=placed, runs=runs or []))

    return submit


def test_answer_keeps_the_order_of_the_requests(submit: Callable[..., SubmitAnswer], root: Path) -> None:
    names = ["c.tif", "a.tif", "b.tif", "d.tif", "e.tif"]
    wrong = {"recipe": {"rotation": 45}}
    answer = submit(*({"source": name, **(wrong if name in {"a.tif", "d.tif"} else {})} for name in names))
    assert [Path(job.source).name for job in answer.jobs] == ["c.tif", "b.tif", "e.tif"]
    assert [Path(refused.source).name for refused in answer.refused] == ["a.tif", "d.tif"]
    assert all("rotation" in refused.reason for refused in answer.refused)


def test_service_is_notified_after_jobs_are_on_the_ledger(
    make: Callable[..., Intake], ledger: Ledger, root: Path
) -> None:
    pending_when_told: list[int] = []
    reception = make(tell=lambda _: pending_when_told.append(ledger.pending()))
    answer = reception.submit(requests_for([str(root / "raw" / f"{number}.tif") for number in range(7)]))
    assert pending_when_told == [7]
    assert pending_ids(ledger) == [job.job_id for job in answer.jobs]


def test_only_new_jobs_are_notified_and_a_key_has_one_frame(
    submit: Callable[..., SubmitAnswer], told: list[Event]
) -> None:
    first = submit({"key": "1"}, {"key": "2", "source": "b.tif"})
    again = submit({"key": "1"}, {"key": "3", "source": "c.tif"})
    assert again.jobs[0] == first.jobs[0]
    submit({"key": "1"})
    assert told == [Accepted(2), Accepted(1)]
    answer = submit({"key": "1", "source": "d.tif"}, {"source": "e.tif"})
    assert len(answer.jobs) == 1
    for words in (
        "d.tif",
        f"its key already belongs to job {first.jobs[0].job_id}",
        first.jobs[0].source,
        "different key",
    ):
        assert words in answer.refused[0].reason
    assert told == [Accepted(2), Accepted(1), Accepted(1)]


def test_refused_request_is_booked_once_and_only_for_a_run(
    submit: Callable[..., SubmitAnswer], database: Database, ledger: Ledger, told: list[Event]
) -> None:
    assert len(submit({"recipe": {"rotation": 45}}).refused) == 1
    assert told == []
    with database.reading() as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
    request = {"key": "1", "run_uid": "run-1"}
    for _ in range(2):
        answer = submit({**request, "recipe": {"rotation": 45}})
        assert (answer.jobs, len(answer.refused)) == ([], 1)
    (event,) = told
    assert isinstance(event, Refused)
    assert event.report.reason == answer.refused[0].reason
    statistics = History(database).run_statistics("run-1")
    assert (statistics.submitted, statistics.failed) == (1, 1)
    (job,) = submit({**request, "recipe": {"rotation": 90}}).jobs
    assert pending_ids(ledger) == [job.job_id]


def test_call_beyond_the_backlog_limit_is_refused_whole(
    submit: Callable[..., SubmitAnswer], ledger: Ledger, database: Database, told: list[Event]
) -> None:
    submit(*({"source": f"{number}.tif"} for number in range(LIMIT - 1)))
    with pytest.raises(BacklogFullError, match="backlog_limit"):
        submit({"run_uid": "run-1"}, {"run_uid": "run-1"}, runs=["run-2"])
    assert ledger.pending() == LIMIT - 1
    for run_uid in ("run-1", "run-2"):
        with pytest.raises(UnknownIdError):
            History(database).run_statistics(run_uid)
    submit({"source": "the last.tif"})
    assert told == [Accepted(LIMIT - 1), Accepted(1)]


def test_nearly_full_disk_refuses_until_there_is_room(
    reception: Intake, submit: Callable[..., SubmitAnswer], ledger: Ledger, root: Path
) -> None:
    reception.space = FreeSpace(10**9 - 1, root)
    with pytest.raises(DiskFullError, match=str(root)):
        submit({})
    assert (ledger.pending(), bool(reception.disk_problem)) == (0, True)
    reception.space = FreeSpace(10**9, root)
    assert len(submit({}).jobs) == 1
    assert (reception.disk_problem, bool(reception.disk_warning)) == ("", True)


def test_runs_are_announced_without_room_for_frames(
    make: Callable[..., Intake], database: Database, root: Path
) -> None:
    reception = make(waiting=lambda: LIMIT)
    reception.space = FreeSpace(0, root)
    assert reception.submit(SubmitQuery(runs=["run-1"])) == SubmitAnswer(jobs=[], refused=[])
    assert History(database).run_statistics("run-1").submitted == 0


def test_concurrent_callers_do_not_pass_the_limit(reception: Intake, ledger: Ledger, root: Path) -> None:
    refusals: list[NoRoomError] = []

    def submit(caller: int) -> None:
        paths = [str(root / "raw" / f"{caller}-{number}.tif") for number in range(10)]
        try:
            reception.submit(requests_for(paths))
        except NoRoomError as error:
            refusals.append(error)

    callers = [Thread(target=submit, args=(caller,)) for caller in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert ledger.pending() == 30
    assert len(refusals) == 5


def test_unwritable_ledger_refuses_and_sends_no_notification(
    submit: Callable[..., SubmitAnswer], database: Database, ledger: Ledger, told: list[Event]
) -> None:
    pages = database._file.writer.execute("PRAGMA page_count").fetchone()[0]
    database._file.writer.execute(f"PRAGMA max_page_count={pages}")
    requests = [{"source": f"{number}.tif", "metadata": {"note": "x" * 2000}} for number in range(30)]
    with pytest.raises(LedgerBusyError, match="free space"):
        submit(*requests)
    assert (ledger.pending(), told) == (0, [])
    database._file.writer.execute("PRAGMA max_page_count=100000")
    assert len(submit(*requests).jobs) == 30


def test_folder_is_its_frames_and_file_is_itself_in_the_roots(reception: Intake, root: Path, tmp_path: Path) -> None:
    (root / "raw" / "a.tif").touch()
    assert list(reception.frames(str(root / "raw" / ".." / "raw"))) == [str(root / "raw" / "a.tif")]
    assert list(reception.frames(str(root / "raw" / "coming.tif"))) == [str(root / "raw" / "coming.tif")]
    with pytest.raises(PathError, match="read_roots"):
        list(reception.frames(str(tmp_path)))


def test_file_that_cannot_become_a_job_is_reported_as_failed(reception: Intake, told: list[Event]) -> None:
    reception.book_failure("/data/raw", "/data/raw: it can't be listed")
    (event,) = told
    assert isinstance(event, Refused)
    assert (event.report.source, event.report.outcome) == ("/data/raw", "failed")
    assert event.report.reason == "/data/raw: it can't be listed"


def test_files_of_one_gathering_have_keys() -> None:
    assert requests_for(["/raw/a.tif"]).requests == [{"source": "/raw/a.tif"}]
    keys = [one["key"] for one in requests_for(["/raw/a.tif", "/raw/b.tif"], "gathered-1").requests]
    assert keys == ["gathered-1:/raw/a.tif", "gathered-1:/raw/b.tif"]
