"""The durable queue, on a real file."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from tango_server.jobs.ledger.booking import Booked
from tango_server.jobs.ledger.database import Database, LedgerBusyError
from tango_server.jobs.ledger.history import History, UnknownIdError
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.state_machine.events import Selection
from tango_server.messages import FrameReport, ReportsQuery
from tango_server.recipe import Recipe
from tango_server.recipe.corrections import Corrections
from tests.unit.ledger_entries import ACCEPTED, XDI, accept, finish, job, pending_ids, refused_job, report

ALL = Selection()
OF_BEFORE = (
    "number, place, job_id, key, run_uid, source, source_root, output, output_root, mask, recipe_id, accepted, "
    "request, metadata, outcome, report, finished, age"
)
"""The columns that programs before the corrections insert."""
AS_BEFORE = OF_BEFORE.replace("number, place, job_id", "NULL, 3, 'c'")


def reports_of(history: History, *job_ids: str) -> list[FrameReport]:
    return history.reports(ReportsQuery(job_ids=list(job_ids)))[0]


def fail(ledger: Ledger, *job_ids: str) -> None:
    finish(ledger, *(report(job_id, "failed", reason="broken") for job_id in job_ids))


def test_jobs_come_back_whole_and_in_their_order(ledger: Ledger) -> None:
    jobs = [job("z", "run-1"), job("a", recipe=Recipe(rotation=180)), job("m", "run-1")]
    ledger.accept(jobs[:2])
    ledger.accept(jobs[2:])
    assert ledger.fetch(0, 10).jobs == tuple(replace(one, place=place) for place, one in enumerate(jobs, 1))


def test_resolved_paths_of_masters_come_back(ledger: Ledger) -> None:
    recipe = Recipe(corrections=Corrections(dark="/current/dark.tif", mask="/raw/mask.tif"))
    resolved = Corrections(dark="/gpfs/dark.tif", mask="/raw/mask.tif")
    jobs = [replace(job("a", recipe=recipe), corrections=resolved), replace(job("b"), corrections=None)]
    jobs.append(replace(job("c", recipe=recipe), corrections=recipe.corrections))
    ledger.accept(jobs)
    assert [one.corrections for one in ledger.fetch(0, 10).jobs] == [resolved, None, recipe.corrections]
    assert {one.recipe.hash for one in ledger.fetch(0, 10).jobs} == {recipe.hash, XDI.hash}


def test_ledger_of_an_earlier_program_gets_its_column_and_that_program_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "earlier.sqlite"
    with closing(Database(path)) as database:
        Ledger(database).accept([job("a")])
    with closing(sqlite3.connect(path)) as earlier, earlier:
        earlier.execute("ALTER TABLE jobs DROP COLUMN corrections")
        version = earlier.execute("PRAGMA user_version").fetchone()
    recipe = Recipe(corrections=Corrections(dark="/current/dark.tif"))
    resolved = Corrections(dark="/gpfs/dark.tif")
    with closing(Database(path)) as database:
        ledger = Ledger(database)
        assert [one.corrections for one in ledger.fetch(0, 10).jobs] == [None]
        ledger.accept([replace(job("b", recipe=recipe), corrections=resolved)])
    with closing(sqlite3.connect(path)) as earlier, earlier:
        assert earlier.execute("PRAGMA user_version").fetchone() == version
        earlier.execute(f"INSERT INTO jobs ({OF_BEFORE}) SELECT {AS_BEFORE} FROM jobs WHERE job_id='a'")
    with closing(Database(path)) as database:
        found = {one.job_id: one.corrections for one in Ledger(database).fetch(0, 10).jobs}
    assert found == {"a": None, "b": resolved, "c": None}
    assert not list(tmp_path.glob("*.version-*"))


def test_shape_in_the_metadata_is_that_of_the_job(ledger: Ledger) -> None:
    table: list[tuple[dict[str, object], tuple[int, int] | None]] = [
        ({"shape": [100, 200]}, (100, 200)),
        ({"shape": [1, 100, 200]}, (100, 200)),
        ({"shape": [200]}, None),
        ({"shape": [0, 5]}, None),
        ({"shape": "100, 200"}, None),
        ({"shape": [10**6, 5]}, None),
        ({"note": 'a "shape"'}, None),
    ]
    ledger.accept([job(str(number), metadata=metadata) for number, (metadata, _) in enumerate(table)])
    assert [(metadata, one.shape) for (metadata, _), one in zip(table, ledger.fetch(0, 9).jobs, strict=True)] == table


def test_resumed_jobs_are_marked_and_keep_their_places(database: Database) -> None:
    earlier = Ledger(database)
    accept(earlier, "a", "b")
    fail(earlier, "a")
    earlier.retry_failed()
    finish(earlier, report("b"))
    ledger = Ledger(database)
    accept(ledger, "c")
    assert [(one.job_id, one.resumed) for one in ledger.fetch(0, 10).jobs] == [("a", True), ("c", False)]
    History(database).reopen_unsynced()
    found = ledger.fetch(0, 10).jobs
    assert [(one.job_id, one.resumed) for one in found] == [("b", True), ("a", True), ("c", False)]
    assert len({one.place for one in found}) == 3


def test_call_with_one_unwritable_entry_is_rejected_whole(ledger: Ledger, history: History) -> None:
    accept(ledger, "a")
    with pytest.raises(sqlite3.IntegrityError):
        ledger.accept([job("b", "run-1", key="key-b"), job("a")], ["run-2"])
    assert pending_ids(ledger) == ["a"]
    for run_uid in ("run-1", "run-2"):
        with pytest.raises(UnknownIdError):
            history.run_statistics(run_uid)
    assert ledger.accept([job("b", key="key-b")])[0].new
    assert pending_ids(ledger) == ["a", "b"]


def test_first_report_of_a_job_holds(ledger: Ledger, history: History) -> None:
    accept(ledger, "a", "b", "c")
    finish(ledger, report("b"), report("c", "failed", reason="broken"))
    finish(ledger, report("b", "failed", reason="late"))
    assert pending_ids(ledger) == ["a"]
    assert ledger.pending() == 1
    assert reports_of(history, "b", "c") == [report("b"), report("c", "failed", reason="broken")]


def test_same_key_is_the_same_job_with_its_report(database: Database, ledger: Ledger) -> None:
    booked = ledger.accept([job("a", key="frame-1"), job("b", key="2"), job("c", key="frame-1", source="a")])
    assert booked == [
        Booked("a", "/raw/a.tif", new=True, pending=1),
        Booked("b", "/raw/b.tif", new=True, pending=1),
        Booked("a", "/raw/a.tif", new=False),
    ]
    assert pending_ids(ledger) == ["a", "b"]
    again = job("d", key="frame-1", source="another")  # the source that is returned shows the mistake
    assert ledger.accept([again]) == [Booked("a", "/raw/a.tif", new=False)]
    fail(ledger, "a")
    ledger.retry_failed()
    ledger = Ledger(database)
    assert ledger.accept([again]) == [Booked("a", "/raw/a.tif", new=False)]
    finish(ledger, report("a"))
    assert ledger.accept([again]) == [Booked("a", "/raw/a.tif", new=False)]
    assert pending_ids(ledger) == ["b"]
    without = ledger.accept([job("e", source="x"), job("f", source="x")])
    assert [one.new for one in without] == [True, True]


def test_refused_request_is_booked_once_until_it_is_corrected(ledger: Ledger, history: History) -> None:
    refused = refused_job("a", "run-1", key="frame-1")
    assert ledger.accept([refused]) == [Booked("a", "/raw/a.tif", new=True)]
    assert ledger.accept([refused_job("b", "run-1", key="frame-1")])[0].new is False
    assert ledger.pending() == 0
    assert reports_of(history, "a") == [refused.refusal]
    assert history.run_statistics("run-1").failed == 1
    assert ledger.accept([job("b", "run-1", key="frame-1")])[0] == Booked("b", "/raw/b.tif", new=True, pending=1)
    assert pending_ids(ledger) == ["b"]
    statistics = history.run_statistics("run-1")
    assert (statistics.submitted, statistics.failed) == (1, 0)


def test_unreadable_job_is_logged_counted_and_left(
    database: Database, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.accept([job("a"), job("b", recipe=Recipe(rotation=180)), job("c")])
    with database.transaction() as connection:
        connection.execute("""UPDATE recipes SET text='{"rotation": 45}' WHERE text LIKE '%"rotation":180%'""")
    fetched = ledger.fetch(0, 10)
    assert ([one.job_id for one in fetched.jobs], fetched.unreadable, fetched.last) == (["a", "c"], {"b"}, 3)
    assert "job b (/raw/b.tif)" in caplog.text
    assert ledger.pending() == 3


def test_cancelled_jobs_have_a_report_that_says_so(ledger: Ledger, history: History) -> None:
    ledger.accept([job("a", "run-1")])
    assert ledger.cancel(ALL, [], ACCEPTED + 5) == {"a"}
    (found,) = reports_of(history, "a")
    assert found == FrameReport(
        job_id="a", source="/raw/a.tif", outcome="skipped", reason="cancelled on request", accepted=ACCEPTED,
        finished=ACCEPTED + 5, run_uid="run-1", stream="primary",
    )  # fmt: skip
    statistics = history.run_statistics("run-1")
    assert (statistics.skipped, statistics.pending) == (1, 0)


CANCELLED: list[tuple[Selection, str, str]] = [
    (ALL, "", ""),
    (ALL, "bd", "bd"),
    (Selection(run_uid="run-1"), "", "cd"),
    (Selection(run_uid="run-1"), "a", "acd"),
    (Selection(run_uid="run-9"), "", "abcd"),
    (Selection(job_ids=("d", "nobody", "a")), "", "bc"),
    (Selection(job_ids=("d", "a")), "a", "abc"),
    (Selection(job_ids=()), "", "abcd"),
]


@pytest.mark.parametrize(("selection", "spared", "left"), CANCELLED, ids=lambda value: str(value)[:40])
def test_only_selected_jobs_are_cancelled(selection: Selection, spared: str, left: str, ledger: Ledger) -> None:
    ledger.accept([job("a", "run-1"), job("b", "run-1"), job("c", "run-2"), job("d"), job("done", "run-1")])
    finish(ledger, report("done"))
    assert ledger.cancel(selection, list(spared), ACCEPTED) == set("abcd") - set(left)
    assert pending_ids(ledger) == list(left)


@pytest.mark.parametrize("by", ["all", "run", "ids"])
def test_cancel_in_portions_misses_no_job(by: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tango_server.jobs.ledger.ledger._PORTION", 100)
    names = [f"{number:05d}" for number in range(500)]
    ledger.accept([job(name, "even" if int(name) % 2 == 0 else "odd") for name in names])
    even = set(names[::2])
    selection = {"all": ALL, "run": Selection(run_uid="even"), "ids": Selection(job_ids=tuple(names[::2]))}[by]
    spared = set(names[1::2]) if by == "all" else set()
    assert ledger.cancel(selection, spared, ACCEPTED) == even
    assert pending_ids(ledger, portion=10_000) == names[1::2]


def test_disk_full_halfway_through_cancel_leaves_the_rest(
    database: Database, ledger: Ledger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tango_server.jobs.ledger.ledger._PORTION", 100)
    accept(ledger, *(f"{number:05d}" for number in range(1000)))
    pages = database._file.writer.execute("PRAGMA page_count").fetchone()[0]
    database._file.writer.execute(f"PRAGMA max_page_count={pages + 15}")
    cancelled = ledger.cancel(ALL, [], ACCEPTED)
    assert 0 < len(cancelled) < 1000
    assert ledger.pending() == 1000 - len(cancelled)
    assert f"Cancelled only {len(cancelled)} jobs" in caplog.text
    with pytest.raises(LedgerBusyError):
        ledger.cancel(ALL, [], ACCEPTED)


def test_failed_jobs_are_retried_behind_all_others(ledger: Ledger, history: History) -> None:
    accept(ledger, "a", "b", "c")
    ledger.accept([refused_job("refused", "run-1")])
    finish(ledger, report("b"))
    fail(ledger, "c", "a")
    accept(ledger, "d")
    assert ledger.retry_failed().frames == 2
    accept(ledger, "e")
    assert pending_ids(ledger) == ["d", "a", "c", "e"]
    assert reports_of(history, "a", "c") == []
    assert ledger.retry_failed().frames == 0
    finish(ledger, report("a"))
    assert reports_of(history, "a") == [report("a")]


def test_dismissed_failures_are_not_retried(ledger: Ledger) -> None:
    accept(ledger, "a", "b")
    fail(ledger, "a")
    ledger.dismiss_failed()
    fail(ledger, "b")
    assert ledger.retry_failed().frames == 1
    assert pending_ids(ledger) == ["b"]


def test_concurrent_retries_retry_each_job_once(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tango_server.jobs.ledger.ledger._PORTION", 10)
    names = [f"{number:05d}" for number in range(200)]
    accept(ledger, *names)
    fail(ledger, *names)
    counts: list[int] = []
    clients = [Thread(target=lambda: counts.append(ledger.retry_failed().frames)) for _ in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert sum(counts) == 200
    assert sorted(pending_ids(ledger, portion=10_000)) == names


def test_kept_texts_and_gatherings_survive_a_restart(database: Database) -> None:
    ledger = Ledger(database)
    assert ledger.kept("recipe") is None
    ledger.keep("recipe", "one")
    ledger.keep("recipe", XDI.model_dump_json())
    ledger.add_submission("first", ["/raw", "/raw/M\udcfcller.tif"])
    ledger.add_submission("second", [])
    path = database.path
    database.close()
    with closing(Database(path)) as reopened:
        assert Ledger(reopened).kept("recipe") == XDI.model_dump_json()
        assert Ledger(reopened).submissions() == [("first", ["/raw", "/raw/M\udcfcller.tif"]), ("second", [])]
        Ledger(reopened).remove_submission("first")
        assert Ledger(reopened).submissions() == [("second", [])]
