"""What is done beside the jobs, by the real thread on a real ledger and real files."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest

from tango_server.jobs import capacity, clock
from tango_server.jobs.capacity import FreeSpace
from tango_server.jobs.housekeeping import Housekeeper, boot
from tango_server.jobs.ledger import database as database_module
from tango_server.jobs.ledger.database import Database
from tango_server.jobs.ledger.history import History, UnknownIdError
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.state_machine.events import Instant
from tango_server.messages import ReportsQuery
from tests.unit.ledger_entries import ACCEPTED, Stopwatch, accept, finish, job, pending_ids, report
from tests.unit.ledger_files import left_behind

DAY = 86_400.0
PATIENCE = 10.0


class Looks:
    """Counts the looks at the disks: a look begins after the chores of the look before have ended."""

    def __init__(self) -> None:
        self.spaces: list[FreeSpace] = []
        self._looked = Event()

    def __call__(self, space: FreeSpace) -> None:
        self.spaces.append(space)
        self._looked.set()

    def wait_for_another_round(self) -> None:
        for _ in range(2):
            self._looked.clear()
            assert self._looked.wait(PATIENCE)


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.fixture
def keep_house(
    database: Database, looks: Looks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Housekeeper]]:
    monkeypatch.setattr("tango_server.jobs.housekeeping._INTERVAL", 0.02)
    started: list[Housekeeper] = []

    def start(**changes: object) -> Housekeeper:
        options = {"folders": lambda: (tmp_path,), "history_days": 60.0, "history_limit": 1000, "on_free_space": looks}
        started.append(Housekeeper(database, **{**options, **changes}))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for housekeeper in started:
        housekeeper.close(PATIENCE)


def converted(database: Database, *outputs: Path) -> None:
    """Write jobs of these outputs, called after them, as converted."""
    ledger = Ledger(database)
    accept(ledger, *(output.name for output in outputs))
    finish(ledger, *(report(output.name, output=str(output), finished=time.time()) for output in outputs))


def reopened(database: Database) -> list[str]:
    """Return the jobs that would be done again after a power loss."""
    History(database).reopen_unsynced()
    return pending_ids(Ledger(database))


def test_outputs_are_flushed_and_missing_ones_are_ignored(
    database: Database,
    keep_house: Callable[..., Housekeeper],
    looks: Looks,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    outputs = [tmp_path / f"{number}.tif" for number in range(150)]
    for output in outputs:
        output.write_bytes(b"pixels")
    outputs += [tmp_path / "gone.tif", tmp_path / "no folder" / "gone-too.tif"]
    if sys.platform == "linux":
        os.mkfifo(tmp_path / "pipe.tif")  # has nothing to flush
        outputs.append(tmp_path / "pipe.tif")
    converted(database, *outputs)
    keep_house()
    while History(database).unsynced(1):
        looks.wait_for_another_round()
    looks.wait_for_another_round()
    assert reopened(database) == []
    assert caplog.records == []


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_unflushable_outputs_delay_no_others(
    database: Database,
    keep_house: Callable[..., Housekeeper],
    looks: Looks,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad = [tmp_path / f"bad-{number:03d}.tif" for number in range(100)]
    for output in bad:
        output.symlink_to(tmp_path / "elsewhere")
    good = tmp_path / "good.tif"
    good.write_bytes(b"pixels")
    converted(database, *bad, good)
    keep_house()
    while History(database).unsynced(1):
        looks.wait_for_another_round()
    looks.wait_for_another_round()
    told = [record for record in caplog.records if "cannot flush" in record.getMessage()]
    assert len(told) == 100
    assert reopened(database) == [output.name for output in bad]


def test_old_history_is_forgotten_by_its_age(
    database: Database, keep_house: Callable[..., Housekeeper], looks: Looks, monkeypatch: pytest.MonkeyPatch,
    stopwatch: Stopwatch,
) -> None:  # fmt: skip
    ledger, history = Ledger(database), History(database)
    accept(ledger, "old", "young", "pending")
    finish(ledger, report("old", "failed"))
    stopwatch.now += 2 * DAY
    finish(ledger, report("young", "failed"))
    stopwatch.now += 7 * DAY
    now = Instant(monotonic=0.0, wall=ACCEPTED + 1000 * DAY)
    monkeypatch.setattr(clock, "now", lambda: now)
    keep_house(history_days=10.0)
    looks.wait_for_another_round()
    assert len(history.reports(ReportsQuery(job_ids=["old", "young", "pending"]))[0]) == 2
    stopwatch.now += 2 * DAY
    now = Instant(monotonic=61.0, wall=ACCEPTED)
    looks.wait_for_another_round()
    with pytest.raises(UnknownIdError, match="pruned"):
        history.reports(ReportsQuery(job_ids=["old"]))
    assert history.reports(ReportsQuery(job_ids=["young", "pending"])) == (
        [report("young", "failed")],
        1,
    )


def test_the_age_is_written_down_each_minute_and_survives_a_kill(
    database: Database, keep_house: Callable[..., Housekeeper], looks: Looks, monkeypatch: pytest.MonkeyPatch,
    stopwatch: Stopwatch, tmp_path: Path,
) -> None:  # fmt: skip
    now = Instant(monotonic=0.0, wall=ACCEPTED)
    monkeypatch.setattr(clock, "now", lambda: now)
    keep_house()
    looks.wait_for_another_round()
    stopwatch.now += 61
    now = Instant(monotonic=61.0, wall=ACCEPTED)
    looks.wait_for_another_round()
    stopwatch.now += 30
    with closing(Database(left_behind(database.path, tmp_path / "killed"), stopwatch)) as successor:
        assert successor.age == 61.0


def test_more_history_than_the_limit_is_forgotten(
    database: Database, keep_house: Callable[..., Housekeeper], looks: Looks
) -> None:
    ledger = Ledger(database)
    names = [f"{number:04d}" for number in range(1300)]
    accept(ledger, *names, "pending")
    now = time.time()
    finish(ledger, *(report(name, "failed", finished=now + number) for number, name in enumerate(names)))
    keep_house(history_limit=100)
    looks.wait_for_another_round()
    query = ReportsQuery(job_ids=names[-100:])
    assert len(History(database).reports(query)[0]) == 100
    with pytest.raises(UnknownIdError):
        History(database).reports(ReportsQuery(job_ids=[names[-101]]))
    assert pending_ids(ledger) == ["pending"]


def test_free_space_is_reported_after_every_check(
    keep_house: Callable[..., Housekeeper], looks: Looks, tmp_path: Path
) -> None:
    keep_house()
    looks.wait_for_another_round()
    assert {space.folder for space in looks.spaces} == {tmp_path}
    assert looks.spaces[-1].free == pytest.approx(capacity.measure([tmp_path]).free, abs=1e9)


def test_failing_chore_is_logged_once_and_stops_no_other(
    database: Database, keep_house: Callable[..., Housekeeper], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = Event()
    rounds: list[int] = []

    def folders_on_a_server_that_is_away() -> tuple[Path, ...]:
        rounds.append(1)
        if len(rounds) > 5:
            asked.set()
        raise OSError(116, "Stale file handle")

    converted(database, tmp_path / "gone.tif")
    keep_house(folders=folders_on_a_server_that_is_away)
    assert asked.wait(PATIENCE)
    assert History(database).unsynced(10) == []
    assert [record.levelno for record in caplog.records if "Stale" in record.getMessage()] == [logging.WARNING]


def test_it_ends_at_once_even_between_two_checks(
    database: Database, looks: Looks, tmp_path: Path, keep_house: Callable[..., Housekeeper]
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tango_server.jobs.housekeeping._INTERVAL", 60.0)
        housekeeper = keep_house()
        began = time.monotonic()
        housekeeper.close(PATIENCE)
        assert time.monotonic() - began < 5.0
    assert not housekeeper._thread.is_alive()


def test_ledger_closed_under_it_ends_silently(
    keep_house: Callable[..., Housekeeper], database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    measuring, closed = Event(), Event()

    def folders() -> tuple[Path, ...]:
        measuring.set()
        assert closed.wait(PATIENCE)
        return ()

    housekeeper = keep_house(folders=folders)
    assert measuring.wait(PATIENCE)
    housekeeper.close(0.0)
    database.close()
    closed.set()
    housekeeper.close(PATIENCE)
    assert not housekeeper._thread.is_alive()
    assert caplog.records == []


def test_the_time_since_the_machine_was_started_has_one_name() -> None:
    assert boot()
    assert boot() == boot()


def test_forgotten_jobs_give_their_space_back_to_the_disk(
    database: Database, keep_house: Callable[..., Housekeeper], looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_SPARE_PAGES", 20)
    names = [f"{number:04d}" for number in range(3000)]
    accept(Ledger(database), *names)
    finish(Ledger(database), *(report(name, "failed", reason="x" * 1000) for name in names))
    database._file.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = database.path.stat().st_size
    keep_house(history_limit=10)
    for _ in range(8):  # bit by bit
        looks.wait_for_another_round()
    database._file.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert database.path.stat().st_size < before / 3


def test_runs_without_frames_are_bounded_too(
    database: Database, keep_house: Callable[..., Housekeeper], looks: Looks, stopwatch: Stopwatch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("tango_server.jobs.ledger.history._RUNS_KEPT", 3)
    ledger = Ledger(database)
    for number in range(8):
        stopwatch.now += 1
        ledger.accept([job("a", "with a frame")] if number == 0 else [], [f"run-{number}"])
    keep_house(history_limit=5)
    looks.wait_for_another_round()
    with database.reading() as connection:
        left = [uid for (uid,) in connection.execute("SELECT run_uid FROM runs ORDER BY run_uid")]
    assert left == ["run-4", "run-5", "run-6", "run-7", "with a frame"]
