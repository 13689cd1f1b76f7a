"""The state of every job: the real state machine, fed with events and hand-made readings of the clocks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tango_server.conversion.errors import OutputWriteError
from tango_server.conversion.file_state import FileState
from tango_server.conversion.sidecar import sidecar_error
from tango_server.jobs.state_machine.events import (
    Accepted,
    AttemptDone,
    AttemptFailed,
    Cancelled,
    CancelWanted,
    CarrySidecar,
    Convert,
    Ending,
    Event,
    FailuresAcknowledged,
    Finish,
    Instant,
    Instruction,
    Observe,
    Observed,
    Refused,
    Selection,
    SidecarObserved,
    StatisticsReset,
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
    IFD_FIRST,
    NO_TIFF,
    UNFINISHED,
    XDI,
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

Answer = Literal["carried", "absent", "final", "crashed", "not_ready"]


@pytest.fixture
def service() -> JobStateMachine:
    """Two workers, three attempts, and waits of 15 s, or 300 s for a run."""
    return LedgerService(ServiceRules())


@pytest.fixture
def one_worker() -> JobStateMachine:
    return LedgerService(ServiceRules(workers=1))


def test_file_is_checked_as_soon_as_its_job_is_accepted(service: JobStateMachine) -> None:
    instructions = service.handle(accepted("a", "b"), at(0))
    assert instructions == [Observe(job("a")), Observe(job("b"))]


def test_a_service_without_jobs_wants_no_wake_up(service: JobStateMachine) -> None:
    assert service.next_poll is None


def test_a_complete_file_is_given_to_a_worker_at_once(service: JobStateMachine) -> None:
    service.handle(accepted("a"), at(0))
    assert service.handle(Observed("a", COMPLETE), at(0.01)) == [Convert(job("a"), 1)]


def test_a_missing_file_blocks_no_other(one_worker: JobStateMachine) -> None:
    one_worker.handle(accepted("missing", "b", "c"), at(0))
    assert one_worker.handle(Observed("missing", None), at(0.01)) == []
    assert starts(one_worker.handle(Observed("b", COMPLETE), at(0.02))) == ["b"]
    assert one_worker.handle(Observed("c", COMPLETE), at(0.03)) == []
    assert starts(one_worker.handle(converted("b"), at(0.1))) == ["c"]


def test_awaited_files_are_listed_with_reason_and_remaining_time(service: JobStateMachine) -> None:
    service.handle(accepted("unfinished", "done", "new", run_uid="r"), at(0))
    service.handle(accepted("missing"), at(0))
    service.handle(Observed("unfinished", UNFINISHED), at(1))
    service.handle(Observed("missing", None), at(1))
    service.handle(Observed("done", COMPLETE), at(1))
    names = ("unfinished", "missing", "done", "new", "unknown")
    unfinished, missing = service.awaited(names, 4)
    assert unfinished.source == "/raw/unfinished.tif"
    assert unfinished.reason == UNFINISHED.problem
    assert (unfinished.waited, unfinished.remaining) == (3, 297)  # of a run
    assert (missing.reason, missing.remaining) == ("no such file", 12)
    service.handle(Observed("unfinished", COMPLETE), at(5))
    assert [each.source for each in service.awaited(names, 5)] == ["/raw/missing.tif"]
    service.handle(Observed("missing", None), at(20))
    assert service.awaited(names, 20) == []


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_never_more_frames_run_than_there_are_workers(workers: int) -> None:
    service = LedgerService(ServiceRules(workers=workers))
    names = [f"f{number}" for number in range(8)]
    assert make_ready(service, *names) == names[:workers]
    assert service.snapshot(at(1)).running == workers
    assert starts(service.handle(converted("f0"), at(1))) == [names[workers]]
    assert service.snapshot(at(1)).running == workers


def test_frames_are_converted_in_the_order_in_which_they_became_ready(one_worker: JobStateMachine) -> None:
    one_worker.handle(accepted("late", "a", "b", "c"), at(0))
    one_worker.handle(Observed("late", None), at(0))
    order = make_ready(one_worker, "first", seconds=0.1)
    for name in ("a", "b", "c"):
        one_worker.handle(Observed(name, COMPLETE), at(0.2))
    one_worker.handle(Observed("late", COMPLETE), at(0.3))
    make_ready(one_worker, "last", seconds=0.4)
    for _ in range(5):
        order += starts(one_worker.handle(converted(order[-1]), at(1)))
    assert order == ["first", "a", "b", "c", "late", "last"]


@pytest.mark.parametrize(
    "state", [None, UNFINISHED, IFD_FIRST, NO_TIFF], ids=["missing", "unfinished", "ifd first", "no tiff"]
)
def test_file_that_is_not_ready_is_checked_again_when_due(state: FileState | None, service: JobStateMachine) -> None:
    service.handle(accepted("a"), at(0))
    assert service.handle(Observed("a", state), at(0.01)) == []
    due = service.next_poll
    assert due is not None
    assert due > 0.01
    assert service.handle(TimePassed(), at(due - 0.001)) == []
    assert looks(service.handle(TimePassed(), at(due))) == ["a"]
    assert service.handle(TimePassed(), at(due + 5)) == []
    assert service.next_poll is None


def test_several_due_files_are_checked_together(service: JobStateMachine) -> None:
    service.handle(accepted("a", "b", "c"), at(0))
    for name in ("a", "b", "c"):
        service.handle(Observed(name, None), at(0.01))
    assert sorted(looks(service.handle(TimePassed(), at(10)))) == ["a", "b", "c"]


@pytest.mark.parametrize(("run_uid", "timeout"), [(None, 15.0), ("run-1", 300.0)], ids=["by hand", "of a run"])
def test_a_file_that_never_comes_ends_as_failed_at_its_deadline(
    run_uid: str | None, timeout: float, service: JobStateMachine
) -> None:
    service.handle(accepted("a", run_uid=run_uid), at(90))
    service.handle(Observed("a", None), at(100))  # its time counts from the first look: a backlog is not its fault
    assert service.handle(Observed("a", None), at(100 + timeout - 0.01)) == []
    (report,) = reports(service.handle(Observed("a", None), at(100 + timeout)))
    assert report.outcome == "failed"
    assert report.reason.startswith("/raw/a.tif: ")
    assert f"{timeout:g} s" in report.reason
    assert "no such file" in report.reason
    assert service.snapshot(at(500)).queue_length == 0


def test_deadline_counts_from_acceptance_at_the_scheduled_polls(service: JobStateMachine) -> None:
    now = 50.0
    instructions = service.handle(accepted("a"), at(now))
    while looks(instructions):
        instructions = service.handle(Observed("a", None), at(now))
        if service.next_poll is not None:
            now = service.next_poll
            instructions = service.handle(TimePassed(), at(now))
    assert [report.outcome for report in reports(instructions)] == ["failed"]
    assert now == 65.0


def test_crashed_frame_is_retried_until_attempts_are_used_up(service: JobStateMachine) -> None:
    make_ready(service, "a")
    assert service.handle(crashed("a"), at(1)) == [Convert(job("a"), 2)]
    assert service.handle(crashed("a"), at(2)) == [Convert(job("a"), 3)]
    (report,) = reports(service.handle(crashed("a"), at(3)))
    assert report.outcome == "failed"
    assert report.reason == "/raw/a.tif: gave up after 3 attempts: the worker process 17 died"
    assert service.snapshot(at(3)).running == 0


def test_a_frame_may_succeed_after_a_crash(service: JobStateMachine) -> None:
    make_ready(service, "a")
    service.handle(crashed("a"), at(1))
    (report,) = reports(service.handle(converted("a"), at(2)))
    assert report.outcome == "converted"
    assert service.snapshot(at(2)).failed == 0


def test_a_single_attempt_means_no_second_one() -> None:
    service = LedgerService(ServiceRules(attempts=1))
    make_ready(service, "a")
    assert [report.outcome for report in reports(service.handle(crashed("a"), at(1)))] == ["failed"]


def test_frame_that_crashes_its_worker_goes_to_the_end_of_the_queue(one_worker: JobStateMachine) -> None:
    make_ready(one_worker, "bad", "b", "c")
    order = []
    for event in (crashed("bad"), converted("b"), converted("c")):
        order += starts(one_worker.handle(event, at(1)))
    assert order == ["b", "c", "bad"]


def test_a_frame_at_fault_fails_at_once_and_frees_its_worker(one_worker: JobStateMachine) -> None:
    make_ready(one_worker, "bad", "b")
    failure = AttemptFailed(
        "bad", "final", "/raw/bad.tif: not a TIFF file: it starts with b'hell'. Check what wrote this file."
    )
    instructions = one_worker.handle(failure, at(1))
    (report,) = reports(instructions)
    assert (report.outcome, report.reason) == ("failed", failure.reason)
    assert starts(instructions) == ["b"]


def test_a_reason_that_does_not_name_the_file_gets_its_name(service: JobStateMachine) -> None:
    make_ready(service, "a")
    (report,) = reports(service.handle(AttemptFailed("a", "final", "the disk is full"), at(1)))
    assert report.reason == "/raw/a.tif: the disk is full"


def test_file_no_longer_ready_waits_again_and_frees_its_worker(
    one_worker: JobStateMachine,
) -> None:
    make_ready(one_worker, "a", "b")
    instructions = one_worker.handle(not_ready("a"), at(1))
    assert looks(instructions) == ["a"]
    assert starts(instructions) == ["b"]
    assert one_worker.handle(Observed("a", UNFINISHED), at(1.1)) == []
    assert one_worker.next_poll is not None
    assert one_worker.snapshot(at(1.1)).queue_length == 2


def test_waiting_again_uses_up_no_attempt() -> None:
    service = LedgerService(ServiceRules(attempts=2))
    make_ready(service, "a")
    for number in range(1, 6):
        assert looks(service.handle(not_ready("a"), at(1))) == ["a"]
        written_again = replace(COMPLETE, mtime_ns=COMPLETE.mtime_ns + number)
        assert service.handle(Observed("a", written_again), at(1)) == [Convert(job("a"), number + 1)]
    assert starts(service.handle(crashed("a"), at(1))) == ["a"]
    assert [report.outcome for report in reports(service.handle(crashed("a"), at(1)))] == ["failed"]


def test_ifd_first_file_replaced_while_queued_restarts_settle_time(
    service: JobStateMachine,
) -> None:
    service.handle(accepted("a", run_uid="run-1"), at(0))
    service.handle(Observed("a", IFD_FIRST), at(0))
    assert starts(service.handle(Observed("a", IFD_FIRST), at(3))) == ["a"]
    service.handle(not_ready("a"), at(4))
    replaced = replace(IFD_FIRST, inode=IFD_FIRST.inode + 1)
    assert service.handle(Observed("a", replaced), at(4)) == []
    assert service.handle(Observed("a", replaced), at(6.9)) == []
    assert starts(service.handle(Observed("a", replaced), at(7))) == ["a"]


@pytest.mark.parametrize(
    ("complete", "done", "latency"),
    [(0.0, 2.0, 2.0), (5.0, 7.5, 2.5)],
    ids=["complete when accepted", "complete later"],
)
def test_conversion_report_has_the_source_and_the_latency(
    complete: float, done: float, latency: float, service: JobStateMachine
) -> None:
    service.handle(accepted("a", run_uid="run-1"), at(1000))
    service.handle(Observed("a", None), at(1000))
    service.handle(Observed("a", COMPLETE), at(1000 + complete))
    (report,) = reports(service.handle(converted("a"), at(1000 + done)))
    assert (report.job_id, report.run_uid, report.stream, report.seq_num) == ("a", "run-1", "primary", 7)
    assert report.latency == pytest.approx(latency)
    assert report.accepted == 1.7e9
    assert (report.output, report.conversion_time, report.bytes_out) == ("/processed/a.tif", 0.25, 20)


def test_latency_counts_from_the_last_completion_of_the_file(service: JobStateMachine) -> None:
    make_ready(service, "a", seconds=2)
    service.handle(not_ready("a"), at(4))
    service.handle(Observed("a", replace(COMPLETE, mtime_ns=COMPLETE.mtime_ns + 1)), at(6))
    (report,) = reports(service.handle(converted("a"), at(6.5)))
    assert report.latency == pytest.approx(0.5)


def test_time_in_the_queue_counts_as_latency(one_worker: JobStateMachine) -> None:
    make_ready(one_worker, "a", "b")
    one_worker.handle(converted("a"), at(8))
    (report,) = reports(one_worker.handle(converted("b"), at(9)))
    assert report.latency == pytest.approx(9.0)


@pytest.mark.parametrize("kind", ["final", "crashed", "timeout"])
def test_failure_report_has_the_source(kind: Literal["final", "crashed", "timeout"]) -> None:
    service = LedgerService(ServiceRules(attempts=1))
    service.handle(accepted("a", run_uid="run-1"), at(10))
    if kind == "timeout":
        service.handle(Observed("a", None), at(50))
        instructions = service.handle(Observed("a", None), at(400))
    else:
        service.handle(Observed("a", COMPLETE), at(10))
        instructions = service.handle(AttemptFailed("a", kind, "broken"), at(400))
    (report,) = reports(instructions)
    assert (report.job_id, report.run_uid, report.stream, report.seq_num) == ("a", "run-1", "primary", 7)
    assert (report.source, report.recipe_hash) == ("/raw/a.tif", XDI.hash)
    assert (report.accepted, report.finished) == (1.7e9, 1.7e9 + 400)
    assert report.latency is None


def test_report_waits_for_the_sidecar_without_occupying_a_worker(
    one_worker: JobStateMachine,
) -> None:
    make_ready(one_worker, "a", "b")
    instructions = one_worker.handle(converted("a", sidecar="absent"), at(1))
    assert reports(instructions) == []
    assert carries(instructions) == [("a", Path("/processed/a.tif"))]
    assert starts(instructions) == ["b"]
    assert one_worker.snapshot(at(1)).queue_length == 2


def test_late_sidecar_is_reported_and_not_counted_as_latency(service: JobStateMachine) -> None:
    make_ready(service, "a")
    service.handle(converted("a", sidecar="absent"), at(1))
    assert service.handle(SidecarObserved("a", carried=False), at(1.1)) == []
    due = service.next_poll
    assert due is not None
    assert carries(service.handle(TimePassed(), at(due))) == [("a", Path("/processed/a.tif"))]
    (report,) = reports(service.handle(SidecarObserved("a", carried=True), at(2.5)))
    assert (report.outcome, report.sidecar) == ("converted", "carried")
    assert report.latency == pytest.approx(1.0)
    assert service.next_poll is None


def test_missing_sidecar_is_reported_absent_at_its_deadline() -> None:
    service = LedgerService(ServiceRules(sidecar_timeout=1.25))
    make_ready(service, "a")
    now, looked = 1.0, 0
    instructions = service.handle(converted("a", sidecar="absent"), at(now))
    while carries(instructions):
        looked += 1
        instructions = service.handle(SidecarObserved("a", carried=False), at(now))
        if service.next_poll is not None:
            now = service.next_poll
            instructions = service.handle(TimePassed(), at(now))
    (report,) = reports(instructions)
    assert (report.outcome, report.sidecar) == ("converted", "absent")
    assert report.latency == pytest.approx(1.0)
    assert now == pytest.approx(2.25)
    assert 5 < looked < 10, "often at first, then seldom"


@pytest.mark.parametrize(
    ("rules", "state", "recipe"),
    [
        (ServiceRules(sidecar_timeout=0.0), COMPLETE, XDI),
        (ServiceRules(readiness=ReadinessRule(settle_time=0.0)), IFD_FIRST, XDI),
        (ServiceRules(), COMPLETE, Recipe.model_validate({"output": {"mode": "in_place"}})),
    ],
    ids=["no patience", "not by QXRD", "in place"],
)
def test_no_sidecar_is_awaited(rules: ServiceRules, state: FileState, recipe: Recipe) -> None:
    service = LedgerService(rules)
    service.handle(fetched((job("a", recipe=recipe),)), at(0))
    assert starts(service.handle(Observed("a", state), at(0))) == ["a"]
    (report,) = reports(service.handle(converted("a", sidecar="absent", reason="It was read as grey."), at(1)))
    assert (report.outcome, report.sidecar, report.reason) == ("converted", "absent", "It was read as grey.")


def test_no_sidecar_is_awaited_for_a_frame_that_was_skipped(service: JobStateMachine) -> None:
    make_ready(service, "a")
    skipped = FrameReport(source="/raw/a.tif", output="/processed/a.tif", outcome="skipped", finished=1.7e9)
    assert [report.outcome for report in reports(service.handle(AttemptDone("a", skipped), at(1)))] == ["skipped"]


def test_converted_frame_stays_converted_when_its_sidecar_fails(service: JobStateMachine) -> None:
    make_ready(service, "a")
    service.handle(converted("a", sidecar="absent"), at(1))
    (report,) = reports(service.handle(AttemptFailed("a", "final", "it can't be looked at"), at(1.1)))
    assert (report.outcome, report.sidecar, report.reason) == ("converted", "absent", "it can't be looked at")
    assert service.snapshot(at(1.1)).failed == 0


DISK_FULL = OutputWriteError("/data/a.tif.metadata", "the disk is full", "Make room.")


def blocked_until(service: JobStateMachine, run_uid: str | None, relieved: float) -> tuple[list[FrameReport], float]:
    """Have the sidecar of a frame blocked from 1 s to `relieved`; return the reports, and when they came."""
    service.handle(accepted("a", run_uid=run_uid), at(0))
    service.handle(Observed("a", COMPLETE), at(0))
    now = 1.0
    instructions = service.handle(converted("a", sidecar="absent", reason=sidecar_error(DISK_FULL)), at(now))
    while carries(instructions):
        blocked = now < relieved
        look = SidecarObserved("a", not blocked, "the disk is full" if blocked else "", blocked)
        instructions = service.handle(look, at(now))
        if service.next_poll is not None:
            now = service.next_poll
            instructions = service.handle(TimePassed(), at(now))
    return reports(instructions), now


@pytest.mark.parametrize(("run_uid", "timeout"), [(None, 15.0), ("run-1", 300.0)], ids=["by hand", "of a run"])
@pytest.mark.parametrize("sidecar_timeout", [0.0, 2.0])
def test_unwritable_sidecar_is_retried_as_long_as_its_image(
    run_uid: str | None, timeout: float, sidecar_timeout: float
) -> None:
    rules = ServiceRules(sidecar_timeout=sidecar_timeout)
    (report,), now = blocked_until(LedgerService(rules), run_uid, relieved=timeout - 2)
    assert (report.sidecar, report.reason) == ("carried", "")
    assert timeout - 2 <= now <= timeout + 1
    (report,), now = blocked_until(LedgerService(rules), run_uid, relieved=1e9)
    assert (report.outcome, report.sidecar, report.reason) == ("converted", "absent", "the disk is full")
    assert now == pytest.approx(1 + timeout)


def test_failing_sidecar_is_given_up_at_its_deadline_with_the_reason(service: JobStateMachine) -> None:
    make_ready(service, "a")
    service.handle(converted("a", sidecar="absent"), at(1))
    assert not reports(service.handle(SidecarObserved("a", carried=False, problem="it can't be read"), at(1.1)))
    (report,) = reports(service.handle(SidecarObserved("a", carried=False, problem="it can't be read"), at(3)))
    assert (report.sidecar, report.reason) == ("absent", "it can't be read")


def test_sidecar_keeps_its_full_time_after_the_disk_blocked_the_image(service: JobStateMachine) -> None:
    make_ready(service, "a")
    service.handle(AttemptFailed("a", "blocked", "the disk is full"), at(1))
    service.handle(Observed("a", COMPLETE), at(14))
    service.handle(converted("a", sidecar="absent"), at(14))
    assert not reports(service.handle(SidecarObserved("a", carried=False, problem="full", blocked=True), at(14.1)))
    assert not reports(service.handle(SidecarObserved("a", carried=False, problem="full", blocked=True), at(29)))
    assert reports(service.handle(SidecarObserved("a", carried=False, problem="full", blocked=True), at(29.2)))


SCENARIO: list[tuple[float, Event]] = [
    (0.0, accepted("a", "b", "c", "d")),
    (0.1, Observed("a", COMPLETE)),
    (0.2, Observed("b", IFD_FIRST)),
    (0.3, Observed("c", None)),
    (0.4, crashed("a")),
    (2.0, TimePassed()),
    (3.2, Observed("b", IFD_FIRST)),
    (3.3, not_ready("b")),
    (3.4, Observed("b", COMPLETE)),
    (3.5, converted("a")),
    (4.0, converted("b", sidecar="absent")),
    (4.1, SidecarObserved("b", carried=False)),
    (4.3, TimePassed()),
    (6.0, SidecarObserved("b", carried=False)),
    (14.9, Observed("c", None)),
    (14.9, Observed("d", NO_TIFF)),
    (15.3, Observed("c", None)),
    (15.3, TimePassed()),
]


def play(wall: Callable[[float], float]) -> tuple[list[list[Instruction]], list[float | None], object]:
    """Return what comes of `SCENARIO`, with the wall clock's own instants taken out of the reports."""
    service = LedgerService(ServiceRules())
    answers: list[list[Instruction]] = []
    due: list[float | None] = []
    for seconds, event in SCENARIO:
        steps = service.handle(event, Instant(monotonic=seconds, wall=wall(seconds)))
        answers.append(
            [
                Finish(step.report.model_copy(update={"finished": 0.0})) if isinstance(step, Finish) else step
                for step in steps
            ]
        )
        due.append(service.next_poll)
    return answers, due, service.snapshot(Instant(15.3, wall(15.3)))


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, 1e9], ids=["an hour back", "an hour ahead", "years ahead"])
@pytest.mark.parametrize("moment", [0.05, 3.25, 14.0])
def test_a_jump_of_the_wall_clock_changes_nothing(moment: float, jump: float) -> None:
    steady = play(lambda seconds: 1.7e9 + seconds)
    jumping = play(lambda seconds: 1.7e9 + seconds + (jump if seconds > moment else 0.0))
    assert [report.outcome for steps in steady[0] for report in reports(steps)] == ["converted", "converted", "failed"]
    assert jumping == steady


