"""The darks of a run are awaited as frames are, with events and hand-made readings of the clocks."""

from dataclasses import replace
from pathlib import Path

import pytest

from tango_server.conversion.errors import OutputWriteError
from tango_server.conversion.file_state import FileState
from tango_server.conversion.sidecar import sidecar_error
from tango_server.jobs.state_machine.events import (
    AttemptFailed,
    Convert,
    Observe,
    Observed,
    ObservedDark,
    SidecarObserved,
    TimePassed,
)
from tango_server.jobs.state_machine.machine import JobStateMachine
from tango_server.jobs.state_machine.rules import ServiceRules
from tango_server.recipe import Recipe
from tango_server.recipe.corrections import DARK_FACTS, Corrections
from tests.unit.service_events import (
    COMPLETE,
    COMPLETE_AGAIN,
    IFD_FIRST,
    UNFINISHED,
    LedgerService,
    accepted,
    at,
    converted,
    fetched,
    job,
    looks,
    make_ready,
    reports,
    starts,
)

DARK = Path("/raw/dark.tif")


@pytest.fixture
def service() -> JobStateMachine:
    """One worker; placeholders for frames that never come; waits of 15 s, or 300 s for a run."""
    service = LedgerService(ServiceRules(workers=1, placeholders=True))
    service.handle(accepted("a", run_uid="run-1"), at(0))
    return service


def seen(dark: FileState | None, *, problem: str = "", lacks_sidecar: bool = False) -> Observed:
    """A poll of a complete frame whose dark is as given."""
    return Observed("a", COMPLETE, darks=(ObservedDark(DARK, dark, problem, lacks_sidecar),))


def test_a_frame_with_a_complete_dark_is_converted_at_once(service: JobStateMachine) -> None:
    assert service.handle(seen(COMPLETE), at(1)) == [Convert(job("a", "run-1"), 1)]


@pytest.mark.parametrize("dark", [None, UNFINISHED], ids=["missing", "unfinished"])
def test_a_frame_waits_for_its_dark_and_occupies_no_worker(dark: FileState | None, service: JobStateMachine) -> None:
    assert service.handle(seen(dark), at(1)) == []
    assert make_ready(service, "b", seconds=2) == ["b"]
    service.handle(converted("b"), at(3))
    due = service.next_poll
    assert due is not None
    assert looks(service.handle(TimePassed(), at(due))) == ["a"]
    assert starts(service.handle(seen(COMPLETE), at(due))) == ["a"]


def test_an_awaited_dark_is_named(service: JobStateMachine) -> None:
    service.handle(Observed("a", None), at(1))
    service.handle(seen(UNFINISHED), at(11))
    (awaited,) = service.awaited(["a"], 12)
    assert str(DARK) in awaited.reason
    assert UNFINISHED.problem in awaited.reason
    assert awaited.remaining == 299
    service.handle(replace(seen(None), state=UNFINISHED), at(12))
    (awaited,) = service.awaited(["a"], 12)
    assert awaited.reason == UNFINISHED.problem, "first of all the frame itself is awaited"


def test_a_dark_that_never_comes_fails_its_frame_which_is_no_placeholder(service: JobStateMachine) -> None:
    service.handle(seen(None), at(1))
    assert not reports(service.handle(seen(None), at(300.9)))
    (report,) = reports(service.handle(seen(None), at(301)))
    assert report.outcome == "failed"
    assert report.reason.startswith("/raw/a.tif: ")
    assert all(fact in report.reason for fact in (str(DARK), "300 s", "no such file"))


def test_time_of_a_dark_counts_from_when_the_frame_came(service: JobStateMachine) -> None:
    service.handle(Observed("a", None), at(0))
    service.handle(seen(None), at(299))
    assert service.handle(seen(None), at(301)) == []
    assert starts(service.handle(seen(COMPLETE), at(598))) == ["a"]


def test_a_frame_that_never_comes_is_a_placeholder_without_its_dark(service: JobStateMachine) -> None:
    service.handle(Observed("a", None), at(0))
    (step,) = service.handle(Observed("a", None), at(300))
    assert isinstance(step, Convert)
    assert step.placeholder == (2048, 2048)


def test_a_dark_whose_structure_proves_nothing_must_settle(service: JobStateMachine) -> None:
    assert service.handle(seen(IFD_FIRST), at(1)) == []
    assert service.handle(seen(replace(IFD_FIRST, mtime_ns=1)), at(3.5)) == []
    assert service.handle(seen(replace(IFD_FIRST, mtime_ns=1)), at(6)) == []
    assert starts(service.handle(seen(replace(IFD_FIRST, mtime_ns=1)), at(6.5))) == ["a"]


