"""When the companions of scans are written."""

from pathlib import Path

import pytest

from tango_server.jobs.job import Job
from tango_server.jobs.state_machine.companion_schedule import PAUSES, CompanionSchedule
from tango_server.jobs.state_machine.events import (
    AttemptDone,
    Convert,
    Ending,
    Fetched,
    Observed,
    TimePassed,
    WriteCompanions,
)
from tango_server.jobs.state_machine.machine import JobStateMachine
from tango_server.jobs.state_machine.rules import ServiceRules
from tango_server.messages import FrameReport
from tango_server.recipe import Recipe
from tests.unit.service_events import COMPLETE, LedgerService, at, job

ESPERANTO = Recipe.preset("esperanto", esperanto={"omega": 0.0})
FIRST = Path("/processed/a/a_1_1.esperanto")


@pytest.fixture
def service() -> LedgerService:
    return LedgerService(ServiceRules())


def frame(name: str) -> Job:
    return job(name, recipe=ESPERANTO)


def test_they_are_due_when_the_frames_have_paused() -> None:
    scans = CompanionSchedule()
    assert scans.next is None
    scans.converted(frame("1"), str(FIRST), 10.0)
    scans.converted(frame("2"), str(FIRST.with_name("a_1_2.esperanto")), 11.0)
    assert scans.next == 11.0 + PAUSES.shortest
    assert scans.take_due(12.9) == []
    assert scans.take_due(13.0) == [WriteCompanions(frame("2"), FIRST.with_name("a_1_2.esperanto"))]
    assert scans.take_due(99.0) == []
    scans.converted(frame("3"), str(FIRST), 20.0)
    assert scans.take_due(20.0 + PAUSES.shortest) == []
    assert len(scans.take_due(20.0 + 2 * PAUSES.shortest)) == 1


def test_slow_scans_are_not_read_again_for_each_frame() -> None:
    scans = CompanionSchedule()
    written = 0
    for number in range(100):  # a frame every ten seconds
        scans.converted(frame(str(number)), str(FIRST), 10.0 * number)
        written += len(scans.take_due(10.0 * number + 9.9))
    assert written == 3
    assert len(scans.take_due(990.0 + PAUSES.longest)) == 1
    for number in range(3):  # a frame every other minute
        scans.converted(frame(str(number)), str(FIRST), 2000.0 + 120 * number)
        assert len(scans.take_due(2000.0 + 120 * number + PAUSES.longest)) == 1


def test_each_folder_is_a_scan_and_tiffs_are_none() -> None:
    scans = CompanionSchedule()
    scans.converted(frame("1"), str(FIRST), 10.0)
    scans.converted(frame("2"), "/processed/b/b_1_1.esperanto", 11.0)
    scans.converted(job("3"), "/processed/c/c.tif", 11.0)
    assert [step.job.job_id for step in scans.take_due(12.0)] == ["1"]
    assert [step.job.job_id for step in scans.take_all()] == ["2"]
    assert scans.next is None


def converted(service: JobStateMachine) -> None:
    service.handle(Fetched((frame("a"),), frozenset(), 1), at(0))
    service.handle(Observed("a", COMPLETE), at(0.1))
    report = FrameReport(source="/raw/a.tif", output=str(FIRST), outcome="converted", finished=0)
    service.handle(AttemptDone("a", report), at(1))


def test_the_service_asks_for_them(service: LedgerService) -> None:
    converted(service)
    assert service.next_poll == 1 + PAUSES.shortest
    assert service.handle(TimePassed(), at(1 + PAUSES.shortest)) == [WriteCompanions(frame("a"), FIRST)]
    assert service.next_poll is None


def test_at_the_end_they_are_asked_for_at_once(service: LedgerService) -> None:
    converted(service)
    assert service.handle(Ending(), at(1.5)) == [WriteCompanions(frame("a"), FIRST)]


def test_the_pauses_of_a_thousand_folders_are_remembered() -> None:
    scans = CompanionSchedule()
    for number in range(1001):
        scans.converted(frame("1"), f"/processed/{number}/a_1_1.esperanto", 10.0)
        assert len(scans.take_due(10.0 + PAUSES.shortest)) == 1
    for number, due in ((1000, 2 * PAUSES.shortest), (0, PAUSES.shortest)):
        scans.converted(frame("1"), f"/processed/{number}/a_1_2.esperanto", 50.0)
        assert scans.next == 50.0 + due
        assert len(scans.take_all()) == 1


def test_the_service_waits_for_a_sidecar_that_is_needed() -> None:
    service = LedgerService(ServiceRules(sidecar_timeout=2.0))
    service.handle(Fetched((frame("a"),), frozenset(), 1), at(0))
    assert service.handle(Observed("a", COMPLETE, lacks_sidecar=True), at(0)) == []
    (step,) = service.handle(Observed("a", COMPLETE, lacks_sidecar=True), at(2))
    assert isinstance(step, Convert)