@pytest.mark.parametrize(
    "event",
    [
        Observed("a", COMPLETE),
        Observed("a", None),
        SidecarObserved("a", carried=True),
        converted("a"),
        crashed("a"),
        not_ready("a"),
    ],
    ids=["seen", "missing", "sidecar", "converted", "crashed", "not ready"],
)
def test_a_late_answer_about_a_finished_job_changes_nothing(event: Event, service: JobStateMachine) -> None:
    make_ready(service, "a")
    service.handle(converted("a"), at(1))
    before = service.snapshot(at(1))
    assert service.handle(event, at(1)) == []
    assert service.snapshot(at(1)) == before


def test_the_queue_counts_every_job_without_a_report(service: JobStateMachine) -> None:
    service.handle(accepted("a", "b", "c", "d"), at(0))
    for name in ("a", "b", "c"):
        service.handle(Observed(name, COMPLETE), at(0))
    service.handle(Observed("d", None), at(0))
    snapshot = service.snapshot(at(0))
    assert (snapshot.queue_length, snapshot.running, snapshot.processed) == (4, 2, 0)
    service.handle(converted("a"), at(1))
    snapshot = service.snapshot(at(1))
    assert (snapshot.queue_length, snapshot.running, snapshot.processed) == (3, 2, 1)


