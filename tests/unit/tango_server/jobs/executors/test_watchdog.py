"""Tasks that take too long are noticed, each once, and only those."""

import logging
import threading
from collections.abc import Iterator
from time import monotonic

import pytest

from tango_server.jobs.executors.watchdog import Watchdog

_PATIENCE = 10.0


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    dog = Watchdog(0.1)
    yield dog
    dog.close()


def test_overdue_task_is_reported_once_and_not_too_early(watchdog: Watchdog) -> None:
    calls: list[float] = []
    second = threading.Event()
    begun = monotonic()
    watchdog.watch(lambda: calls.append(monotonic()))
    watchdog.watch(second.set)
    assert second.wait(_PATIENCE)
    assert len(calls) == 1
    assert calls[0] - begun >= 0.1


def test_cancelled_watch_is_not_reported(watchdog: Watchdog) -> None:
    called_off, later = threading.Event(), threading.Event()
    watchdog.watch(called_off.set)()
    watchdog.watch(later.set)
    assert later.wait(_PATIENCE)
    assert not called_off.is_set()


def test_calling_off_what_is_over_does_no_harm(watchdog: Watchdog) -> None:
    over, next_one = threading.Event(), threading.Event()
    call_off = watchdog.watch(over.set)
    assert over.wait(_PATIENCE)
    call_off()
    watchdog.watch(next_one.set)
    assert next_one.wait(_PATIENCE)


def test_a_task_that_can_not_be_ended_costs_the_others_nothing(
    watchdog: Watchdog, caplog: pytest.LogCaptureFixture
) -> None:
    other = threading.Event()

    def fail() -> None:
        raise RuntimeError("no such process")

    with caplog.at_level(logging.ERROR):
        watchdog.watch(fail)
        watchdog.watch(other.set)
        assert other.wait(_PATIENCE)
    assert "no such process" in caplog.text


def test_nothing_is_reported_after_the_end() -> None:
    told = threading.Event()
    watchdog = Watchdog(0.05)
    watchdog.watch(told.set)
    watchdog.close()
    assert not told.wait(0.2)


def test_a_task_of_many_frames_has_as_many_times_the_limit(watchdog: Watchdog) -> None:
    begun, found = monotonic(), []
    long_over, over = threading.Event(), threading.Event()
    watchdog.watch(lambda: (found.append(monotonic() - begun), long_over.set()), times=4)
    watchdog.watch(over.set)
    assert over.wait(_PATIENCE)
    assert not long_over.is_set(), "a later task with less time is noticed first"
    assert long_over.wait(_PATIENCE)
    assert found[0] >= 0.4
