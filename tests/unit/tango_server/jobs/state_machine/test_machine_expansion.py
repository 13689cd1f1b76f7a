"""Files of several frames in the state machine: expanded into one job for each frame, by events alone."""

from dataclasses import replace

import pytest

from tango_server.jobs.state_machine.backlog import WINDOW
from tango_server.jobs.state_machine.events import (
    Accepted,
    AttemptFailed,
    Cancelled,
    CancelWanted,
    Convert,
    Expand,
    Expanded,
    Fetch,
    Fetched,
    Observed,
    Selection,
    TimePassed,
)
from tango_server.jobs.state_machine.machine import JobStateMachine
from tango_server.jobs.state_machine.readiness import ReadinessRule
from tango_server.jobs.state_machine.rules import ServiceRules
from tests.unit.service_events import COMPLETE, LedgerService, accepted, at, fetched, job, reports, starts

STACK = replace(COMPLETE, frames=3, sidecar_expected=False)


@pytest.fixture
def service() -> JobStateMachine:
    return LedgerService(ServiceRules())


def test_complete_file_of_several_frames_is_expanded_and_skipped(service: JobStateMachine) -> None:
    service.handle(accepted("a", run_uid="run-1"), at(0))
    assert service.handle(Observed("a", STACK), at(1)) == [Expand(job("a", "run-1"), 3)]
    assert service.snapshot(at(1)).queue_length == 1
    (report,) = reports(service.handle(Expanded("a", 3, "3 frames, one job each"), at(2)))
    assert (report.outcome, report.reason, report.frames) == ("skipped", "3 frames, one job each", 3)
    assert (report.job_id, report.run_uid, report.seq_num) == ("a", "run-1", 7)
    assert service.snapshot(at(2)).queue_length == 0


@pytest.mark.parametrize("proof", ["", "counted"])
def test_file_of_several_frames_without_proof_must_settle_first(service: JobStateMachine, proof: str) -> None:
    service.handle(accepted("a"), at(0))
    state = replace(STACK, proof=proof)
    first = service.handle(Observed("a", state), at(0))
    assert [type(step) for step in first] == ([Expand] if proof else [])
    if not proof:
        service.handle(TimePassed(), at(3))
        assert [type(step) for step in service.handle(Observed("a", state), at(3))] == [Expand]


def test_incomplete_file_of_several_frames_is_awaited_by_name(service: JobStateMachine) -> None:
    service.handle(accepted("a"), at(0))
    state = replace(
        STACK, state="incomplete", problem="the second module (run_m2.nxs) is missing", proof="", frames=None
    )
    assert service.handle(Observed("a", state), at(0)) == []
    assert [each.reason for each in service.awaited(["a"], 0.0)] == ["the second module (run_m2.nxs) is missing"]
    service.handle(TimePassed(), at(15))
    (report,) = reports(service.handle(Observed("a", state), at(15)))
    assert "the second module (run_m2.nxs) is missing" in report.reason


@pytest.mark.parametrize("grows", [True, False])
def test_incomplete_file_is_expanded_at_its_timeout_unless_it_grows(service: JobStateMachine, grows: bool) -> None:
    service.handle(accepted("a"), at(0))
    state = replace(STACK, state="incomplete", problem="run_data_000002.h5 is missing", proof="")
    assert service.handle(Observed("a", state), at(0)) == []
    service.handle(TimePassed(), at(15))
    steps = service.handle(Observed("a", replace(state, size=state.size + grows)), at(15))
    if grows:
        assert [report.outcome for report in reports(steps)] == ["failed"]
    else:
        assert steps == [Expand(job("a"), 3, "run_data_000002.h5 is missing")]


@pytest.mark.parametrize(("frames", "steps"), [(3, [Expand]), (0, [Convert]), (None, [Convert])])
def test_damaged_file_with_frames_is_expanded(service: JobStateMachine, frames: int | None, steps: list[type]) -> None:
    service.handle(accepted("a"), at(0))
    state = replace(STACK, state="damaged", problem="frame 2 is mapped to nothing", proof="x", frames=frames)
    assert [type(step) for step in service.handle(Observed("a", state), at(0))] == steps


def test_min_size_is_that_of_files_not_of_frames_in_them() -> None:
    service = LedgerService(ServiceRules(readiness=ReadinessRule(min_size=10**9)))
    one = job("a")
    one = replace(one, request=one.request.model_copy(update={"frame": 2}))
    service.handle(fetched((one,)), at(0))
    assert starts(service.handle(Observed("a", COMPLETE), at(0))) == ["a"]


def test_a_frame_that_is_named_is_converted_not_expanded(service: JobStateMachine) -> None:
    one = job("a")
    one = replace(one, request=one.request.model_copy(update={"frame": 2}))
    service.handle(fetched((one,)), at(0))
    assert starts(service.handle(Observed("a", STACK), at(0))) == ["a"]


def test_an_expansion_that_fails_fails_its_file(service: JobStateMachine) -> None:
    service.handle(accepted("a"), at(0))
    service.handle(Observed("a", STACK), at(0))
    (report,) = reports(service.handle(AttemptFailed("a", "final", "no output is possible"), at(1)))
    assert (report.outcome, report.reason) == ("failed", "/raw/a.tif: no output is possible")


@pytest.mark.parametrize("cancelled", [True, False])
def test_an_expansion_that_ends_during_a_cancellation_waits_for_it(service: JobStateMachine, cancelled: bool) -> None:
    service.handle(accepted("a"), at(0))
    service.handle(Observed("a", STACK), at(0))
    service.handle(CancelWanted("ticket", Selection()), at(1))
    assert service.handle(Expanded("a", 3, "3 frames, one job each"), at(1)) == []
    names = frozenset({"a"}) if cancelled else frozenset()
    found = reports(service.handle(Cancelled(len(names), names), at(1)))
    assert [report.reason for report in found] == ([] if cancelled else ["3 frames, one job each"])


def test_files_being_expanded_leave_room_for_others_in_memory() -> None:
    service = JobStateMachine(ServiceRules())
    names = [f"{number:03d}" for number in range(WINDOW)]
    service.handle(Accepted(WINDOW + 1), at(0))
    service.handle(Fetched(tuple(map(job, names)), frozenset(), WINDOW), at(0))
    steps = [step for name in names for step in service.handle(Observed(name, STACK), at(0))]
    assert sum(isinstance(step, Expand) for step in steps) == WINDOW
    assert any(isinstance(step, Fetch) for step in steps), "their frames come behind them in the queue"
