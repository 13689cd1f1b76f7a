"""Waiting for the reports of a run: it ends as soon as it can, and never fails."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from bluesky.utils import ProgressBar

from petif_bluesky import PETifConverter
from petif_bluesky.server_poller import ServerState
from petif_bluesky.testing.fake_server import PATIENCE, FakeServer
from tango_server.messages import RunStatistics

RUN = "run"


@pytest.fixture
def server() -> FakeServer:
    server = FakeServer()
    server.converts = False
    server.prompt = False
    return server


@pytest.fixture
def begin(converter: PETifConverter) -> Callable[..., Any]:
    """Trigger the converter for a run with so many frames."""

    def trigger(frames: int = 0, run_uid: str = RUN) -> Any:
        converter.runs.announce(run_uid)
        for number in range(frames):
            converter.runs.add(run_uid, str(number))
        converter.current_run = run_uid
        return converter.trigger()

    return trigger


def statistics(**numbers: Any) -> RunStatistics:
    return RunStatistics(**{"run_uid": RUN, **numbers})


def readings(converter: PETifConverter, *names: str) -> list[Any]:
    values = converter.read()
    return [values[f"converter_{name}"]["value"] for name in names]


def finish(status: Any) -> None:
    """Wait for a status; it must have ended without an error."""
    status.wait(PATIENCE)
    assert status.success


def test_converter_without_a_run_is_done_at_once(converter: PETifConverter, server: FakeServer) -> None:
    finish(converter.trigger())
    assert server.listeners == {}


def test_done_when_every_frame_has_a_report(
    converter: PETifConverter, server: FakeServer, begin: Callable[..., Any]
) -> None:
    status = begin(frames=4)
    server.tell(RUN, statistics(submitted=4, converted=1, skipped=1, placeholders=1, pending=1))
    assert not status.done
    server.tell(RUN, statistics(submitted=4, converted=1, skipped=1, placeholders=1, failed=1))
    finish(status)
    assert readings(converter, "submitted", "converted", "skipped", "placeholders", "failed", "drained") == [
        4, 1, 1, 1, 1, True,
    ]  # fmt: skip


def test_all_statistics_are_read(converter: PETifConverter, server: FakeServer, begin: Callable[..., Any]) -> None:
    status = begin()
    numbers = {
        "submitted": 10, "converted": 1, "skipped": 2, "placeholders": 3, "failed": 4,
        "conversion_time_total": 5.5, "conversion_time_mean": 6.5, "latency_median": 7.5, "latency_p95": 8.5,
    }  # fmt: skip
    server.tell(RUN, statistics(**numbers))
    finish(status)
    assert dict(zip(numbers, readings(converter, *numbers), strict=True)) == numbers
    assert {reading["timestamp"] for reading in converter.read().values()} == {
        converter.read()["converter_drained"]["timestamp"]
    }


def test_run_without_frames_is_done_at_the_first_poll(
    converter: PETifConverter, server: FakeServer, begin: Callable[..., Any]
) -> None:
    status = begin(frames=0)
    assert not status.done
    server.tell(RUN, statistics())
    finish(status)
    assert readings(converter, "submitted", "drained") == [0, True]


def test_waits_for_a_combined_frame_whose_members_are_known(
    converter: PETifConverter, server: FakeServer, begin: Callable[..., Any]
) -> None:
    """It is made anew."""
    converter.begin_run(begin, combines=True)
    status = begin(frames=4)
    server.tell(RUN, statistics(submitted=4, grouped=3, superseded=1, groups=1, pending=1))
    assert not status.done
    server.tell(RUN, statistics(submitted=4, grouped=3, superseded=1, groups=1))
    finish(status)
    assert readings(converter, "grouped", "superseded", "groups", "groups_failed", "drained") == [3, 1, 1, 0, True]


def test_members_of_open_groups_are_waited_for_only_at_the_end(
    converter: PETifConverter, server: FakeServer, begin: Callable[..., Any]
) -> None:
    status = begin(frames=5)
    converter.runs.note_open_groups(RUN, 2)
    server.tell(RUN, statistics(submitted=5, grouped=3, groups=1, pending=3))
    finish(status)
    converter.runs.release(RUN)
    at_the_end = begin()
    server.tell(RUN, statistics(submitted=5, grouped=3, groups=1, pending=3))
    assert not at_the_end.done
    server.tell(RUN, statistics(submitted=5, grouped=5, groups=2))
    finish(at_the_end)


def test_waits_for_frames_not_yet_on_the_server(
    converter: PETifConverter, server: FakeServer, begin: Callable[..., Any]
) -> None:
    status = begin(frames=3)
    server.tell(RUN, statistics(submitted=2, converted=2))
    assert not status.done
    converter.runs.add(RUN, "one more")
    server.tell(RUN, statistics(submitted=3, converted=3))
    assert not status.done
    server.tell(RUN, statistics(submitted=4, converted=4))
    finish(status)
    assert readings(converter, "submitted") == [4]


def test_waits_for_frames_of_another_session(
    converter: PETifConverter, server: FakeServer, begin: Callable[..., Any]
) -> None:
    status = begin(frames=0)
    server.tell(RUN, statistics(submitted=2, converted=1, pending=1))
    assert not status.done
    server.tell(RUN, statistics(submitted=2, converted=2))
    finish(status)
    assert readings(converter, "submitted", "drained") == [2, True]


def test_done_after_the_timeout_with_partial_statistics(
    converter: PETifConverter, server: FakeServer, begin: Callable[..., Any]
) -> None:
    converter.drain_timeout = 0.3
    server.on_follow = lambda: server.tell(RUN, statistics(submitted=4, converted=3, pending=1))
    status = begin(frames=5)
    assert not status.done
    finish(status)
    assert readings(converter, "submitted", "converted", "drained") == [5, 3, False]
    server.tell(RUN, statistics(submitted=5, converted=5))
    assert readings(converter, "converted", "drained") == [3, False]


@pytest.mark.parametrize("converts", [True, False])
def test_zero_timeout_is_allowed(
    converts: bool, converter: PETifConverter, server: FakeServer, begin: Callable[..., Any]
) -> None:
    converter.drain_timeout = 0.0
    server.converts = converts
    finish(begin(frames=1))
    assert readings(converter, "drained") == [False]
    server.until(lambda: server.listeners == {})


def test_early_timeout_leaves_no_listener(
    converter: PETifConverter, server: FakeServer, begin: Callable[..., Any]
) -> None:
    ended = threading.Event()
    server.on_follow = lambda: server.tell(RUN, None) or ended.set()
    finish(begin(frames=1))
    assert ended.is_set()
    assert server.listeners == {}
    assert readings(converter, "submitted", "drained") == [1, False]


@pytest.mark.parametrize("prompt", [True, False], ids=["told-at-once", "never-told"])
def test_done_at_once_if_the_server_is_down(
    prompt: bool, converter: PETifConverter, server: FakeServer, begin: Callable[..., Any]
) -> None:
    server.prompt = prompt
    server.go_down()
    status = begin(frames=2)
    assert status.done
    finish(status)
    assert readings(converter, "submitted", "converted", "drained") == [2, 0, False]
    assert server.listeners == {}


def test_outage_ends_the_wait_with_the_last_statistics(
    converter: PETifConverter, server: FakeServer, begin: Callable[..., Any]
) -> None:
    status = begin(frames=2)
    server.tell(RUN, statistics(submitted=2, converted=1, pending=1))
    server.tell(RUN, None)
    assert status.done
    finish(status)
    assert readings(converter, "submitted", "converted", "drained") == [2, 1, False]


def test_through_outages_waits_until_the_timeout(converter: PETifConverter, server: FakeServer) -> None:
    converter.runs.add(RUN, "frame")
    server.go_down()
    finish(converter.drain(RUN, timeout=0.05, through_outages=True))
    assert readings(converter, "submitted", "drained") == [1, False]
    status = converter.drain(RUN, timeout=PATIENCE, through_outages=True)
    server.tell(RUN, None)
    assert not status.done
    server.go_up()
    server.tell(RUN, statistics(submitted=1, converted=1))
    finish(status)
    assert readings(converter, "converted", "drained") == [1, True]


def test_waits_for_a_server_not_polled_yet(
    converter: PETifConverter, server: FakeServer, begin: Callable[..., Any]
) -> None:
    server.state = ServerState()
    status = begin(frames=1)
    assert not status.done
    server.tell(RUN, statistics(submitted=1, converted=1))
    finish(status)
    assert readings(converter, "drained") == [True]


@pytest.mark.parametrize("last", [statistics(submitted=1, converted=1), None], ids=["drained", "server-lost"])
def test_no_listener_is_left_when_done(
    last: RunStatistics | None, server: FakeServer, begin: Callable[..., Any]
) -> None:
    status = begin(frames=1)
    assert [run_uid for run_uid, _ in server.listeners.values()] == [RUN]
    server.tell(RUN, last)
    finish(status)
    assert server.listeners == {}
    assert all(timer.finished.is_set() for timer in status._timers)


def test_simultaneous_ends_finish_once(server: FakeServer, begin: Callable[..., Any]) -> None:
    status = begin(frames=1)
    ((_, listener),) = server.listeners.values()
    calls: list[str] = []
    status.add_callback(lambda _status: calls.append("done"))
    errors: list[Exception] = []
    start = threading.Barrier(8)

    def end(number: int) -> None:
        start.wait(PATIENCE)
        try:
            listener(None if number % 2 else statistics(submitted=1, converted=1))
        except Exception as error:  # noqa: BLE001 - to be seen by the test
            errors.append(error)

    threads = [threading.Thread(target=end, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    finish(status)
    assert (calls, errors) == (["done"], [])


def test_several_can_wait_for_the_same_run(
    converter: PETifConverter, server: FakeServer, begin: Callable[..., Any]
) -> None:
    waiting = [begin(frames=1) for _ in range(3)]
    server.tell(RUN, statistics(submitted=1, converted=1))
    for status in waiting:
        finish(status)
    assert readings(converter, "converted") == [1]


def test_runs_are_waited_for_independently(
    converter: PETifConverter, server: FakeServer, begin: Callable[..., Any]
) -> None:
    first, second = begin(frames=1, run_uid="first"), begin(frames=2, run_uid="second")
    server.tell("second", statistics(run_uid="second", submitted=2, converted=2))
    finish(second)
    assert readings(converter, "submitted") == [2]
    assert not first.done
    server.tell("first", statistics(run_uid="first", submitted=1, failed=1))
    finish(first)
    assert readings(converter, "submitted", "failed", "drained") == [1, 1, True]


def test_watchers_get_the_progress(server: FakeServer, begin: Callable[..., Any]) -> None:
    status = begin(frames=4)
    told: list[dict[str, Any]] = []
    status.watch(lambda **progress: told.append(progress) if "current" in progress else None)
    for converted in (0, 1, 4):
        server.tell(RUN, statistics(submitted=4, converted=converted))
    finish(status)
    assert [(progress["current"], progress["target"], progress["fraction"]) for progress in told] == [
        (0, 4, 1.0), (1, 4, 0.75), (4, 4, 0.0),
    ]  # fmt: skip
    assert {(progress["name"], progress["initial"], progress["unit"]) for progress in told} == {
        ("converter", 0, "frames")
    }
    assert [progress["time_remaining"] is None for progress in told] == [True, False, False]
    assert told[1]["time_remaining"] == pytest.approx(3 * told[1]["time_elapsed"])
    assert told[2]["time_remaining"] == 0


def test_works_with_blueskys_progress_bar(
    server: FakeServer, begin: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    status = begin(frames=4)
    bar = ProgressBar([status], delay_draw=0)
    server.tell(RUN, statistics(submitted=4, converted=1, failed=1))
    shown = capsys.readouterr().out
    assert "converter" in shown
    assert "50%" in shown
    server.tell(RUN, statistics(submitted=4, converted=3, failed=1))
    finish(status)
    bar.clear()


def test_failing_watcher_does_not_affect_others(
    converter: PETifConverter, server: FakeServer, begin: Callable[..., Any]
) -> None:
    status = begin(frames=1)
    told: list[int] = []

    def fail(**_: Any) -> None:
        raise RuntimeError("the window was closed")

    status.watch(fail)
    status.watch(lambda current=-1, **_: told.append(current))
    server.tell(RUN, statistics(submitted=1, converted=1))
    finish(status)
    assert told[0] == 1
    assert readings(converter, "drained") == [True]
