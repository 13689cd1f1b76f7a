"""What becomes of jobs in trouble: no file, no room, nobody to convert, somebody who cancels or pauses."""

from dataclasses import replace
from pathlib import Path

import pytest

from tango_server.conversion.file_state import FileState
from tango_server.jobs.state_machine.backlog import WINDOW
from tango_server.jobs.state_machine.events import (
    Accepted,
    AttemptDone,
    AttemptFailed,
    Cancel,
    Cancelled,
    CancelWanted,
    CarrySidecar,
    Convert,
    Event,
    FailuresRetried,
    Fetch,
    Fetched,
    Instruction,
    Observe,
    Observed,
    PauseWanted,
    Selection,
    SidecarObserved,
    TimePassed,
    Written,
)
from tango_server.jobs.state_machine.machine import JobStateMachine
from tango_server.jobs.state_machine.readiness import ReadinessRule
from tango_server.jobs.state_machine.rules import ServiceRules
from tango_server.messages import FrameReport
from tango_server.recipe import Recipe
from tests.unit.service_events import (
    COMPLETE,
    COMPLETE_AGAIN,
    UNFINISHED,
    LedgerService,
    accepted,
    at,
    carries,
    converted,
    crashed,
    fetched,
    job,
    looks,
    make_ready,
    not_ready,
    reports,
    starts,
)

ALL = Selection()
WITH_PLACEHOLDERS = ServiceRules(placeholders=True, placeholder_shape=(512, 1024))


@pytest.fixture
def service() -> JobStateMachine:
    return LedgerService(ServiceRules())


@pytest.fixture
def one_worker() -> JobStateMachine:
    return LedgerService(ServiceRules(workers=1))


def blocked(name: str) -> AttemptFailed:
    return AttemptFailed(name, "blocked", "the disk is full")


def unavailable(name: str) -> AttemptFailed:
    return AttemptFailed(name, "unavailable", "no scheduler")


def placeholder(name: str) -> AttemptDone:
    return AttemptDone(name, FrameReport(source=f"/raw/{name}.tif", outcome="placeholder", finished=1.7e9))


def gone(*names: str) -> Cancelled:
    return Cancelled(len(names), frozenset(names))


def next_looks(service: JobStateMachine) -> tuple[float, list[str]]:
    """Let time pass until the service wants a look; return the instant, and the files."""
    due = service.next_poll
    assert due is not None
    return due, looks(service.handle(TimePassed(), at(due)))


def give_up(service: JobStateMachine, seconds: float = 15.0) -> list[Instruction]:
    """Let the file of job `a` not come, until its time is over."""
    service.handle(Observed("a", None), at(0))
    assert looks(service.handle(TimePassed(), at(seconds))) == ["a"]
    return service.handle(Observed("a", None), at(seconds))


@pytest.mark.parametrize(("told", "shape"), [(None, (512, 1024)), ((64, 48), (64, 48))], ids=["setting", "request"])
def test_a_placeholder_takes_the_place_of_a_file_that_never_came(
    told: tuple[int, int] | None, shape: tuple[int, int]
) -> None:
    service = LedgerService(WITH_PLACEHOLDERS)
    service.handle(fetched((job("a", metadata={"shape": told}),)), at(0))
    (start,) = give_up(service)
    assert isinstance(start, Convert)
    assert (start.attempt, start.placeholder) == (1, shape)
    assert "not complete within 15 s: no such file" in start.reason
    (report,) = reports(service.handle(placeholder("a"), at(16)))
    assert (report.outcome, report.job_id, report.latency) == ("placeholder", "a", None)
    assert service.snapshot(at(16)).placeholders == 1


@pytest.mark.parametrize("state", [None, COMPLETE], ids=["no file", "a file"])
def test_placeholder_of_a_map_is_written_at_once(state: FileState | None) -> None:
    service = LedgerService(ServiceRules(placeholder_shape=(512, 1024)))
    wanted = job("a", metadata={"shape": (64, 48)})
    wanted = replace(wanted, request=wanted.request.model_copy(update={"placeholder": "no frame came"}))
    service.handle(fetched((wanted,)), at(0))
    assert service.handle(Observed("a", state), at(0)) == [Convert(wanted, 1, (64, 48), "no frame came")]


