"""What is forgotten of the history, and when: by running time, by number, and never by the wall clock."""

from contextlib import closing
from pathlib import Path

import pytest

from tango_server.jobs.ledger.database import Database
from tango_server.jobs.ledger.history import History, UnknownIdError
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.state_machine.events import Selection
from tango_server.recipe import Recipe
from tests.unit.ledger_entries import ACCEPTED, XDI, Stopwatch, accept, finish, job, known, prune, refused_job, report
from tests.unit.ledger_files import left_behind


def test_only_old_finished_jobs_are_forgotten_by_age(ledger: Ledger, history: History, stopwatch: Stopwatch) -> None:
    accept(ledger, "old", "cancelled", "young", "pending")
    ledger.accept([refused_job("refused", "run-1")])
    finish(ledger, report("old"))
    stopwatch.now += 100
    assert prune(history, 101.0) == 0
    assert prune(history, 99.0) == 2
    assert known(history, "old", "cancelled", "refused", "young", "pending") == [False, True, False, True, True]
    ledger.cancel(Selection(job_ids=("cancelled",)), (), ACCEPTED)  # age counts from then, as that of a refusal
    ledger.accept([refused_job("refused")])
    stopwatch.now += 9
    finish(ledger, report("young"))
    assert prune(history, 9.0) == 0
    assert prune(history, 8.0) == 2
    assert known(history, "cancelled", "refused", "young", "pending") == [False, False, True, True]


@pytest.mark.parametrize("wall", [0.0, ACCEPTED + 1e9], ids=["back", "ahead"])
def test_a_jump_of_the_wall_clock_forgets_nothing(
    ledger: Ledger, history: History, stopwatch: Stopwatch, wall: float
) -> None:
    accept(ledger, "before", "after")
    finish(ledger, report("before"))
    stopwatch.now += 1
    finish(ledger, report("after", finished=wall))
    assert prune(history, 5.0) == 0
    stopwatch.now += 4.5
    assert prune(history, 5.0) == 1
    assert known(history, "before", "after") == [False, True]


def test_age_of_a_retried_job_counts_from_its_last_report(
    ledger: Ledger, history: History, stopwatch: Stopwatch
) -> None:
    accept(ledger, "a")
    finish(ledger, report("a", "failed"))
    stopwatch.now += 100
    ledger.retry_failed()
    assert prune(history, 50.0) == 0
    finish(ledger, report("a"))
    assert prune(history, 50.0) == 0
    assert known(history, "a") == [True]


def test_only_the_running_time_of_servers_counts(tmp_path: Path, stopwatch: Stopwatch) -> None:
    path = tmp_path / "kept.sqlite"
    with closing(Database(path, stopwatch)) as database:
        accept(Ledger(database), "a")
        finish(Ledger(database), report("a"))
        stopwatch.now += 60
        database.keep_age()
        stopwatch.now += 7
        copy = left_behind(path, tmp_path / "killed")
    with closing(Database(copy, stopwatch)) as database:
        assert database.age == 60.0, "what a killed server has kept"
    stopwatch.now = 5.0  # another start of the machine
    with closing(Database(path, stopwatch)) as database:
        stopwatch.now += 23
        assert database.age == 90.0
        assert prune(History(database), 90.0) == 0
        stopwatch.now += 1
        assert prune(History(database), 90.0) == 1


def test_jobs_after_those_of_a_killed_server_are_younger(tmp_path: Path, stopwatch: Stopwatch) -> None:
    path = tmp_path / "ledger.sqlite"
    with closing(Database(path, stopwatch)) as database:
        accept(Ledger(database), *"abc")
        stopwatch.now += 50
        finish(Ledger(database), report("b"), report("c"))
        copy = left_behind(path, tmp_path / "killed")
    with closing(Database(copy, stopwatch)) as database:
        stopwatch.now += 1
        finish(Ledger(database), report("a", finished=ACCEPTED))
        assert prune(History(database), 1e9, limit=1) == 2
        assert known(History(database), *"abc") == [True, False, False]


