"""The durable list of jobs, on a real file."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tango_server.conversion.paths import Roots
from tango_server.jobs.intake import entry_for
from tango_server.jobs.ledger import Entry, Ledger, UnknownIdError
from tango_server.jobs.vocabulary import Job
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


def pending_ids(ledger: Ledger) -> list[str]:
    return [waiting.job_id for waiting in ledger.pending()]


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
    ledger.accept([entry("a", key="key-a", run_uid="run-1"), entry("b", run_uid="run-1")], ["run-2"])
    ledger.accept([entry("c")])
    ledger.finish([report("a", latency=0.5, run_uid="run-1")])
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
    assert ledger.pending() == [job("b", "run-1"), job("c")]
    assert reports_of(ledger, "a") == [report("a", latency=0.5, run_uid="run-1")]
    assert ledger.run_statistics("run-1").submitted == 2
    assert ledger.run_statistics("run-2") == RunStatistics(run_uid="run-2")
    assert ledger.kept("recipe") == "kept text"
    assert ledger.accept([entry("other", key="key-a")])[0][0] == "a"


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
    ledger.accept([entry("a")])
    ledger.accept([entry("b")])
    survivor = Ledger(left_behind(path, tmp_path / "killed", cut=100))
    assert pending_ids(survivor) == ["a"]
    survivor.close()


def test_nothing_of_a_batch_is_accepted_if_one_entry_can_not_be_written(ledger: Ledger) -> None:
    ledger.accept([entry("a")])
    with pytest.raises(sqlite3.IntegrityError):
        ledger.accept([entry("b", run_uid="run-1"), entry("a")], ["run-2"])
    assert pending_ids(ledger) == ["a"]
    for run_uid in ("run-1", "run-2"):
        with pytest.raises(UnknownIdError):
            ledger.run_statistics(run_uid)
    ledger.accept([entry("b")])
    assert pending_ids(ledger) == ["a", "b"]


def test_pending_jobs_come_back_whole_and_oldest_first(ledger: Ledger) -> None:
    jobs = [job("z", "run-1", 1), job("a"), job("m", "run-1", 2)]
    ledger.accept([Entry(one, None, {}) for one in jobs[:2]])
    ledger.accept([Entry(one, None, {}) for one in jobs[2:]])
    assert ledger.pending() == jobs


def test_a_job_with_a_report_is_pending_no_more(ledger: Ledger) -> None:
    ledger.accept([entry("a"), entry("b"), entry("c")])
    ledger.finish([report("b"), report("c", "failed")])
    assert pending_ids(ledger) == ["a"]


def test_a_refused_request_is_never_pending_and_has_its_report(ledger: Ledger) -> None:
    booked = refused("a", run_uid="run-1")
    assert ledger.accept([booked]) == [("a", booked.report, True)]
    assert ledger.pending() == []
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
    ledger.accept([entry("a", run_uid="run-1")])
    ledger.finish([written])
    assert reports_of(ledger, "a") == [written]


def test_the_first_report_of_a_job_holds(ledger: Ledger) -> None:
    ledger.accept([entry("a", run_uid="run-1")])
    ledger.finish([report("a", conversion_time=0.25)])
    ledger.finish([report("a", "failed", reason="late")])
    assert reports_of(ledger, "a") == [report("a", conversion_time=0.25)]
    assert ledger.run_statistics("run-1").failed == 0


def test_the_same_key_is_the_same_job(ledger: Ledger) -> None:
    assert ledger.accept([entry("a", key="frame-1")]) == [("a", None, True)]
    assert ledger.accept([entry("b", key="frame-1")]) == [("a", None, False)]
    assert ledger.pending() == [job("a")]


def test_the_same_key_twice_in_one_batch_is_one_job(ledger: Ledger) -> None:
    answers = ledger.accept([entry("a", key="frame-1"), entry("b", key="frame-2"), entry("c", key="frame-1")])
    assert answers == [("a", None, True), ("b", None, True), ("a", None, False)]
    assert pending_ids(ledger) == ["a", "b"]


def test_a_known_key_is_answered_with_the_report_that_there_is(ledger: Ledger) -> None:
    ledger.accept([entry("a", key="frame-1", run_uid="run-1")])
    ledger.finish([report("a")])
    assert ledger.accept([entry("b", key="frame-1", run_uid="run-1")]) == [("a", report("a"), False)]
    assert ledger.run_statistics("run-1").submitted == 1


def test_requests_without_a_key_are_always_new_jobs(ledger: Ledger) -> None:
    answers = ledger.accept([entry("a"), entry("b"), entry("c")])
    assert [is_new for _, _, is_new in answers] == [True, True, True]
    assert pending_ids(ledger) == ["a", "b", "c"]


def test_an_announced_run_is_known_with_no_frames(ledger: Ledger) -> None:
    assert ledger.accept([], ["run-1"]) == []
    assert ledger.run_statistics("run-1") == RunStatistics(run_uid="run-1")
    assert ledger.reports(ReportsQuery(run_uid="run-1")) == ([], 0)


def test_a_run_may_be_announced_again_while_it_has_frames(ledger: Ledger) -> None:
    ledger.accept([entry("a", run_uid="run-1")], ["run-1"])
    ledger.accept([], ["run-1"])
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
    ledger.accept([entry(name) for name in names])
    ledger.finish([report(name) for name in names[:-1]])
    found, pending = ledger.reports(ReportsQuery(job_ids=names, limit=5000))
    assert [one.job_id for one in found] == names[:-1]
    assert pending == 1


@pytest.fixture
def mixed(ledger: Ledger) -> Ledger:
    """Of run-1: a converted, b failed, c pending, d converted, e skipped; of run-2: f converted."""
    ledger.accept([entry(name, run_uid="run-1") for name in "abcde"])
    ledger.accept([entry("f", run_uid="run-2")])
    ledger.finish([report("e", "skipped"), report("d"), report("f")])
    ledger.finish([report("a"), report("b", "failed", reason="broken")])
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
    ledger.accept([entry(name, run_uid="run-1") for name in names], ["run-1"])
    ledger.accept([entry("of another run", run_uid="run-2")])
    for number, outcome in enumerate(outcomes):
        if outcome is not None:
            latency = float(latencies[number]) if timed[number] else None
            taken, given = map(int, sizes[number])
            changes = {"conversion_time": float(times[number]), "latency": latency}
            ledger.finish([report(names[number], outcome, bytes_in=taken, bytes_out=given, **changes)])
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
    ledger.accept([entry("a")])
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
    with pytest.raises(OSError, match="version 99; expected 1") as caught:
        Ledger(path)
    assert str(path) in str(caught.value)
    assert "another state directory" in str(caught.value)
    assert path.read_bytes() == before


def test_a_file_that_is_no_ledger_is_refused_by_name_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"someone's notes " * 1000)
    with pytest.raises(OSError, match="not a database") as caught:
        Ledger(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"someone's notes " * 1000


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
        ledger.accept([entry("a")])


def test_a_refused_request_that_comes_corrected_under_its_key_becomes_a_job(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    roots = Roots.of([tmp_path])
    request = {"source": str(tmp_path / "raw" / "a.tif"), "key": "run/a", "run_uid": "run"}
    refused = entry_for({**request, "recipe": {"rotation": 45}}, Recipe(), roots)
    assert refused.report is not None
    ledger.accept([refused])
    assert ledger.accept([refused])[0][2] is False
    ((job_id, report, new),) = ledger.accept([entry_for(request, Recipe(), roots)])
    assert (report, new) == (None, True)
    assert [job.job_id for job in ledger.pending()] == [job_id]
    assert (ledger.run_statistics("run").submitted, ledger.run_statistics("run").failed) == (1, 0)
    ledger.close()