def test_a_raw_frame_is_never_replaced_by_zeros() -> None:
    service = LedgerService(WITH_PLACEHOLDERS)
    in_place = Recipe.model_validate({"output": {"mode": "in_place"}})
    service.handle(fetched((job("a", recipe=in_place),)), at(0))
    assert [report.outcome for report in reports(give_up(service))] == ["failed"]


def test_file_that_arrives_while_its_placeholder_is_blocked_converts() -> None:
    service = LedgerService(WITH_PLACEHOLDERS)
    service.handle(accepted("a"), at(0))
    assert starts(give_up(service)) == ["a"]
    assert service.handle(blocked("a"), at(16)) == []
    assert next_looks(service)[1] == ["a"]
    assert service.handle(Observed("a", COMPLETE), at(17)) == [Convert(job("a"), 2)]


def test_placeholder_that_stays_blocked_fails_with_the_disk_reason() -> None:
    service = LedgerService(WITH_PLACEHOLDERS)
    service.handle(accepted("a"), at(0))
    instructions = give_up(service)
    now = 15.0
    while starts(instructions):
        instructions = service.handle(blocked("a"), at(now))
        if not reports(instructions):
            now, _ = next_looks(service)
            instructions = service.handle(Observed("a", None), at(now))
    (report,) = reports(instructions)
    assert report.outcome == "failed"
    assert report.reason == f"/raw/a.tif: gave up after {now - 15:.0f} s: the disk is full"
    assert 30 <= now < 36


def test_blocked_output_is_retried_without_delaying_others(
    one_worker: JobStateMachine,
) -> None:
    make_ready(one_worker, "a", "b")
    assert starts(one_worker.handle(blocked("a"), at(1))) == ["b"]
    assert one_worker.handle(converted("b"), at(1.1)) != []
    tries, instructions, now = 1, [], 1.0
    while not reports(instructions):
        now, looked = next_looks(one_worker)
        assert looked == ["a"]
        assert starts(one_worker.handle(Observed("a", COMPLETE), at(now))) == ["a"]
        tries += 1
        instructions = one_worker.handle(blocked("a"), at(now))
    (report,) = reports(instructions)
    assert (report.outcome, report.source) == ("failed", "/raw/a.tif")
    assert "the disk is full" in report.reason
    assert 16 <= now < 20
    assert 5 < tries < 30
    assert one_worker.next_poll is None


def test_a_blocked_output_that_can_be_written_again_is_converted(service: JobStateMachine) -> None:
    make_ready(service, "a")
    service.handle(blocked("a"), at(1))
    now, _ = next_looks(service)
    service.handle(Observed("a", COMPLETE), at(now))
    assert [report.outcome for report in reports(service.handle(converted("a"), at(2)))] == ["converted"]
    assert service.snapshot(at(2)).failed == 0


def test_source_that_vanished_while_output_was_blocked_is_awaited(
    service: JobStateMachine,
) -> None:
    make_ready(service, "a")
    service.handle(blocked("a"), at(1))
    now, _ = next_looks(service)
    assert service.handle(Observed("a", None), at(now)) == []
    (report,) = reports(service.handle(Observed("a", None), at(20)))
    assert "no such file" in report.reason


def test_job_without_available_executor_waits_and_never_fails(service: JobStateMachine) -> None:
    make_ready(service, "a")
    now = 0.0
    for attempt in range(2, 500):
        assert service.handle(unavailable("a"), at(now)) == []
        before = now
        now, looked = next_looks(service)
        assert looked == ["a"]
        assert now == pytest.approx(before + 1.0)
        assert service.handle(Observed("a", COMPLETE), at(now)) == [Convert(job("a"), attempt)]
    assert [report.outcome for report in reports(service.handle(converted("a"), at(now)))] == ["converted"]


