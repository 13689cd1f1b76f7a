"""What people are told while frames pile up before the server: once how it is, once that it is over."""

from pathlib import Path

import pytest

from petif_bluesky.delivery.sender import PileUpReporter
from tango_server.client.client import LinkDownError, ServerFullError


class Clock:
    now = 1.7e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reporter(clock: Clock) -> PileUpReporter:
    return PileUpReporter(Path("/state/spool.sqlite"), clock=clock)


def one() -> int:
    return 1


def test_pile_is_told_once_with_its_height_place_reason_and_remedy(
    reporter: PileUpReporter, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for waiting in (3, 50, 200):
        reporter.stuck(lambda waiting=waiting: waiting, LinkDownError("no answer. Start it with `petif serve`."))
        clock.now += 30
    (record,) = caplog.records
    for words in ("3 frames", "/state/spool.sqlite", "nothing is lost", "Start it with `petif serve`"):
        assert words in record.getMessage()
    assert record.exc_info is None
    reporter.flows(lambda: 150)
    assert "150 more have waited" in caplog.records[-1].getMessage()
    assert "(90 s)" in caplog.records[-1].getMessage()


def test_nothing_is_told_while_all_is_well(reporter: PileUpReporter, caplog: pytest.LogCaptureFixture) -> None:
    reporter.flows(one)
    assert caplog.records == []


def test_kinds_of_trouble_that_take_turns_are_told_once_each(
    reporter: PileUpReporter, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        reporter.stuck(one, LinkDownError("gone"))
        reporter.stuck(one, ServerFullError("the queue is full"))
    assert len(caplog.records) == 2
    assert "look at its Status" in caplog.records[1].getMessage()
    reporter.flows(one)
    reporter.stuck(one, LinkDownError("gone again"))
    assert "gone again" in caplog.records[-1].getMessage()


def test_error_that_nobody_foresaw_comes_with_its_traceback(
    reporter: PileUpReporter, caplog: pytest.LogCaptureFixture
) -> None:
    reporter.stuck(one, RuntimeError("what is this"))
    assert caplog.records[0].exc_info is not None


def test_the_frames_that_wait_are_counted_when_they_are_told_only(reporter: PileUpReporter) -> None:
    counted: list[int] = []
    for _ in range(100):  # a look at a million letters takes a second
        reporter.stuck(lambda: counted.append(1) or 10**6, LinkDownError("gone"))
    reporter.flows(lambda: counted.append(1) or 10**6)
    assert len(counted) == 2
