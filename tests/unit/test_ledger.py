"""The durable list of jobs, on a real file."""

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tango_server.conversion.paths import Roots
from tango_server.jobs import ledger as ledger_room
from tango_server.jobs.database import Database, LedgerBusyError
from tango_server.jobs.history import History, UnknownIdError
from tango_server.jobs.intake import entry_for
from tango_server.jobs.ledger import Entry
from tango_server.jobs.vocabulary import Job, Selection
from tango_server.messages import FrameReport, Outcome, PixelCounts, ReportsQuery, RunStatistics
from tango_server.recipe import Recipe

XDI = Recipe.preset("xdi", rotation=90, flip="1")


def job(job_id: str, run_uid: str | None = None, seq_num: int | None = None) -> Job:
    return Job(
        job_id, Path(f"/raw/{job_id}.tif"), Path(f"/processed/{job_id}.tif"), XDI, 1.7e9, run_uid, "primary", seq_num
    )


def entry(job_id: str, *, key: str | None = None, run_uid: str | None = None) -> Entry:
    return Entry(job(job_id, run_uid), key, {"exposure": 0.5})


def report(job_id: str, outcome: Outcome = "converted", **fields: object) -> FrameReport:
    base = FrameReport(job_id=job_id, source=f"/raw/{job_id}.tif", outcome=outcome, finished=1.7e9 + 1)
    return base.model_copy(update=fields)


def refused(job_id: str, *, key: str | None = None, run_uid: str | None = None) -> Entry:
    return Entry(job(job_id, run_uid), key, {}, report(job_id, "failed", reason="a relative path"))