def test_the_frames_that_workers_have_are_named(one_worker: JobStateMachine) -> None:
    make_ready(one_worker, "a", "b")
    assert one_worker.running_jobs() == [job("a")]
    one_worker.handle(converted("a"), at(1))
    assert one_worker.running_jobs() == [job("b")]
    one_worker.handle(converted("b"), at(2))
    assert one_worker.running_jobs() == []


def test_refused_request_counts_as_failed_without_being_queued(service: JobStateMachine) -> None:
    refusal = FrameReport(source="/raw/a.tif", outcome="failed", reason="no folder named 'raw'", finished=1.7e9)
    assert service.handle(Refused(refusal), at(0)) == []
    snapshot = service.snapshot(at(0))
    assert (snapshot.processed, snapshot.failed, snapshot.queue_length) == (1, 1, 0)
    assert (snapshot.last_error, snapshot.failed_files) == ("no folder named 'raw'", ("/raw/a.tif",))


@pytest.fixture
def with_a_failure(service: JobStateMachine) -> JobStateMachine:
    """One frame converted, one failed, one running and one waiting."""
    make_ready(service, "a", "b")
    service.handle(converted("a"), at(1))
    service.handle(AttemptFailed("b", "final", "broken"), at(1))
    make_ready(service, "c")
    service.handle(accepted("d"), at(1))
    return service


