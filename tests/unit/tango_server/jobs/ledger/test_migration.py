"""A ledger of an earlier version is taken over with all that stands on it."""

import logging
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tango_server.jobs.job import Job
from tango_server.jobs.ledger.database import Database, LedgerError
from tango_server.jobs.ledger.history import History
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.messages import FrameReport, PixelCounts, ReportsQuery, RunStatistics
from tango_server.recipe import Recipe
from tests.unit.full_disk import no_file_grows_beyond
from tests.unit.ledger_entries import (
    ACCEPTED,
    XDI,
    Stopwatch,
    accept,
    finish,
    job,
    known,
    pending_ids,
    prune,
    refused_job,
    report,
)
from tests.unit.ledger_version_1 import write_version_1
from tests.unit.ledger_version_2 import write_version_2

OTHER = Recipe(rotation=180)
CONVERTED = FrameReport(
    job_id="converted", source="/raw/converted.tif", output="/processed/converted.tif", outcome="converted",
    reason="\u00b5m \u03a9", shape=(2048, 1024), pixel_type="int32", pixels=PixelCounts(nan=1, minimum=-0.5),
    sidecar="carried", conversion_time=0.25, latency=0.5, accepted=1.7e9, finished=1.7e9 + 7, recipe_hash=XDI.hash,
    run_uid="run-1", stream="primary", seq_num=3, bytes_in=16_777_354, bytes_out=8_388_746,
)  # fmt: skip
FAILED = report("failed", "failed", reason="it never came", run_uid="run-1")
REFUSED = refused_job("refused", "run-1", key="key-r")


WRITERS = {1: write_version_1, 2: write_version_2}