class Ledger(ledger_room.Ledger):
    """One file with all that may be asked of it, in short words."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        super().__init__(self.database)
        self.history = History(self.database)

    def close(self) -> None:
        self.database.close()

    def book(self, entries: Sequence[Entry], runs: Sequence[str] = ()) -> list[tuple[str, FrameReport | None, bool]]:
        return [(booked.job_id, booked.report, booked.new) for booked in self.accept(entries, runs)]

    def waiting(self) -> list[Job]:
        """The pending jobs as they were accepted."""
        found = self.fetch(0, 1_000_000).jobs
        assert len(found) == self.pending()
        return [replace(job, place=0, resumed=False) for job in found]

    def write(self, reports: Sequence[FrameReport]) -> None:
        self.finish([(report, (10, 20)) for report in reports])

    def reports(self, query: ReportsQuery) -> tuple[list[FrameReport], int]:
        return self.history.reports(query)

    def run_statistics(self, run_uid: str) -> RunStatistics:
        return self.history.run_statistics(run_uid)


def pending_ids(ledger: Ledger) -> list[str]:
    return [waiting.job_id for waiting in ledger.waiting()]


def reports_of(ledger: Ledger, *job_ids: str) -> list[FrameReport]:
    return ledger.reports(ReportsQuery(job_ids=list(job_ids)))[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    opened = Ledger(path)
    yield opened
    opened.close()


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    """Frames `a` (converted) and `b` (pending) of run-1, `c` (pending) by hand, run-2 announced, a text kept."""
    ledger.book([entry("a", key="key-a", run_uid="run-1"), entry("b", run_uid="run-1")], ["run-2"])
    ledger.book([entry("c")])
    ledger.write([report("a", latency=0.5, run_uid="run-1")])
    ledger.keep("recipe", "kept text")
    return ledger


def left_behind(path: Path, folder: Path, *, cut: int = 0) -> Path:
    """Return a copy of the files of an open ledger: what `kill -9` leaves, its log `cut` bytes short."""
    folder.mkdir()
    copy = Path(shutil.copy(path, folder))
    log = path.with_name(path.name + "-wal").read_bytes()
    copy.with_name(path.name + "-wal").write_bytes(log[: len(log) - cut])
    return copy


def assert_filled(ledger: Ledger) -> None:
    assert ledger.waiting() == [job("b", "run-1"), job("c")]
    assert reports_of(ledger, "a") == [report("a", latency=0.5, run_uid="run-1")]
    assert ledger.run_statistics("run-1").submitted == 2
    assert ledger.run_statistics("run-2") == RunStatistics(run_uid="run-2")
    assert ledger.kept("recipe") == "kept text"
    assert ledger.book([entry("other", key="key-a")])[0][0] == "a"


def test_everything_survives_closing_and_reopening(filled: Ledger, path: Path) -> None:
    filled.close()
    reopened = Ledger(path)
    assert_filled(reopened)
    reopened.close()


def test_everything_survives_a_kill(filled: Ledger, path: Path, tmp_path: Path) -> None:
    survivor = Ledger(left_behind(path, tmp_path / "killed"))
    assert_filled(survivor)
    survivor.close()


def test_a_half_written_transaction_costs_only_itself(ledger: Ledger, path: Path, tmp_path: Path) -> None:
    ledger.book([entry("a")])
    ledger.book([entry("b")])
    survivor = Ledger(left_behind(path, tmp_path / "killed", cut=100))
    assert pending_ids(survivor) == ["a"]
    survivor.close()


def test_nothing_of_a_batch_is_accepted_if_one_entry_can_not_be_written(ledger: Ledger) -> None:
    ledger.book([entry("a")])
    with pytest.raises(sqlite3.IntegrityError):
        ledger.book([entry("b", run_uid="run-1"), entry("a")], ["run-2"])
    assert pending_ids(ledger) == ["a"]
    for run_uid in ("run-1", "run-2"):
        with pytest.raises(UnknownIdError):
            ledger.run_statistics(run_uid)
    ledger.book([entry("b")])
    assert pending_ids(ledger) == ["a", "b"]


def test_pending_jobs_come_back_whole_and_oldest_first(ledger: Ledger) -> None:
    jobs = [job("z", "run-1", 1), job("a"), job("m", "run-1", 2)]
    ledger.book([Entry(one, None, {}) for one in jobs[:2]])
    ledger.book([Entry(one, None, {}) for one in jobs[2:]])
    assert ledger.waiting() == jobs


def test_a_job_with_a_report_is_pending_no_more(ledger: Ledger) -> None:
    ledger.book([entry("a"), entry("b"), entry("c")])
    ledger.write([report("b"), report("c", "failed")])
    assert pending_ids(ledger) == ["a"]


def test_a_refused_request_is_never_pending_and_has_its_report(ledger: Ledger) -> None:
    booked = refused("a", run_uid="run-1")
    assert ledger.book([booked]) == [("a", booked.report, True)]
    assert ledger.waiting() == []
    assert reports_of(ledger, "a") == [booked.report]
    statistics = ledger.run_statistics("run-1")
    assert (statistics.submitted, statistics.failed, statistics.pending) == (1, 1, 0)


def test_a_report_comes_back_as_it_was_written(ledger: Ledger) -> None:
    written = FrameReport(
        job_id="a", source="/raw/a.tif", output="/processed/a.tif", outcome="converted", reason="\u00b5m \u03a9",
        shape=(2048, 1024), pixel_type="int32", pixels=PixelCounts(nan=1, saturated_high=2, minimum=-0.5, maximum=7.25),
        sidecar="carried", conversion_time=0.1, latency=0.3, accepted=1.7e9, finished=1.7e9 + 0.3, recipe_hash=XDI.hash,
        run_uid="run-1", stream="primary", seq_num=3, bytes_in=16_777_354, bytes_out=8_388_746,
    )  # fmt: skip
    ledger.book([entry("a", run_uid="run-1")])
    ledger.write([written])
    assert reports_of(ledger, "a") == [written]


def test_the_first_report_of_a_job_holds(ledger: Ledger) -> None:
    ledger.book([entry("a", run_uid="run-1")])
    ledger.write([report("a", conversion_time=0.25)])
    ledger.write([report("a", "failed", reason="late")])
    assert reports_of(ledger, "a") == [report("a", conversion_time=0.25)]
    assert ledger.run_statistics("run-1").failed == 0


def test_the_same_key_is_the_same_job(ledger: Ledger) -> None:
    assert ledger.book([entry("a", key="frame-1")]) == [("a", None, True)]
    assert ledger.book([entry("b", key="frame-1")]) == [("a", None, False)]
    assert ledger.waiting() == [job("a")]


def test_the_same_key_twice_in_one_batch_is_one_job(ledger: Ledger) -> None:
    answers = ledger.book([entry("a", key="frame-1"), entry("b", key="frame-2"), entry("c", key="frame-1")])
    assert answers == [("a", None, True), ("b", None, True), ("a", None, False)]
    assert pending_ids(ledger) == ["a", "b"]


def test_a_known_key_is_answered_with_the_report_that_there_is(ledger: Ledger) -> None:
    ledger.book([entry("a", key="frame-1", run_uid="run-1")])
    ledger.write([report("a")])
    assert ledger.book([entry("b", key="frame-1", run_uid="run-1")]) == [("a", report("a"), False)]
    assert ledger.run_statistics("run-1").submitted == 1


def test_requests_without_a_key_are_always_new_jobs(ledger: Ledger) -> None:
    answers = ledger.book([entry("a"), entry("b"), entry("c")])
    assert [is_new for _, _, is_new in answers] == [True, True, True]
    assert pending_ids(ledger) == ["a", "b", "c"]


def test_an_announced_run_is_known_with_no_frames(ledger: Ledger) -> None:
    assert ledger.book([], ["run-1"]) == []
    assert ledger.run_statistics("run-1") == RunStatistics(run_uid="run-1")
    assert ledger.reports(ReportsQuery(run_uid="run-1")) == ([], 0)


def test_a_run_may_be_announced_again_while_it_has_frames(ledger: Ledger) -> None:
    ledger.book([entry("a", run_uid="run-1")], ["run-1"])
    ledger.book([], ["run-1"])
    assert ledger.run_statistics("run-1").submitted == 1


def test_a_run_that_was_never_heard_of_is_an_error_and_not_zero(filled: Ledger) -> None:
    with pytest.raises(UnknownIdError, match="unknown run 'run-3'"):
        filled.run_statistics("run-3")
    with pytest.raises(UnknownIdError, match="unknown run 'run-3'"):
        filled.reports(ReportsQuery(run_uid="run-3"))


def test_a_job_that_was_never_heard_of_is_an_error_that_names_it(filled: Ledger) -> None:
    with pytest.raises(UnknownIdError, match=r"unknown job id 'x' \(2 of 4 are unknown\)"):
        filled.reports(ReportsQuery(job_ids=["a", "x", "b", "y"]))


def test_more_jobs_than_a_statement_has_variables_can_be_asked_for(ledger: Ledger) -> None:
    names = [f"j{number:04d}" for number in range(1201)]
    ledger.book([entry(name) for name in names])
    ledger.write([report(name) for name in names[:-1]])
    found, pending = ledger.reports(ReportsQuery(job_ids=names, limit=5000))
    assert [one.job_id for one in found] == names[:-1]
    assert pending == 1


@pytest.fixture
def mixed(ledger: Ledger) -> Ledger:
    """Of run-1: a converted, b failed, c pending, d converted, e skipped; of run-2: f converted."""
    ledger.book([entry(name, run_uid="run-1") for name in "abcde"])
    ledger.book([entry("f", run_uid="run-2")])
    ledger.write([report("e", "skipped"), report("d"), report("f")])
    ledger.write([report("a"), report("b", "failed", reason="broken")])
    return ledger


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (ReportsQuery(run_uid="run-1"), "abde"),
        (ReportsQuery(run_uid="run-1", outcome="converted"), "ad"),
        (ReportsQuery(run_uid="run-1", outcome="placeholder"), ""),
        (ReportsQuery(run_uid="run-1", limit=2), "ab"),
        (ReportsQuery(run_uid="run-1", outcome="converted", limit=1), "a"),
        (ReportsQuery(job_ids=["a", "b", "c", "f"]), "abf"),
        (ReportsQuery(job_ids=["a", "b", "c"], outcome="failed"), "b"),
    ],
    ids=["run", "outcome of run", "no such outcome", "limit", "outcome and limit", "jobs", "outcome of jobs"],
)
def test_the_reports_asked_for_come_in_order_with_the_number_still_pending(
    query: ReportsQuery, expected: str, mixed: Ledger
) -> None:
    found, pending = mixed.reports(query)
    assert [one.job_id for one in found] == list(expected)
    assert pending == 1


def test_asking_for_no_jobs_finds_none(filled: Ledger) -> None:
    assert filled.reports(ReportsQuery(job_ids=[])) == ([], 0)


@pytest.mark.parametrize("frames", [0, 1, 2, 19, 20, 21, 150])
def test_the_statistics_of_a_run_are_those_of_an_independent_calculation(frames: int, ledger: Ledger) -> None:
    random = np.random.default_rng(frames)
    choices: list[Outcome | None] = ["converted", "skipped", "placeholder", "failed", None]
    outcomes = [choices[choice] for choice in random.choice(5, frames, p=[0.6, 0.1, 0.1, 0.1, 0.1])]
    times, latencies = random.exponential(0.1, frames), random.exponential(1.0, frames)
    timed = random.random(frames) < 0.9
    sizes = random.integers(0, 2**40, (frames, 2))
    names = [f"j{number}" for number in range(frames)]
    ledger.book([entry(name, run_uid="run-1") for name in names], ["run-1"])
    ledger.book([entry("of another run", run_uid="run-2")])
    for number, outcome in enumerate(outcomes):
        if outcome is not None:
            latency = float(latencies[number]) if timed[number] else None
            taken, given = map(int, sizes[number])
            changes = {"conversion_time": float(times[number]), "latency": latency}
            ledger.write([report(names[number], outcome, bytes_in=taken, bytes_out=given, **changes)])
    found = ledger.run_statistics("run-1")
    done = np.array([outcome == "converted" for outcome in outcomes], dtype=bool)
    assert (found.run_uid, found.submitted, found.pending) == ("run-1", frames, outcomes.count(None))
    assert (found.converted, found.skipped) == (done.sum(), outcomes.count("skipped"))
    assert (found.placeholders, found.failed) == (outcomes.count("placeholder"), outcomes.count("failed"))
    assert found.conversion_time_total == pytest.approx(times[done].sum())
    assert found.conversion_time_mean == pytest.approx(times[done].mean() if done.any() else 0.0)
    known = latencies[done & timed]
    for value, percent in ((found.latency_median, 50), (found.latency_p95, 95)):
        assert value == (np.percentile(known, percent, method="inverted_cdf") if known.size else 0.0)
    assert (found.bytes_in, found.bytes_out) == tuple(sizes[done].sum(axis=0))


def test_a_second_server_on_the_same_ledger_is_refused_until_the_first_one_ends(ledger: Ledger, path: Path) -> None:
    with pytest.raises(OSError, match="no other server uses") as caught:
        Ledger(path)
    assert str(path) in str(caught.value)
    assert "another state directory" in str(caught.value)
    ledger.book([entry("a")])
    ledger.close()
    successor = Ledger(path)
    assert pending_ids(successor) == ["a"]
    successor.close()


def test_a_ledger_of_a_newer_version_is_refused_and_left_as_it_is(filled: Ledger, path: Path) -> None:
    filled.close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version=99")
    database.close()
    before = path.read_bytes()
    with pytest.raises(OSError, match="version 99; expected 2") as caught:
        Ledger(path)
    assert str(path) in str(caught.value)
    assert "another state directory" in str(caught.value)
    assert path.read_bytes() == before


def test_a_damaged_ledger_is_put_aside_whole_and_a_new_one_begun(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"someone's notes " * 1000)
    ledger = Ledger(path)
    aside = ledger.database.set_aside
    assert aside is not None
    assert aside.read_bytes() == b"someone's notes " * 1000
    ledger.book([entry("a")])
    assert pending_ids(ledger) == ["a"]
    ledger.close()


def test_a_full_disk_refuses_a_whole_call_and_the_next_one_goes_on(ledger: Ledger) -> None:
    ledger.book([entry("a")])
    with ledger.database.reading() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(LedgerBusyError, match="can't be written"):
        ledger.book([entry(f"b{number}") for number in range(500)])
    assert pending_ids(ledger) == ["a"]
    with ledger.database.reading() as connection:
        connection.execute("PRAGMA max_page_count=1000000")
    ledger.book([entry("c")])
    assert pending_ids(ledger) == ["a", "c"]


def test_the_queue_is_read_window_by_window_in_its_order(ledger: Ledger) -> None:
    names = [f"f{number:03d}" for number in range(25)]
    ledger.book([entry(name) for name in names])
    read, after = [], 0
    while jobs := (fetched := ledger.fetch(after, 10)).jobs:
        read += [job.job_id for job in jobs]
        after = fetched.last
    assert read == names


def test_cancelled_jobs_say_so_and_spared_ones_stay(ledger: Ledger) -> None:
    ledger.book([entry("a", run_uid="run-1"), entry("b", run_uid="run-1"), entry("c")])
    assert ledger.cancel(Selection(run_uid="run-1"), ["b"], 1.7e9 + 5) == {"a"}
    assert pending_ids(ledger) == ["b", "c"]
    (cancelled,) = reports_of(ledger, "a")
    assert (cancelled.outcome, cancelled.reason, cancelled.finished) == (
        "skipped",
        "it was cancelled on request",
        1.7e9 + 5,
    )
    assert ledger.cancel(Selection(job_ids=("c", "unknown")), [], 1.7e9) == {"c"}
    assert ledger.cancel(Selection(), [], 1.7e9) == {"b"}


def test_failed_jobs_are_retried_behind_everything_else(ledger: Ledger) -> None:
    ledger.book([entry("a"), entry("b"), refused("c", key="key-c", run_uid="run-1"), entry("d")])
    ledger.write([report("a", "failed"), report("b")])
    assert ledger.retry_failed() == 1
    assert pending_ids(ledger) == ["d", "a"]
    ledger.write([report("a", "failed")])
    ledger.dismiss_failed()
    assert ledger.retry_failed() == 0


def test_outputs_that_were_not_flushed_are_made_again_after_a_power_loss(ledger: Ledger) -> None:
    ledger.book([entry("a"), entry("b"), entry("in place")])
    ledger.write([report(name, output=f"/processed/{name}.tif") for name in "ab"])
    ledger.write([report("in place", output="/raw/in place.tif")])
    assert [job_id for job_id, _ in ledger.history.unsynced(10)] == ["a", "b"]
    ledger.history.mark_synced(["a"])
    assert ledger.history.reopen_unsynced() == 1
    assert pending_ids(ledger) == ["b"]


def test_history_is_pruned_to_its_limit_and_pending_jobs_never(ledger: Ledger) -> None:
    ledger.book([entry(name, run_uid="run-1") for name in "abcd"], ["run-2"])
    ledger.write([report(name) for name in "abc"])
    while ledger.history.prune(0.0, 2):
        pass
    with pytest.raises(UnknownIdError, match="pruned"):
        reports_of(ledger, "a")
    assert [found.job_id for found in reports_of(ledger, "b", "c")] == ["b", "c"]
    assert pending_ids(ledger) == ["d"]


VERSION_1 = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL UNIQUE, key TEXT UNIQUE, source TEXT NOT NULL,
    output TEXT NOT NULL, recipe TEXT NOT NULL, accepted REAL NOT NULL, run_uid TEXT, stream TEXT, seq_num INTEGER,
    metadata TEXT NOT NULL, outcome TEXT, report TEXT, conversion_time REAL, latency REAL, bytes_in INTEGER,
    bytes_out INTEGER
);
CREATE INDEX jobs_of_run ON jobs (run_uid) WHERE run_uid IS NOT NULL;
CREATE INDEX jobs_pending ON jobs (number) WHERE outcome IS NULL;
CREATE TABLE runs (run_uid TEXT PRIMARY KEY);
CREATE TABLE kept (name TEXT PRIMARY KEY, value TEXT NOT NULL);
PRAGMA user_version = 1;
"""