def test_a_reset_starts_the_counters_from_zero_and_keeps_the_queue(with_a_failure: JobStateMachine) -> None:
    before = with_a_failure.snapshot(at(1))
    assert (before.processed, before.converted, before.failed) == (2, 1, 1)
    assert with_a_failure.handle(StatisticsReset(), at(1)) == []
    after = with_a_failure.snapshot(at(1))
    assert (after.processed, after.converted, after.failed) == (0, 0, 0)
    assert (after.conversion_time_total, after.frames_per_second, after.latency_median) == (0.0, 0.0, 0.0)
    assert after.failed_files == ()
    assert (after.queue_length, after.running) == (2, 1)
    with_a_failure.handle(converted("c"), at(2))
    assert with_a_failure.snapshot(at(2)).processed == 1


def test_only_an_acknowledgement_ends_the_alarm_and_a_reset_does_not(with_a_failure: JobStateMachine) -> None:
    with_a_failure.handle(StatisticsReset(), at(1))
    snapshot = with_a_failure.snapshot(at(1))
    assert (snapshot.unacknowledged, snapshot.last_error) == (1, "/raw/b.tif: broken")
    with_a_failure.handle(FailuresAcknowledged(), at(2))
    assert with_a_failure.snapshot(at(2)).unacknowledged == 0