def test_file_replaced_while_awaited_restarts_settle_time() -> None:
    service = LedgerService(ServiceRules(readiness=ReadinessRule(settle_complete=1.0)))
    service.handle(accepted("a"), at(0))
    assert service.handle(Observed("a", COMPLETE), at(0)) == []
    assert service.handle(Observed("a", COMPLETE_AGAIN), at(0.5)) == []
    assert service.handle(Observed("a", COMPLETE_AGAIN), at(1.25)) == []
    assert starts(service.handle(Observed("a", COMPLETE_AGAIN), at(1.5))) == ["a"]
    (report,) = reports(service.handle(converted("a"), at(2.5)))
    assert report.latency == pytest.approx(2.0)


def test_ledger_receives_the_identity_of_the_reported_file(service: JobStateMachine) -> None:
    make_ready(service, "a")
    service.handle(not_ready("a"), at(1))
    service.handle(Observed("a", COMPLETE_AGAIN), at(2))
    (finish,) = service.handle(converted("a"), at(3))
    assert finish.identity == (COMPLETE.size, COMPLETE.mtime_ns + 1)


def test_an_unfit_file_becomes_a_placeholder_once_its_time_is_over() -> None:
    service = LedgerService(WITH_PLACEHOLDERS)
    make_ready(service, "a")
    service.handle(AttemptFailed("a", "not_ready", "its strips were never filled"), at(1))
    assert service.handle(Observed("a", COMPLETE), at(1)) == []
    (start,) = service.handle(Observed("a", COMPLETE), at(16))
    assert isinstance(start, Convert)
    assert (start.placeholder, start.reason) == ((512, 1024), "its strips were never filled")


def test_cancelled_job_is_no_longer_checked_or_converted(one_worker: JobStateMachine) -> None:
    make_ready(one_worker, "running", "ready")
    one_worker.handle(accepted("awaited", "new"), at(0))
    one_worker.handle(Observed("awaited", None), at(0))
    (step,) = one_worker.handle(CancelWanted("ticket", ALL), at(1))
    assert step == Cancel("ticket", ALL, frozenset({"running"}))
    assert one_worker.handle(gone("ready", "awaited", "new"), at(1.1)) == []
    assert one_worker.handle(TimePassed(), at(5)) == []
    assert one_worker.next_poll is None
    assert one_worker.handle(Observed("new", COMPLETE), at(5)) == []
    assert one_worker.snapshot(at(5)).queue_length == 1
    steps = one_worker.handle(converted("running"), at(6))
    assert [report.outcome for report in reports(steps)] == ["converted"]
    assert starts(steps) == []
    snapshot = one_worker.snapshot(at(6))
    assert (snapshot.queue_length, snapshot.skipped, snapshot.converted, snapshot.processed) == (0, 3, 1, 4)


def test_nothing_starts_during_a_cancellation_but_the_rest_does_after(
    service: JobStateMachine,
) -> None:
    service.handle(accepted("a", "b"), at(0))
    service.handle(CancelWanted("1", ALL), at(0))
    service.handle(CancelWanted("2", ALL), at(0))
    assert service.handle(Observed("a", COMPLETE), at(0)) == []
    assert service.handle(Observed("b", COMPLETE), at(0)) == []
    assert service.handle(gone("a"), at(1)) == []
    assert starts(service.handle(gone(), at(1))) == ["b"]


@pytest.mark.parametrize("event", [Observed("a", None), AttemptFailed("a", "final", "its file is a link")])
def test_job_failing_during_its_cancellation_ends_only_once(event: Event) -> None:
    service = JobStateMachine(ServiceRules())
    service.handle(Accepted(2), at(0))
    service.handle(Fetched((job("a"), job("b")), frozenset(), 2), at(0))
    service.handle(Observed("a", None), at(0))
    assert looks(service.handle(TimePassed(), at(20))) == ["a"]
    service.handle(CancelWanted("ticket", ALL), at(20))
    assert service.handle(event, at(20)) == []
    assert service.handle(gone("a", "b"), at(20)) == []
    snapshot = service.snapshot(at(20))
    assert (snapshot.queue_length, snapshot.processed, snapshot.failed) == (0, 2, 0)
    assert service.handle(Accepted(1), at(21)) == [Fetch(2, WINDOW)]


def test_a_job_that_was_not_cancelled_after_all_fails_then(service: JobStateMachine) -> None:
    service.handle(accepted("a"), at(0))
    service.handle(Observed("a", None), at(0))
    service.handle(CancelWanted("ticket", Selection(("other",))), at(20))
    assert service.handle(Observed("a", None), at(20)) == []
    assert [report.outcome for report in reports(service.handle(gone(), at(20)))] == ["failed"]