@pytest.fixture(params=list(WRITERS))
def version(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def path(tmp_path: Path, version: int) -> Path:
    """A file of that version: jobs that are pending (two recipes), converted, failed, refused; runs, keys, a recipe."""
    path = tmp_path / "ledger.sqlite"
    entries = [
        job("converted", "run-1", key="key-c"),
        job("first", "run-1", key="key-1", metadata={"shape": [1, 100, 200]}),
        REFUSED,
        job("failed", "run-1"),
        job("second", recipe=OTHER),
    ]
    WRITERS[version](path, entries, [CONVERTED, FAILED], ["announced"], {"recipe": OTHER.model_dump_json()})
    return path


def of_before(job: Job, place: int) -> Job:
    """Return the job as it was kept: without its roots."""
    return replace(job, source_root=None, output_root=None, place=place, resumed=True)


def test_jobs_reports_keys_and_recipe_are_taken_over(path: Path) -> None:
    with closing(Database(path)) as database:
        ledger, history = Ledger(database), History(database)
        fetched = ledger.fetch(0, 10)
        assert not fetched.unreadable
        assert fetched.jobs == (
            of_before(job("first", "run-1", key="key-1", metadata={"shape": [1, 100, 200]}), 2),
            of_before(job("second", recipe=OTHER), 5),
        )
        assert fetched.jobs[0].shape == (100, 200)
        assert ledger.pending() == 2
        assert history.reports(ReportsQuery(run_uid="run-1")) == ([CONVERTED, REFUSED.refusal, FAILED], 1)
        assert history.reports(ReportsQuery(job_ids=["converted"])) == ([CONVERTED], 0)
        found = history.run_statistics("run-1")
        assert (found.submitted, found.converted, found.failed, found.pending) == (4, 1, 2, 1)
        assert (found.latency_median, found.conversion_time_total, found.bytes_out) == (0.5, 0.25, 8_388_746)
        assert found.bytes_per_second == pytest.approx(16_777_354 / 7)
        assert history.run_statistics("announced") == RunStatistics(run_uid="announced")
        assert ledger.kept("recipe") == OTHER.model_dump_json()
        assert history.unsynced(10) == [], "no output of before is made again"
        assert history.reopen_unsynced() == 0
        again = [job("x", source="converted", key="key-c"), job("y", key="key-1"), job("z", key="key-r")]
        booked = ledger.accept(again)
        assert [(one.job_id, one.new) for one in booked] == [("converted", False), ("first", False), ("z", True)]
        accept(ledger, "new")
        assert pending_ids(ledger) == ["first", "second", "z", "new"]
        finish(ledger, report("first", finished=1.7e9 + 9))
        assert ledger.pending() == 3


def test_history_of_before_ages_from_the_migration(path: Path) -> None:
    stopwatch = Stopwatch()
    with closing(Database(path, stopwatch)) as database:
        ledger, history = Ledger(database), History(database)
        stopwatch.now += 10
        assert history.prune(10.5, 100) == 0
        stopwatch.now += 1
        assert history.prune(12.0, 100) == 0
        assert history.run_statistics("announced") == RunStatistics(run_uid="announced")
        assert history.prune(10.5, 100) == 3
        assert history.reports(ReportsQuery(run_uid="run-1")) == ([], 1)
        finish(ledger, report("first"), report("second"))
        stopwatch.now += 11
        assert prune(history, 10.5) == 2
        with database.reading() as connection:
            assert connection.execute("SELECT run_uid FROM runs").fetchall() == []
            assert connection.execute("SELECT text FROM recipes").fetchall() == []


def test_limit_forgets_first_what_was_finished_first_before(tmp_path: Path, version: int) -> None:
    path = tmp_path / "ledger.sqlite"
    reports = [report(name, finished=ACCEPTED + place) for place, name in enumerate("cadb")]
    WRITERS[version](path, [job(name) for name in "abcd"], reports, [], {})
    with closing(Database(path, Stopwatch())) as database:
        assert prune(History(database), 1e9, limit=2) == 2
        assert known(History(database), *"abcd") == [False, True, False, True]


def shape_of(path: Path) -> tuple[set[tuple[object, ...]], dict[str, list[tuple[object, ...]]]]:
    """Return the columns of a file's tables, wherever they stand, and what its indexes are made of."""
    with closing(sqlite3.connect(path)) as plain:
        objects = plain.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite%'").fetchall()
        columns = {
            (name, *column[1:])
            for kind, name in objects
            if kind == "table"
            for column in plain.execute(f"PRAGMA table_info({name})")
        }
        indexes = {
            name: [column[2:] for column in plain.execute(f"PRAGMA index_xinfo({name})")]
            for kind, name in objects
            if kind == "index"
        }
    return columns, indexes


def test_tables_are_those_of_a_new_ledger_and_it_is_logged_once(
    path: Path, version: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new = tmp_path / "new.sqlite"
    for each in (path, new, path):
        Database(each).close()
    assert shape_of(path) == shape_of(new)
    kept = path.with_name(f"{path.name}.version-{version}")
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in told] == [
        f"{path}: saved a copy as {kept} before migrating it from version {version}",
        f"{path}: migrated the ledger from version {version} to 4; earlier versions of petif-bluesky can't read it",
    ]


def test_the_file_of_before_is_kept_as_it_was(path: Path, version: int) -> None:
    before = content_of(path)
    Database(path).close()
    assert content_of(path.with_name(f"{path.name}.version-{version}")) == before
    assert sorted(path.parent.glob("*.part")) == []


def content_of(path: Path) -> tuple[int, dict[str, list[tuple[object, ...]]]]:
    """Return the version of a ledger and all that is in its tables."""
    with closing(sqlite3.connect(path)) as plain:
        tables = [name for (name,) in plain.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        rows = {name: plain.execute(f"SELECT * FROM {name}").fetchall() for name in tables}
        return plain.execute("PRAGMA user_version").fetchone()[0], rows


def test_log_of_a_killed_earlier_server_is_taken_over(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "killed" / path.name
    copy.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("PRAGMA locking_mode=EXCLUSIVE")
        old.execute("UPDATE jobs SET source='/raw/changed.tif' WHERE job_id='second'")
        for suffix in ("", "-wal"):
            Path(f"{copy}{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
    with closing(Database(copy)) as database:
        sources = [job.source.name for job in Ledger(database).fetch(0, 10).jobs]
        assert sources == ["first.tif", "changed.tif"]


def test_damaged_earlier_ledger_is_put_aside(path: Path) -> None:
    before = path.read_bytes()[:5000]
    path.write_bytes(before)
    with closing(Database(path)) as database:
        assert database.set_aside is not None
        assert database.set_aside.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of file sizes")
def test_earlier_ledger_stays_as_it_was_on_a_full_disk(tmp_path: Path, version: int) -> None:
    path = tmp_path / "ledger.sqlite"
    names = [f"job-{number}" for number in range(300)]
    entries = [job(name, metadata={"note": "x" * 1000}) for name in names]
    WRITERS[version](path, entries, [report(name) for name in names[150:]], [], {})
    before = path.read_bytes()
    refused = pytest.raises(LedgerError, match=r"cannot open the ledger: disk I/O error.*free space")
    with no_file_grows_beyond(50_000), refused:
        Database(path)
    assert path.read_bytes() == before
    with closing(Database(path)) as database:
        assert Ledger(database).pending() == 150
        assert len(History(database).reports(ReportsQuery(job_ids=names[150:]))[0]) == 150