def test_acknowledgement_covers_only_earlier_failures(
    with_a_failure: JobStateMachine,
) -> None:
    before = with_a_failure.snapshot(at(1))
    assert with_a_failure.handle(FailuresAcknowledged(), at(1)) == []
    assert with_a_failure.snapshot(at(1)) == replace(before, unacknowledged=0)
    with_a_failure.handle(AttemptFailed("c", "final", "broken, too"), at(2))
    assert with_a_failure.snapshot(at(2)).unacknowledged == 1


class AnyOrder(RuleBasedStateMachine):
    """Events in any order; the model is no more than who owes an answer to whom."""

    workers = 2
    attempts = 2

    def __init__(self) -> None:
        super().__init__()
        self.service = LedgerService(ServiceRules(workers=self.workers, attempts=self.attempts))
        self.now = 1000.0
        self.wall = 1.7e9
        self.jobs: list[str] = []
        self.to_look: list[str] = []
        self.to_convert: list[str] = []
        self.to_carry: list[str] = []
        self.crashes: dict[str, int] = {}
        self.finished: dict[str, FrameReport] = {}
        self.counted = 0

    def send(self, event: Event) -> list[Instruction]:
        instructions = self.service.handle(event, Instant(self.now, self.wall))
        for step in instructions:
            match step:
                case Observe(looked_at):
                    assert looked_at.job_id not in self.busy_or_finished()
                    self.to_look.append(looked_at.job_id)
                case Convert(converting, _):
                    assert converting.job_id not in self.busy_or_finished()
                    self.to_convert.append(converting.job_id)
                case CarrySidecar(done, _):
                    assert done.job_id not in self.busy_or_finished()
                    self.to_carry.append(done.job_id)
                case Finish(report):
                    assert report.job_id in self.jobs
                    assert report.job_id not in self.finished
                    self.finished[report.job_id] = report
                    self.counted += 1
        return instructions

    def busy_or_finished(self) -> set[str]:
        return {*self.to_look, *self.to_convert, *self.to_carry, *self.finished}

    @rule(count=st.integers(1, 4), in_run=st.booleans())
    def accept(self, count: int, in_run: bool) -> None:
        names = [f"{len(self.jobs) + number:03d}" for number in range(count)]
        self.jobs += names
        self.send(accepted(*names, run_uid="run-1" if in_run else None))

    @precondition(lambda self: self.to_look)
    @rule(draw=st.data(), state=st.sampled_from([COMPLETE, COMPLETE, UNFINISHED, IFD_FIRST, NO_TIFF, None]))
    def answer_a_look(self, draw: st.DataObject, state: FileState | None) -> None:
        name = draw.draw(st.sampled_from(self.to_look))
        self.to_look.remove(name)
        self.send(Observed(name, state))

    @precondition(lambda self: self.to_convert)
    @rule(draw=st.data(), outcome=st.sampled_from(get_args(Answer)))
    def answer_an_attempt(self, draw: st.DataObject, outcome: Answer) -> None:
        name = draw.draw(st.sampled_from(self.to_convert))
        self.to_convert.remove(name)
        self.crashes[name] = self.crashes.get(name, 0) + (outcome == "crashed")
        match outcome:
            case "carried" | "absent":
                self.send(converted(name, sidecar=outcome))
            case _:
                self.send(AttemptFailed(name, outcome, "something"))
        over = outcome in {"carried", "final"} or self.crashes[name] == self.attempts
        assert (name in self.finished or name in self.to_carry) == (over or outcome == "absent")
        assert name in self.finished or not over

    @precondition(lambda self: self.to_carry)
    @rule(draw=st.data(), carried=st.booleans(), blocked=st.booleans())
    def answer_about_a_sidecar(self, draw: st.DataObject, carried: bool, blocked: bool) -> None:
        name = draw.draw(st.sampled_from(self.to_carry))
        self.to_carry.remove(name)
        self.send(SidecarObserved(name, carried=carried, blocked=blocked and not carried))
        assert name in self.finished or not carried

    @rule(seconds=st.sampled_from([0.0, 0.02, 0.3, 3.0, 20.0]), jump=st.sampled_from([0.0, -1e5, 1e5]))
    def let_time_pass(self, seconds: float, jump: float) -> None:
        self.now += seconds
        self.wall += seconds + jump
        self.send(TimePassed())

    @precondition(lambda self: self.finished)
    @rule(draw=st.data())
    def answer_late(self, draw: st.DataObject) -> None:
        name = draw.draw(st.sampled_from(sorted(self.finished)))
        events: list[Event] = [Observed(name, COMPLETE), converted(name), crashed(name), not_ready(name)]
        assert self.send(draw.draw(st.sampled_from(events))) == []

    @rule()
    def reset(self) -> None:
        self.send(StatisticsReset())
        self.counted = 0

    @rule()
    def acknowledge(self) -> None:
        self.send(FailuresAcknowledged())
        assert self.service.snapshot(Instant(self.now, self.wall)).unacknowledged == 0

    @invariant()
    def workers_are_never_too_many_and_numbers_agree(self) -> None:
        assert len(self.to_convert) <= self.workers
        snapshot = self.service.snapshot(Instant(self.now, self.wall))
        assert snapshot.running == len(self.to_convert)
        assert snapshot.queue_length == len(self.jobs) - len(self.finished)
        assert snapshot.processed == self.counted

    def teardown(self) -> None:
        """Answer everything: each job that was accepted has exactly one report in the end."""
        for number in range(10 * len(self.jobs)):
            written_again = replace(COMPLETE, mtime_ns=COMPLETE.mtime_ns + 1 + number)
            for name in list(self.to_look):
                self.to_look.remove(name)
                self.send(Observed(name, written_again))
            for name in list(self.to_convert):
                self.to_convert.remove(name)
                self.send(converted(name, sidecar="absent"))
            for name in list(self.to_carry):
                self.to_carry.remove(name)
                self.send(SidecarObserved(name, carried=True))
            self.now = max(self.now, self.service.next_poll or 0.0)
            self.send(TimePassed())
        assert sorted(self.finished) == sorted(self.jobs)
        assert self.service.next_poll is None
        assert self.service.running_jobs() == []


