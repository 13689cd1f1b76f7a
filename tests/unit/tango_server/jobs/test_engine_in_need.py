"""The thread of the job service in need: a ledger that can't be written, faults, questions and an end at any time."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tango_server.conversion.files.roots import Roots
from tango_server.jobs import dispatch, engine, report_writer
from tango_server.jobs.engine import Engine
from tango_server.jobs.executors.worker import Failure, Task
from tango_server.jobs.expansion import Expander
from tango_server.jobs.intake import Intake
from tango_server.jobs.job import Job
from tango_server.jobs.ledger.database import Database, LedgerBusyError, LedgerDamagedError
from tango_server.jobs.ledger.history import History
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.mounts import Mounts
from tango_server.jobs.state_machine.events import (
    Accepted,
    Event,
    Fetched,
    Finish,
    Instant,
    Instruction,
    Observe,
    Observed,
    Selection,
)
from tango_server.jobs.state_machine.machine import JobStateMachine
from tango_server.jobs.state_machine.rules import ServiceRules
from tango_server.messages import FrameReport, FrameRequest, ReportsQuery
from tango_server.recipe import Recipe
from tango_server.settings import Settings
from tests.conftest import DATA
from tests.unit.held_executor import PATIENCE, Bell, HeldExecutor, report_of

XDI = Recipe.preset("xdi", rotation=90)
ALL = Selection()
SOON = 0.5


@pytest.fixture(autouse=True)
def it_tries_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_writer, "_RETRY_INTERVAL", 0.02)
    monkeypatch.setattr(engine, "_IDLE_INTERVAL", 0.05)


class TroubledLedger(Ledger):
    """A real ledger whose disk is full for as long as a test says; `asked` tells of each vain attempt."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.full = threading.Event()
        self.asked = threading.Semaphore(0)
        self.holding: threading.Event | None = None

    def finish(self, finished: Sequence[Finish]) -> frozenset[str]:
        if finished:
            self._require_room()
        return super().finish(finished)

    def cancel(self, selection: Selection, spared: Iterable[str], finished: float) -> frozenset[str]:
        if self.holding:
            assert self.holding.wait(PATIENCE)
        self._require_room()
        return super().cancel(selection, spared, finished)

    def _require_room(self) -> None:
        if self.full.is_set():
            self.asked.release()
            raise LedgerBusyError("the ledger can't be written (disk is full). Check the free space.")


class Running:
    """An engine with all that it needs, and its frames."""

    def __init__(self, folder: Path, ledger: TroubledLedger, executor: HeldExecutor, service: JobStateMachine) -> None:
        self.folder = folder
        self.ledger = ledger
        self.executor = executor
        self.bell = Bell()
        roots = Roots.of([folder])
        settings = Settings(read_roots=(folder,), state_dir=folder.parent)
        intake = Intake(settings, ledger, recipe=lambda: XDI, waiting=lambda: 0, post=self._post)
        self.engine = Engine(
            service, ledger, executor, roots=lambda: roots, mounts=Mounts(()), expander=Expander(intake, self._post),
            changed=self.bell.ring,
        )  # fmt: skip

    def _post(self, event: Event) -> None:
        self.engine.post(event)

    def accept(self, *names: str, output: str = "") -> None:
        """Put jobs of complete frames on the ledger and tell of them, as the reception does."""
        (self.folder / "raw").mkdir(exist_ok=True)
        jobs = []
        for name in names:
            source = self.folder / "raw" / f"{name}.tif"
            source.write_bytes((DATA / "qxrd_f32_64.tif").read_bytes())
            target = self.folder / "processed" / (output or source.name)
            request = FrameRequest(source=str(source), recipe=XDI)
            roots = {"source_root": self.folder, "output_root": self.folder}
            jobs.append(Job(name, request, source, target, 1.7e9, **roots))
        self.ledger.accept(jobs)
        self.engine.post(Accepted(len(jobs)))

    def until(self, true: Callable[[], bool], what: str) -> None:
        self.bell.wait_for(true, what)

    def idle(self) -> bool:
        return self.engine.snapshot.queue_length == 0


Start = Callable[..., AbstractContextManager[Running]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "frames").mkdir()
    return (tmp_path / "frames").resolve()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "ledger.sqlite")
    yield database
    database.close()


@pytest.fixture
def reports(database: Database) -> Callable[..., dict[str, str]]:
    """What the ledger says of these jobs."""

    def reports(*names: str) -> dict[str, str]:
        found = History(database).reports(ReportsQuery(job_ids=list(names)))[0]
        return {str(report.job_id): report.outcome for report in found}

    return reports


@pytest.fixture
def start(folder: Path, database: Database) -> Start:
    """Run an engine; at the end it is closed, if the test has not done so."""

    @contextmanager
    def start(
        executor: HeldExecutor | None = None, service: JobStateMachine | None = None, workers: int = 1
    ) -> Iterator[Running]:
        rules = ServiceRules(workers=workers, sidecar_timeout=0.0)
        running = Running(
            folder, TroubledLedger(database), executor or HeldExecutor(), service or JobStateMachine(rules)
        )
        running.engine.start()
        try:
            yield running
        finally:
            running.engine.close(SOON)
            assert not running.engine._thread.is_alive()

    return start


