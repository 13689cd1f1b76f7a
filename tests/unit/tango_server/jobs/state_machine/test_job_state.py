"""How far one job has come: what follows from looks at its file and from attempts at it, and its reports."""

from dataclasses import replace
from itertools import pairwise
from typing import Literal

import pytest

from tango_server.jobs.state_machine.events import AttemptFailed, FailureKind, Observed
from tango_server.jobs.state_machine.job_state import JobState, Sequel
from tango_server.jobs.state_machine.readiness import ReadinessRule
from tango_server.messages import FrameReport
from tests.unit.service_events import COMPLETE, COMPLETE_AGAIN, IFD_FIRST, NO_TIFF, UNFINISHED, at, job

RULE = ReadinessRule(timeout=15.0, settle_time=3.0)
SEEN = Observed("a", COMPLETE)


@pytest.fixture
def progress() -> JobState:
    return JobState(job("a", "run-1"), accepted=100.0)


def failed(kind: FailureKind, reason: str = "why") -> AttemptFailed:
    return AttemptFailed("a", kind, reason)


def begin(progress: JobState) -> None:
    """Do what the service does when a worker gets the job."""
    progress.starts += 1
    progress.attempts += 1


@pytest.mark.parametrize("state", [None, UNFINISHED, IFD_FIRST, NO_TIFF])
def test_a_file_that_is_not_ready_is_awaited(state: None, progress: JobState) -> None:
    assert progress.seen(Observed("a", state), RULE, at(100)).kind == "wait"
    assert progress.complete_seen == 0.0


def test_identity_is_size_and_mtime_at_the_last_check(progress: JobState) -> None:
    assert progress.identity is None
    progress.seen(SEEN, RULE, at(100))
    assert progress.identity == (COMPLETE.size, COMPLETE.mtime_ns)
    progress.seen(Observed("a", COMPLETE_AGAIN), RULE, at(101))
    assert progress.identity == (COMPLETE.size, COMPLETE.mtime_ns + 1)
    progress.seen(Observed("a", None), RULE, at(102))
    assert progress.identity is None


def test_structurally_complete_file_is_complete_since_last_change(progress: JobState) -> None:
    rule = replace(RULE, settle_complete=1.0)
    assert progress.seen(SEEN, rule, at(100)).kind == "wait"
    assert progress.seen(SEEN, rule, at(102)).kind == "ready"
    assert progress.complete_seen == 100.0


def test_any_other_file_is_complete_when_it_was_still_for_long_enough(progress: JobState) -> None:
    look = Observed("a", IFD_FIRST)
    assert progress.seen(look, RULE, at(100)).kind == "wait"
    assert progress.seen(look, RULE, at(104)).kind == "ready"
    assert progress.complete_seen == 104.0


@pytest.mark.parametrize(("state", "expected"), [(COMPLETE, True), (IFD_FIRST, False)], ids=["QXRD", "another"])
def test_a_sidecar_is_expected_of_qxrd_only(state: None, expected: bool, progress: JobState) -> None:
    rule = replace(RULE, settle_time=0.0)
    assert progress.seen(Observed("a", state), rule, at(100)).kind == "ready"
    assert progress.sidecar_expected is expected


def test_a_frame_at_fault_ends_at_once_with_the_reason_as_it_stands(progress: JobState) -> None:
    begin(progress)
    assert progress.attempt_failed(failed("final", "no image"), RULE, 3, 1.0) == Sequel("end", reason="no image")


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_crash_is_retried_until_attempts_are_used_up(attempts: int, progress: JobState) -> None:
    for _ in range(attempts - 1):
        begin(progress)
        assert progress.attempt_failed(failed("crashed"), RULE, attempts, 1.0) == Sequel("ready")
    begin(progress)
    sequel = progress.attempt_failed(failed("crashed", "it died"), RULE, attempts, 1.0)
    assert sequel == Sequel("end", reason=f"/raw/a.tif: gave up after {attempts} attempts: it died")