def test_a_ledger_of_version_1_goes_on(path: Path) -> None:
    path.parent.mkdir()
    old = sqlite3.connect(path)
    old.executescript(VERSION_1)
    done = report("a", latency=0.5, run_uid="run-1")
    for name, key, written in (("a", "key-a", done), ("b", None, None), ("c", None, None)):
        source, output, recipe = f"/raw/{name}.tif", f"/processed/{name}.tif", XDI.model_dump_json()
        run_uid = None if name == "c" else "run-1"
        old.execute(
            "INSERT INTO jobs VALUES (NULL, ?, ?, ?, ?, ?, 1.7e9, ?, 'primary', NULL, '{}', ?, ?, ?, ?, ?, ?)",
            (name, key, source, output, recipe, run_uid, *((written.outcome, written.model_dump_json(), 0.0, 0.5, 0, 0)
             if written else (None,) * 6)),
        )  # fmt: skip
    old.executemany("INSERT INTO runs VALUES (?)", [("run-1",), ("run-2",)])
    old.execute("INSERT INTO kept VALUES ('recipe', 'kept text')")
    old.commit()
    old.close()
    ledger = Ledger(path)
    assert_filled(ledger)
    ledger.close()


def test_a_folder_in_the_place_of_the_ledger_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="can't be opened") as caught:
        Ledger(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_the_folder_of_the_ledger_is_made(tmp_path: Path) -> None:
    path = tmp_path / "state" / "of" / "ledger.sqlite"
    Ledger(path).close()
    assert path.is_file()


def test_a_kept_text_is_replaced_by_the_next_one_of_its_name(ledger: Ledger) -> None:
    assert ledger.kept("recipe") is None
    ledger.keep("recipe", "one")
    ledger.keep("other", "two")
    ledger.keep("recipe", "three")
    assert (ledger.kept("recipe"), ledger.kept("other")) == ("three", "two")


def test_a_closed_ledger_accepts_nothing(ledger: Ledger) -> None:
    ledger.close()
    with pytest.raises(sqlite3.ProgrammingError):
        ledger.book([entry("a")])


def test_a_refused_request_that_comes_corrected_under_its_key_becomes_a_job(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    roots = Roots.of([tmp_path])
    request = {"source": str(tmp_path / "raw" / "a.tif"), "key": "run/a", "run_uid": "run"}
    refused = entry_for({**request, "recipe": {"rotation": 45}}, Recipe(), roots, 1.7e9)
    assert refused.report is not None
    ledger.book([refused])
    assert ledger.book([refused])[0][2] is False
    ((job_id, report, new),) = ledger.book([entry_for(request, Recipe(), roots, 1.7e9)])
    assert (report, new) == (None, True)
    assert [job.job_id for job in ledger.waiting()] == [job_id]
    assert (ledger.run_statistics("run").submitted, ledger.run_statistics("run").failed) == (1, 0)
    ledger.close()
