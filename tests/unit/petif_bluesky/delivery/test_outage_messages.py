"""Log messages about an outage of the server: one when it begins, one when it is over."""

from pathlib import Path

import pytest

from petif_bluesky.delivery.sender import OutageReporter
from tango_server.client.client import LinkDownError, ServerFullError


class Clock:
    now = 1.7e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reporter(clock: Clock) -> OutageReporter:
    return OutageReporter(Path("/state/spool.sqlite"), clock=clock)


def one() -> int:
    return 1


def test_outage_is_logged_once_with_count_path_and_reason(
    reporter: OutageReporter, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for waiting in (3, 50, 200):
        reporter.failed(lambda waiting=waiting: waiting, LinkDownError("no answer. Start it with `petif serve`."))
        clock.now += 30
    (record,) = caplog.records
    for words in ("3 now", "/state/spool.sqlite", "no frame is lost", "Start it with `petif serve`"):
        assert words in record.getMessage()
    assert record.exc_info is None
    reporter.recovered(lambda: 150)
    assert "150 are still waiting" in caplog.records[-1].getMessage()
    assert "(90 s)" in caplog.records[-1].getMessage()


def test_nothing_is_logged_without_an_outage(reporter: OutageReporter, caplog: pytest.LogCaptureFixture) -> None:
    reporter.recovered(one)
    assert caplog.records == []


def test_alternating_errors_are_logged_once_each(reporter: OutageReporter, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        reporter.failed(one, LinkDownError("gone"))
        reporter.failed(one, ServerFullError("the queue is full"))
    assert len(caplog.records) == 2
    assert "Status" in caplog.records[1].getMessage()
    reporter.recovered(one)
    reporter.failed(one, LinkDownError("gone again"))
    assert "gone again" in caplog.records[-1].getMessage()


def test_unexpected_error_is_logged_with_traceback(reporter: OutageReporter, caplog: pytest.LogCaptureFixture) -> None:
    reporter.failed(one, RuntimeError("what is this"))
    assert caplog.records[0].exc_info is not None


def test_waiting_frames_are_counted_only_for_messages(reporter: OutageReporter) -> None:
    counted: list[int] = []
    for _ in range(100):  # counting a million entries takes a second
        reporter.failed(lambda: counted.append(1) or 10**6, LinkDownError("gone"))
    reporter.recovered(lambda: counted.append(1) or 10**6)
    assert len(counted) == 2