def test_all_darks_are_awaited(service: JobStateMachine) -> None:
    def both(second: FileState | None) -> Observed:
        return Observed(
            "a", COMPLETE, darks=(ObservedDark(DARK, COMPLETE), ObservedDark(Path("/raw/dark2.tif"), second))
        )

    assert service.handle(both(None), at(1)) == []
    assert starts(service.handle(both(COMPLETE), at(2))) == ["a"]


def test_sidecar_of_a_dark_is_awaited_for_its_time_once_the_dark_is_there(service: JobStateMachine) -> None:
    service.handle(Observed("a", None), at(0))
    service.handle(seen(UNFINISHED), at(1))
    assert service.handle(seen(COMPLETE, lacks_sidecar=True), at(10)) == []
    assert "sidecar" in service.awaited(["a"], 10)[0].reason
    assert service.handle(seen(COMPLETE, lacks_sidecar=True), at(11.9)) == []
    assert starts(service.handle(seen(COMPLETE, lacks_sidecar=True), at(12))) == ["a"]


def test_sidecars_of_frame_and_dark_are_awaited_at_the_same_time(service: JobStateMachine) -> None:
    poll = replace(seen(COMPLETE, lacks_sidecar=True), lacks_sidecar=True)
    assert service.handle(poll, at(1)) == []
    assert starts(service.handle(poll, at(3))) == ["a"]


def test_a_dark_that_cannot_be_read_is_awaited_and_its_problem_named(service: JobStateMachine) -> None:
    service.handle(seen(None, problem="it can't be opened"), at(1))
    (report,) = reports(service.handle(seen(None, problem="it can't be opened"), at(301)))
    assert "it can't be opened" in report.reason


def test_darks_are_awaited_anew_when_their_file_system_is_back(service: JobStateMachine) -> None:
    service.handle(seen(None), at(1))
    service.handle(AttemptFailed("a", "away", "not mounted"), at(290))
    service.handle(seen(None), at(310))
    assert not reports(service.handle(seen(None), at(609)))
    assert starts(service.handle(seen(COMPLETE_AGAIN), at(609.5))) == ["a"]


def test_a_dark_that_was_complete_is_not_checked_for_the_next_frames(service: JobStateMachine) -> None:
    def fetch(name: str, seconds: float) -> tuple[Path, ...]:
        corrections = Corrections(dark=str(DARK))
        one = job(name, "run-1", recipe=Recipe(corrections=corrections), metadata={DARK_FACTS: {}})
        steps = service.handle(fetched((replace(one, corrections=corrections),)), at(seconds))
        (look,) = [step for step in steps if isinstance(step, Observe)]
        return look.darks

    assert fetch("b", 1) == (DARK,)
    service.handle(replace(seen(UNFINISHED), job_id="b"), at(1))
    assert fetch("c", 2) == (DARK,)
    service.handle(replace(seen(COMPLETE), job_id="b"), at(3))
    for seconds in (4.0, 50.0, 100.0):  # each needs it
        assert fetch(f"d{seconds}", seconds) == ()
    assert fetch("e", 161) == (DARK,)


NOTE = "the exposure of the dark is unknown."


@pytest.mark.parametrize("problem", ["", "the sidecar could not be copied: the disk is full"])
def test_notes_of_the_conversion_stay_when_the_sidecar_comes(problem: str, service: JobStateMachine) -> None:
    service.handle(seen(COMPLETE), at(1))
    earlier = sidecar_error(OutputWriteError("/processed/a.tif.metadata", "the disk is full", "Make room."))
    service.handle(converted("a", sidecar="absent", reason=f"{NOTE} {earlier}"), at(2))
    service.handle(SidecarObserved("a", carried=False, problem="not yet"), at(2.1))
    (report,) = reports(service.handle(SidecarObserved("a", carried=not problem, problem=problem), at(4)))
    assert report.reason == f"{NOTE} {problem}".strip()


def test_notes_of_the_conversion_stay_when_the_sidecar_is_refused(service: JobStateMachine) -> None:
    service.handle(seen(COMPLETE), at(1))
    service.handle(converted("a", sidecar="absent", reason=NOTE), at(2))
    (report,) = reports(service.handle(AttemptFailed("a", "final", "a symbolic link"), at(2.1)))
    assert report.reason == f"{NOTE} a symbolic link"