def end_all(executor: HeldExecutor) -> None:
    while not executor.begun.empty():
        executor.end_next()


def test_job_counts_from_the_moment_it_is_accepted(folder: Path, database: Database) -> None:
    running = Running(folder, TroubledLedger(database), HeldExecutor(), JobStateMachine(ServiceRules()))
    running.accept("a", "b", "c")
    assert running.engine.snapshot.queue_length == 3


def test_full_disk_is_a_fault_while_full_and_loses_no_report(
    start: Start, reports: Callable[..., dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    with start(workers=2) as running:
        running.accept("a", "b")
        running.until(lambda: running.engine.snapshot.running == 2, "both are running")
        running.ledger.full.set()
        running.executor.end_next()
        running.executor.end_next()
        running.until(lambda: "free space" in running.engine.fault, "the fault is told")
        assert running.ledger.asked.acquire(timeout=PATIENCE)
        assert running.ledger.asked.acquire(timeout=PATIENCE), "it is tried again"
        assert reports("a", "b") == {}
        running.ledger.full.clear()
        running.until(lambda: not running.engine.fault, "the fault is over")
        running.until(running.idle, "all is reported")
        assert reports("a", "b") == {"a": "converted", "b": "converted"}
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len([text for text in told if "Retrying" in text]) == 1, "once, not at each attempt"
    assert "The ledger can be written again" in told


def test_shutdown_on_a_full_disk_is_prompt_and_keeps_jobs_pending(
    start: Start, database: Database, reports: Callable[..., dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    with start() as running:
        running.ledger.full.set()
        running.accept("a")
        running.executor.end_next()
        running.until(lambda: running.engine.fault != "", "the fault is told")
    assert "Reports are lost at shutdown" in caplog.text
    assert reports("a") == {}
    assert [one.job_id for one in Ledger(database).fetch(0, 10).jobs] == ["a"]


def test_a_cancellation_spares_what_a_worker_has_and_counts_the_rest(
    start: Start, reports: Callable[..., dict[str, str]]
) -> None:
    with start() as running:
        running.accept("a", "b", "c", "d")
        task, done = running.executor.begun.get(timeout=PATIENCE)
        others = {"a", "b", "c", "d"} - {task.job.job_id}
        assert running.engine.cancel(ALL, PATIENCE) == 3
        assert reports("a", "b", "c", "d") == dict.fromkeys(others, "skipped")
        done(Failure("final", "no image"))
        running.until(running.idle, "the last one is reported")
        assert reports("a", "b", "c", "d") == {**dict.fromkeys(others, "skipped"), task.job.job_id: "failed"}
        assert running.executor.begun.empty()
        assert running.engine.snapshot.processed == 4


def test_cancelling_selected_jobs_leaves_the_others(start: Start, reports: Callable[..., dict[str, str]]) -> None:
    with start() as running:
        running.accept("a")
        task, done = running.executor.begun.get(timeout=PATIENCE)
        running.accept("b", "c")
        assert running.engine.cancel(Selection(("b", "unknown")), PATIENCE) == 1
        done(FrameReport(source=str(task.job.source), outcome="converted", finished=0.0))
        assert running.executor.end_next().job.job_id == "c"
        running.until(running.idle, "all is reported")
        assert reports("a", "b", "c") == {"a": "converted", "b": "skipped", "c": "converted"}


def test_cancellation_on_a_full_disk_is_refused_and_work_continues(
    start: Start, reports: Callable[..., dict[str, str]]
) -> None:
    with start() as running:
        running.accept("a", "b")
        task, done = running.executor.begun.get(timeout=PATIENCE)
        running.ledger.full.set()
        with pytest.raises(LedgerBusyError, match="free space"):
            running.engine.cancel(ALL, PATIENCE)
        running.ledger.full.clear()
        done(FrameReport(source=str(task.job.source), outcome="converted", finished=0.0))
        running.executor.end_next()
        running.until(running.idle, "all is reported")
        assert reports("a", "b") == {"a": "converted", "b": "converted"}
        assert running.engine.fault == ""


def test_cancellation_that_times_out_for_its_caller_still_completes(
    start: Start, reports: Callable[..., dict[str, str]]
) -> None:
    with start() as running:
        running.accept("a", "b")
        task, _ = running.executor.begun.get(timeout=PATIENCE)
        running.ledger.holding = threading.Event()
        with pytest.raises(TimeoutError):
            running.engine.cancel(ALL, 0.01)
        running.ledger.holding.set()
        running.until(lambda: running.engine.snapshot.skipped == 1, "the cancellation is told")
        assert reports("a", "b") == dict.fromkeys({"a", "b"} - {task.job.job_id}, "skipped")


def test_what_ends_while_the_service_is_being_closed_is_reported(
    start: Start, reports: Callable[..., dict[str, str]]
) -> None:
    with start(HeldExecutor(at_close=end_all), workers=2) as running:
        running.accept("a", "b", "c")
        running.until(lambda: running.engine.snapshot.running == 2, "two are running")
    assert sorted(reports("a", "b", "c").values()) == ["converted", "converted"]
    assert running.executor.begun.empty(), "nothing starts any more"


def test_what_did_not_end_in_time_stays_on_the_ledger(
    start: Start, database: Database, reports: Callable[..., dict[str, str]]
) -> None:
    with start() as running:
        running.accept("a", "b")
        running.until(lambda: running.engine.snapshot.running == 1, "one is running")
    assert reports("a", "b") == {}
    assert [one.job_id for one in Ledger(database).fetch(0, 10).jobs] == ["a", "b"]


class Failing(JobStateMachine):
    """Breaks when it is told that a certain frame was seen, or that any has ended."""

    def handle(self, event: Event, now: Instant) -> list[Instruction]:
        if isinstance(event, Observed) and event.job_id == "bad":
            raise ZeroDivisionError("a mistake of ours")
        return super().handle(event, now)


def test_a_mistake_about_one_job_ends_that_job_alone(
    start: Start, reports: Callable[..., dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    with start(service=Failing(ServiceRules(sidecar_timeout=0.0))) as running:
        running.accept("bad", "good")
        running.executor.end_next()
        running.until(running.idle, "both are reported")
        assert running.engine.fault == ""
        assert reports("bad", "good") == {"bad": "failed", "good": "converted"}
    assert "ZeroDivisionError" in caplog.text


def test_a_report_that_cannot_be_written_sets_its_job_aside(
    start: Start, reports: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with start() as running:
        write = running.ledger.finish

        def breaking(finished: Sequence[Finish]) -> frozenset[str]:
            if any(one.report.job_id == "bad" for one in finished):
                raise OverflowError("Python int too large to convert to SQLite INTEGER")
            return write(finished)

        monkeypatch.setattr(running.ledger, "finish", breaking)
        running.accept("bad", "good")
        for _ in range(2):
            running.executor.end_next()
        running.until(running.idle, "both are reported")
        assert running.engine.fault == ""
        assert reports("bad", "good") == {"bad": "failed", "good": "converted"}


def test_a_step_that_comes_at_the_end_fails_no_job(
    start: Start, database: Database, reports: Callable[..., dict[str, str]]
) -> None:
    with start() as running:
        running.accept("a")
        running.until(lambda: running.engine.snapshot.running == 1, "it is running")
        (job,) = running.engine._service.running_jobs()
        running.engine._dispatcher._observers.shutdown()
        running.engine._closing = True
        running.engine._attempt(Observe(job))
    assert reports("a") == {}
    assert [one.job_id for one in Ledger(database).fetch(0, 10).jobs] == ["a"]


def test_damaged_ledger_is_a_fault_with_a_remedy(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(after: int, limit: int) -> Fetched:
        raise LedgerDamagedError("the ledger is damaged. Check its disk.")

    with start() as running:
        monkeypatch.setattr(running.ledger, "fetch", damaged)
        running.accept("a")
        running.until(lambda: "Check its disk" in running.engine.fault, "the fault is told")


def test_check_that_raises_fails_only_its_frame(
    start: Start, reports: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    look = dispatch.observe_source

    def breaking(job: Job, *arguments: Any, **options: Any) -> object:
        if job.job_id == "bad":
            raise ZeroDivisionError("a mistake of ours")
        return look(job, *arguments, **options)

    monkeypatch.setattr(dispatch, "observe_source", breaking)
    with start() as running:
        running.accept("bad", "good")
        running.executor.end_next()
        running.until(running.idle, "both are reported")
        assert reports("bad", "good") == {"bad": "failed", "good": "converted"}


def test_two_jobs_for_one_output_run_one_after_the_other(start: Start, reports: Callable[..., dict[str, str]]) -> None:
    with start(workers=4) as running:
        running.accept("a", "b", output="same.tif")
        running.accept("other")
        begun = [running.executor.begun.get(timeout=PATIENCE) for _ in range(2)]
        outputs = [task.job.output.name for task, _ in begun]
        assert sorted(outputs) == ["other.tif", "same.tif"]
        task, done = begun[outputs.index("same.tif")]
        done(report_of(task))
        second, _ = running.executor.begun.get(timeout=PATIENCE)
        assert {task.job.job_id, second.job.job_id} == {"a", "b"}
        assert reports("a", "b") == {task.job.job_id: "converted"}, (
            "the first one's report is written before the second begins"
        )


def test_dead_worker_costs_an_attempt_and_the_frame_is_retried(
    start: Start, reports: Callable[..., dict[str, str]]
) -> None:
    def died(task: Task) -> RuntimeError:
        return RuntimeError("the worker process died")

    with start() as running:
        running.accept("a")
        running.executor.end_next(died)
        running.executor.end_next()
        running.until(running.idle, "it is reported")
        assert reports("a") == {"a": "converted"}