def test_converted_frame_awaiting_its_sidecar_cannot_be_cancelled(service: JobStateMachine) -> None:
    make_ready(service, "a")
    service.handle(converted("a", sidecar="absent"), at(1))
    assert service.handle(CancelWanted("ticket", ALL), at(1)) == [Cancel("ticket", ALL, frozenset("a"))]
    assert service.handle(gone(), at(1)) == []
    assert [report.outcome for report in reports(service.handle(SidecarObserved("a", carried=True), at(1.1)))] == [
        "converted"
    ]


def test_spared_job_that_crashed_or_waited_continues_after_cancel(
    service: JobStateMachine,
) -> None:
    make_ready(service, "a", "b")
    service.handle(CancelWanted("ticket", ALL), at(1))
    assert service.handle(crashed("a"), at(1)) == []
    assert looks(service.handle(not_ready("b"), at(1))) == ["b"]
    assert service.handle(gone(), at(1)) == [Convert(job("a"), 2)]
    assert starts(service.handle(Observed("b", COMPLETE_AGAIN), at(1))) == ["b"]


def test_cancelled_job_frees_its_poll_slot(service: JobStateMachine) -> None:
    names = [f"{number:02d}" for number in range(20)]
    service.handle(accepted(*names), at(0))
    for name in names:
        service.handle(Observed(name, None), at(0))
    under_way = looks(service.handle(TimePassed(), at(1)))
    assert 0 < len(under_way) < len(names)
    assert service.next_poll is None
    service.handle(CancelWanted("ticket", ALL), at(1))
    service.handle(gone(*under_way), at(1))
    assert looks(service.handle(TimePassed(), at(1))) == names[len(under_way) : 2 * len(under_way)]


def test_paused_service_polls_and_finishes_but_starts_nothing(
    service: JobStateMachine,
) -> None:
    make_ready(service, "a")
    service.handle(PauseWanted(paused=True), at(0))
    service.handle(accepted("b", "c"), at(0))
    assert service.handle(Observed("b", COMPLETE), at(0)) == []
    assert [report.outcome for report in reports(service.handle(converted("a"), at(1)))] == ["converted"]
    snapshot = service.snapshot(at(1))
    assert (snapshot.paused, snapshot.running, snapshot.queue_length) == (True, 0, 2)
    assert service.handle(Observed("c", COMPLETE), at(1)) == []
    assert starts(service.handle(PauseWanted(paused=False), at(2))) == ["b", "c"]
    assert not service.snapshot(at(2)).paused


def test_a_crash_during_a_pause_is_tried_again_after_it() -> None:
    service = LedgerService(ServiceRules(workers=1), paused=True)
    assert make_ready(service, "a") == []
    assert starts(service.handle(PauseWanted(paused=False), at(0))) == ["a"]
    service.handle(PauseWanted(paused=True), at(0))
    assert service.handle(crashed("a"), at(1)) == []
    assert service.handle(PauseWanted(paused=False), at(2)) == [Convert(job("a"), 2)]


@pytest.fixture
def long_queue() -> JobStateMachine:
    """A service that was told of 1000 jobs and has read the first window of them."""
    service = JobStateMachine(ServiceRules(workers=1))
    assert service.handle(Accepted(1000), at(0)) == [Fetch(0, WINDOW)]
    steps = service.handle(portion(0, WINDOW), at(0))
    assert len(looks(steps)) == len(steps) == WINDOW
    return service


def portion(first: int, count: int) -> Fetched:
    """The jobs of the ledger from this one on; each writes an output of its own."""
    names = range(first, first + count)
    jobs = [replace(job(str(number)), output=Path(f"/processed/{number}.tif")) for number in names]
    return Fetched(tuple(jobs), frozenset(), first + count)


def test_memory_does_not_grow_with_the_backlog(long_queue: JobStateMachine) -> None:
    assert long_queue.snapshot(at(0)).queue_length == 1000
    for number in range(WINDOW):
        steps = long_queue.handle(Observed(str(number), COMPLETE), at(1))
        assert all(isinstance(step, Convert) for step in steps)
    assert long_queue.snapshot(at(1)).queue_length == 1000