def test_oldest_finished_jobs_are_forgotten_by_count(ledger: Ledger, history: History, stopwatch: Stopwatch) -> None:
    accept(ledger, *"abcd", "pending")
    for name in "bdca":
        stopwatch.now += 1
        finish(ledger, report(name))
    assert prune(history, 100.0, limit=2) == 2
    assert known(history, *"abcd", "pending") == [True, False, True, False, True]
    assert prune(history, 100.0, limit=2) == 0


def test_a_call_forgets_no_more_than_a_portion(ledger: Ledger, history: History) -> None:
    names = [f"{number:05d}" for number in range(1300)]
    accept(ledger, *names)
    finish(ledger, *(report(name) for name in names))
    first = history.prune(-1.0, 10**9)
    assert 0 < first < 1000
    assert prune(history, -1.0) == 1300 - first


def test_run_is_unknown_once_its_frames_are_forgotten(ledger: Ledger, history: History) -> None:
    ledger.accept([job("a", "gone"), job("b", "half"), job("c", "half")], ["announced"])
    finish(ledger, report("a"), report("b"))
    assert prune(history, 1.0, limit=0) == 2
    with pytest.raises(UnknownIdError, match="pruned"):
        history.run_statistics("gone")
    assert history.run_statistics("half").pending == 1
    assert history.run_statistics("announced").submitted == 0
    prune(history, -1.0)
    with pytest.raises(UnknownIdError):
        history.run_statistics("announced")


def test_an_announced_run_is_kept_as_long_as_a_report(ledger: Ledger, history: History, stopwatch: Stopwatch) -> None:
    ledger.accept([], ["early"])
    stopwatch.now += 100
    ledger.accept([], ["late"])
    stopwatch.now += 10
    prune(history, 11.0)
    assert history.run_statistics("late").submitted == 0
    with pytest.raises(UnknownIdError, match="early"):
        history.run_statistics("early")


def test_recipes_are_kept_as_long_as_reports_since_last_use(
    database: Database, ledger: Ledger, history: History, stopwatch: Stopwatch
) -> None:
    turned = Recipe(rotation=180)
    ledger.accept([job("a"), job("b", recipe=turned)])
    stopwatch.now += 100
    accept(ledger, "c")
    finish(ledger, *(report(name) for name in "abc"))
    prune(history, 11.0, limit=0)
    with database.reading() as connection:
        assert connection.execute("SELECT text FROM recipes").fetchall() == [(XDI.model_dump_json(),)]
    stopwatch.now += 12
    prune(history, 11.0)
    with database.reading() as connection:
        assert connection.execute("SELECT text FROM recipes").fetchall() == []


def test_recipes_go_when_no_job_has_them_any_more(database: Database, ledger: Ledger, history: History) -> None:
    ledger.accept([job("a"), job("b", recipe=Recipe(rotation=180))])
    finish(ledger, report("a"))
    prune(history, -1.0)
    with database.reading() as connection:
        texts = connection.execute("SELECT text FROM recipes").fetchall()
    assert texts == [(Recipe(rotation=180).model_dump_json(),)]
    accept(ledger, "c")
    assert [one.recipe for one in ledger.fetch(0, 10).jobs] == [Recipe(rotation=180), XDI]


def test_file_does_not_grow_with_pruned_jobs(
    database: Database, ledger: Ledger, history: History, stopwatch: Stopwatch
) -> None:
    sizes = []
    for cycle in range(15):
        names = [f"{cycle}-{number}" for number in range(100)]
        ledger.accept([job(name, f"run-{cycle}", key=name) for name in names])
        finish(ledger, *(report(name) for name in names))
        history.mark_synced(names)
        stopwatch.now += 1
        prune(history, 1.5)
        with database.reading() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sizes.append(database.path.stat().st_size)
    assert sizes[-1] <= 1.3 * sizes[2]