AnyOrder.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestEventsInAnyOrder = AnyOrder.TestCase


def test_rule_for_runs_can_differ_in_more_than_its_timeout() -> None:
    rules = ServiceRules(readiness=ReadinessRule(settle_complete=5.0), run_readiness=ReadinessRule())
    service = LedgerService(rules)
    service.handle(accepted("a"), at(0))
    service.handle(accepted("b", run_uid="run-1"), at(0))
    assert starts(service.handle(Observed("a", COMPLETE), at(0))) == []
    assert starts(service.handle(Observed("b", COMPLETE), at(0))) == ["b"]


def test_seemingly_complete_file_is_awaited_without_a_busy_loop() -> None:
    service = LedgerService(ServiceRules(readiness=ReadinessRule(timeout=10.0)))
    service.handle(accepted("a"), at(0))
    assert starts(service.handle(Observed("a", COMPLETE), at(0))) == ["a"]
    service.handle(AttemptFailed("a", "not_ready", "its strips were never filled"), at(0.1))
    instants = [0.1]
    while not (steps := service.handle(Observed("a", COMPLETE), at(instants[-1]))):
        assert service.next_poll is not None
        instants.append(service.next_poll)
        assert looks(service.handle(TimePassed(), at(instants[-1]))) == ["a"]
    assert len(instants) < 30
    assert instants[-1] == pytest.approx(10.1)
    (report,) = reports(steps)
    assert report.outcome == "failed"
    assert "never filled" in report.reason