@pytest.mark.parametrize("kind", ["blocked", "unavailable", "not_ready"])
def test_what_is_no_fault_of_the_frame_uses_up_no_attempt(
    kind: Literal["blocked", "unavailable", "not_ready"], progress: JobState
) -> None:
    for number in range(10):
        begin(progress)
        assert progress.attempt_failed(failed(kind), RULE, 2, 1.0).kind != "end"
        assert (progress.starts, progress.attempts) == (number + 1, 0)
    begin(progress)
    assert progress.attempt_failed(failed("crashed"), RULE, 2, 1.0).kind == "ready"


def test_blocked_output_is_retried_with_backoff_and_given_up(progress: JobState) -> None:
    rule = replace(RULE, timeout=300.0)
    instants = [1000.0]
    begin(progress)
    while (sequel := progress.attempt_failed(failed("blocked", "no space"), rule, 1, instants[-1])).kind == "later":
        instants.append(sequel.again)
        begin(progress)
    pauses = [later - earlier for earlier, later in pairwise(instants)]
    assert pauses[0] == pytest.approx(0.5)
    assert max(pauses) == pytest.approx(10.0)
    assert pauses == sorted(pauses)
    assert 1300.0 <= instants[-1] <= 1310.0
    assert sequel.kind == "end"
    assert sequel.reason == f"gave up after {instants[-1] - 1000:.0f} s: no space"


def test_seemingly_complete_file_is_awaited_until_replaced(progress: JobState) -> None:
    progress.seen(SEEN, RULE, at(100))
    begin(progress)
    assert progress.attempt_failed(failed("not_ready", "strips of zeros"), RULE, 3, 101.0) == Sequel("poll")
    verdict = progress.seen(SEEN, RULE, at(101))
    assert (verdict.kind, verdict.again) == ("wait", 101.5)
    assert progress.seen(Observed("a", COMPLETE_AGAIN), RULE, at(102)).kind == "ready"
    assert progress.complete_seen == 102.0


def test_seemingly_complete_file_fails_with_the_conversion_error(progress: JobState) -> None:
    progress.seen(SEEN, RULE, at(100))
    begin(progress)
    progress.attempt_failed(failed("not_ready", "strips of zeros"), RULE, 3, 101.0)
    assert progress.seen(SEEN, RULE, at(105)).kind == "wait"
    assert progress.seen(SEEN, RULE, at(119.8)).again == pytest.approx(120.0)
    verdict = progress.seen(SEEN, RULE, at(120))
    assert (verdict.kind, verdict.reason) == ("give_up", "strips of zeros")


@pytest.mark.parametrize(("accepted", "complete", "latency"), [(100.0, 90.0, 5.0), (100.0, 103.0, 2.0)])
def test_latency_counts_from_the_later_of_acceptance_and_completion(
    accepted: float, complete: float, latency: float
) -> None:
    progress = JobState(job("a"), accepted, complete_seen=complete)
    report = progress.completed(FrameReport(source="/raw/a.tif", outcome="converted", finished=0.0), at(105))
    assert report.latency == latency
    assert report.finished == at(105).wall


@pytest.mark.parametrize("outcome", ["skipped", "placeholder"])
def test_only_a_converted_frame_has_a_latency(outcome: Literal["skipped", "placeholder"], progress: JobState) -> None:
    report = progress.completed(FrameReport(source="/raw/a.tif", outcome=outcome, finished=0.0), at(105))
    assert (report.outcome, report.latency, report.run_uid) == (outcome, None, "run-1")


@pytest.mark.parametrize("reason", ["no image", "/raw/a.tif: no image"])
def test_a_failure_names_its_file_once(reason: str, progress: JobState) -> None:
    assert progress.failed(reason, at(105)).reason == "/raw/a.tif: no image"


def test_a_file_that_could_not_be_read_is_given_up_with_the_reason(progress: JobState) -> None:
    look = Observed("a", None, "it can't be opened (Permission denied)")
    assert progress.seen(look, RULE, at(100)).kind == "wait"
    assert "it can't be opened (Permission denied)" in progress.seen(look, RULE, at(115)).reason


def test_a_sidecar_that_is_needed_is_awaited_for_its_time(progress: JobState) -> None:
    without = Observed("a", COMPLETE, lacks_sidecar=True)
    assert progress.seen(without, RULE, at(100), 2.0).kind == "wait"
    assert progress.seen(without, RULE, at(101.9), 2.0).kind == "wait"
    assert progress.seen(without, RULE, at(102), 2.0).kind == "ready"
