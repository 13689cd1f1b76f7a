"""Workers that can't be started: told once, tried again after pauses, by a hand-made clock."""

import logging
from concurrent.futures import BrokenExecutor

import pytest

from tango_server.jobs.executors.start_backoff import PAUSES, StartBackoff


class Clock:
    """Reads what it was set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def starts(clock: Clock) -> StartBackoff:
    return StartBackoff(clock)


def pauses(starts: StartBackoff, clock: Clock, failures: int) -> list[float]:
    """Let one start after the other fail; return how long each time none could begin."""
    found = []
    for _ in range(failures):
        starts.failed(MemoryError())
        began = clock.now
        while not starts.may_begin():
            clock.now += 0.25
        found.append(clock.now - began)
    return found


def test_at_first_nothing_is_against_it(starts: StartBackoff) -> None:
    assert starts.may_begin()
    assert not starts.problem


def test_pauses_grow_and_have_an_end(starts: StartBackoff, clock: Clock) -> None:
    found = pauses(starts, clock, 8)
    assert found[0] == PAUSES.shortest
    assert found == sorted(found)
    assert found[-2:] == [PAUSES.longest] * 2


def test_workers_that_fail_together_make_no_longer_pause_than_one(starts: StartBackoff, clock: Clock) -> None:
    for _ in range(8):
        starts.failed(MemoryError())
    clock.now += PAUSES.shortest
    assert starts.may_begin()


def test_worker_that_becomes_ready_ends_the_problem(starts: StartBackoff, clock: Clock) -> None:
    pauses(starts, clock, 5)
    starts.failed(MemoryError())
    starts.succeeded()
    assert starts.may_begin()
    assert not starts.problem
    assert pauses(starts, clock, 1) == [PAUSES.shortest]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ImportError("No module named 'cv2'"), "ImportError: No module named 'cv2'"),
        (BrokenExecutor("a child process terminated"), "it ended before it was ready"),
        (BlockingIOError(11, "Resource temporarily unavailable"), "Resource temporarily unavailable"),
    ],
    ids=["import", "died", "no process"],
)
def test_problem_names_the_cause_and_the_remedy(starts: StartBackoff, error: Exception, words: str) -> None:
    starts.failed(error)
    assert words in starts.problem
    assert "the installation and the memory of this host" in starts.problem


def test_it_is_logged_once_and_its_end_too(
    starts: StartBackoff, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    starts.succeeded()
    assert not caplog.records
    pauses(starts, clock, 5)
    (failed,) = caplog.records
    assert failed.levelno == logging.ERROR
    starts.succeeded()
    starts.succeeded()
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