def test_the_window_is_filled_again_once_half_of_it_is_done(long_queue: JobStateMachine) -> None:
    for number in range(WINDOW):
        long_queue.handle(Observed(str(number), COMPLETE), at(1))
    fetches: list[tuple[int, Fetch]] = []
    for number in range(WINDOW):
        steps = long_queue.handle(converted(str(number)), at(2))
        fetches += [(number, step) for step in steps if isinstance(step, Fetch)]
    # What the worker has is out of the window: it is half empty when as many were done, but for the one that runs.
    assert fetches == [(WINDOW // 2 - 2, Fetch(WINDOW, WINDOW // 2))]


def test_awaited_files_leave_the_window_and_delay_no_other_job(long_queue: JobStateMachine) -> None:
    steps: list[Instruction] = []
    for number in range(WINDOW // 2):
        steps += long_queue.handle(Observed(str(number), UNFINISHED), at(1))
    assert steps == [Fetch(WINDOW, WINDOW // 2)]


def test_blocked_jobs_stay_in_the_window_so_full_disk_spares_queue() -> None:
    service = JobStateMachine(ServiceRules(workers=WINDOW))
    service.handle(Accepted(1000), at(0))
    service.handle(portion(0, WINDOW), at(0))
    fetches: list[Instruction] = []
    for number in range(WINDOW):
        fetches += [step for step in service.handle(Observed(str(number), COMPLETE), at(1)) if isinstance(step, Fetch)]
    assert fetches == [Fetch(WINDOW, WINDOW // 2)], "those that run are out of the window"
    service.handle(Fetched((), frozenset(), WINDOW), at(1))
    service = JobStateMachine(ServiceRules(workers=WINDOW // 4))
    service.handle(Accepted(1000), at(0))
    service.handle(portion(0, WINDOW), at(0))
    for number in range(WINDOW):
        service.handle(Observed(str(number), COMPLETE), at(1))
    for number in range(WINDOW):
        assert not any(isinstance(step, Fetch) for step in service.handle(blocked(str(number)), at(1)))


def test_nothing_is_read_while_a_cancellation_is_under_way(service: JobStateMachine) -> None:
    plain = JobStateMachine(ServiceRules())
    plain.handle(CancelWanted("ticket", ALL), at(0))
    assert plain.handle(Accepted(3), at(0)) == []
    assert plain.handle(Cancelled(2, frozenset("ab")), at(1)) == [Fetch(0, WINDOW)]
    assert plain.snapshot(at(1)).queue_length == 1


def test_retried_failures_are_fetched_again_and_no_longer_listed() -> None:
    plain = JobStateMachine(ServiceRules())
    plain.handle(Accepted(1), at(0))
    plain.handle(Fetched((job("a"),), frozenset(), 1), at(0))
    plain.handle(Observed("a", COMPLETE), at(0))
    plain.handle(AttemptFailed("a", "final", "broken"), at(1))
    plain.handle(Written(frozenset("a")), at(1))
    assert plain.snapshot(at(1)).unacknowledged == 1
    assert plain.handle(FailuresRetried(1), at(2)) == [Fetch(1, WINDOW)]
    snapshot = plain.snapshot(at(2))
    assert (snapshot.queue_length, snapshot.unacknowledged, snapshot.failed_files) == (1, 0, ())
    assert plain.handle(Fetched((job("a"),), frozenset(), 2), at(2)) == [Observe(job("a"))]
    assert starts(plain.handle(Observed("a", COMPLETE), at(2))) == ["a"]


def test_a_sidecar_is_carried_to_where_the_frame_went(service: JobStateMachine) -> None:
    make_ready(service, "a")
    done = converted("a", sidecar="absent")
    elsewhere = replace(done, report=done.report.model_copy(update={"output": "/processed/a-1.tif"}))
    steps = service.handle(elsewhere, at(1))
    assert steps == [CarrySidecar(job("a"), Path("/processed/a-1.tif"))]
    assert carries(steps) == [("a", Path("/processed/a-1.tif"))]