def test_two_jobs_with_one_output_never_run_at_a_time() -> None:
    service = LedgerService(ServiceRules(workers=4, sidecar_timeout=0))
    service.holding = True
    jobs = [replace(job, output=Path("/processed/same.tif")) for name in "abc" for job in accepted(name).jobs]
    other = accepted("d").jobs[0]
    service.handle(fetched((*jobs, other)), at(0))
    started = [name for name in "abcd" for name in starts(service.handle(Observed(name, COMPLETE), at(0)))]
    assert started == ["a", "d"]
    done = FrameReport(source="a", outcome="converted", finished=0)
    assert starts(service.handle(AttemptDone("a", done), at(1))) == []
    assert starts(service.handle(Written(frozenset("a")), at(1))) == ["b"]
    assert starts(service.handle(AttemptDone("b", done), at(2))) == []
    assert starts(service.handle(Written(frozenset("b")), at(2))) == ["c"]


def test_output_stays_reserved_until_sidecar_and_report_are_written(service: LedgerService) -> None:
    service.holding = True
    jobs = [replace(job, output=Path("/processed/same.tif")) for name in "ab" for job in accepted(name).jobs]
    service.handle(fetched(tuple(jobs)), at(0))
    for name in "ab":
        service.handle(Observed(name, COMPLETE), at(0))
    assert starts(service.handle(converted("a", sidecar="absent"), at(1))) == []
    assert starts(service.handle(SidecarObserved("a", carried=True), at(1.1))) == []
    assert starts(service.handle(Written(frozenset("a")), at(1.2))) == ["b"]


def test_unwritten_report_is_not_overtaken_by_a_cancellation(service: LedgerService) -> None:
    service.holding = True
    make_ready(service, "a")
    service.handle(converted("a"), at(1))
    (cancel,) = service.handle(CancelWanted("ticket", Selection()), at(1))
    assert cancel.spared == {"a"}
    service.handle(Written(frozenset("a")), at(1))
    (cancel,) = service.handle(CancelWanted("ticket", Selection()), at(1))
    assert cancel.spared == frozenset()


def test_at_the_end_what_is_converted_is_reported_without_its_sidecar(service: JobStateMachine) -> None:
    make_ready(service, "a", "b")
    service.handle(converted("a", sidecar="absent"), at(1))
    assert [(report.job_id, report.outcome) for report in reports(service.handle(Ending(), at(1.1)))] == [
        ("a", "converted")
    ]
    assert service.snapshot(at(1.1)).queue_length == 1


def test_file_replaced_after_a_long_queue_gets_its_full_timeout(one_worker: JobStateMachine) -> None:
    make_ready(one_worker, "a")
    one_worker.handle(not_ready("a"), at(1000))
    assert reports(one_worker.handle(Observed("a", UNFINISHED), at(1000))) == []
    assert starts(one_worker.handle(Observed("a", COMPLETE_AGAIN), at(1010))) == ["a"]


def test_latency_counts_from_the_first_check_that_found_it_complete() -> None:
    service = LedgerService(ServiceRules(readiness=ReadinessRule(settle_complete=1.0)))
    service.handle(accepted("a"), at(0))
    service.handle(Observed("a", COMPLETE), at(2))
    assert starts(service.handle(Observed("a", COMPLETE), at(3))) == ["a"]
    (report,) = reports(service.handle(converted("a"), at(3.5)))
    assert report.latency == pytest.approx(1.5)


def test_jobs_postponed_by_a_cancel_come_before_further_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tango_server.jobs.state_machine.backlog.WINDOW", 4)
    service = JobStateMachine(ServiceRules(workers=1), paused=True)
    service.handle(Accepted(10), at(0))
    service.handle(fetched(tuple(map(job, "abcd"))), at(0))
    for name, state in (("a", COMPLETE), ("b", COMPLETE), ("c", UNFINISHED)):
        service.handle(Observed(name, state), at(0))
    assert service.handle(TimePassed(), at(1)) == [Observe(job("c"))]
    service.handle(CancelWanted("ticket", Selection()), at(1))
    for name, state in (("d", UNFINISHED), ("c", COMPLETE)):
        assert service.handle(Observed(name, state), at(1)) == []
    assert service.handle(Cancelled(0, frozenset()), at(1)) == [], "a, b and c are ready: there is room for one alone"
