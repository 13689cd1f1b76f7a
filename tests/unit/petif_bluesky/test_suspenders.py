"""The suspender, fed with what the poller of a server would report; no plan waits for a clock."""

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import pytest
from bluesky import Msg, RunEngine
from bluesky.utils import RunEngineInterrupted

from petif_bluesky import ConversionCallback, ConverterBehind, PETifConverter
from petif_bluesky.testing.fake_server import UP, FakeServer
from tango_server.client.attributes import AttributeReading
from tests.unit.documents import Recorder

START = 1.7e9


class Polled:
    """A fake server whose polls a test makes, at times (s after `START`) that it chooses."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self._reading = itertools.count(START)

    def answers(self, queued: int, at: float = 0.0) -> None:
        readings = {"QueueLength": AttributeReading(queued, next(self._reading))}
        self.server.poll(replace(UP, attributes=readings, seen=START + at, polled=START + at))

    def is_away(self, at: float) -> None:
        self.server.poll(replace(self.server.state, connected=False, error="gone. Start it.", polled=START + at))


@pytest.fixture(params=["classic", "async"])
def device_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def polled(server: FakeServer) -> Polled:
    return Polled(server)


@pytest.fixture
def installed(
    run_engine: RunEngine, converter: PETifConverter, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., ConverterBehind]]:
    """Install a suspender of `converter`; all are removed in the end."""
    monkeypatch.setattr("petif_bluesky.suspenders.time.time", lambda: START)

    def install(*arguments: Any, **options: Any) -> ConverterBehind:
        suspender = ConverterBehind(converter, *arguments, **options)
        run_engine.install_suspender(suspender)
        return suspender

    yield install
    run_engine.clear_suspenders()


def justification(suspender: ConverterBehind) -> str:
    _, text = suspender.get_futures()
    return str(text)


def test_backlog_suspends_until_half_of_it(installed: Callable[..., ConverterBehind], polled: Polled) -> None:
    suspender = installed(200)
    tripped = []
    for queued in (0, 200, 201, 200, 150, 101, 100, 101, 200, 201):
        polled.answers(queued)
        tripped.append(suspender.tripped)
    assert tripped == [False, False, True, True, True, True, False, False, False, True]


def test_default_backlog_is_200_and_no_time_away(installed: Callable[..., ConverterBehind], polled: Polled) -> None:
    suspender = installed()
    polled.answers(200)
    polled.is_away(at=1e6)
    assert not suspender.tripped
    polled.answers(201)
    assert suspender.tripped


def test_server_away_suspends_until_it_answers(installed: Callable[..., ConverterBehind], polled: Polled) -> None:
    suspender = installed(10, away=60)
    polled.answers(1, at=100)
    polled.is_away(at=101)
    polled.is_away(at=160)
    assert not suspender.tripped
    polled.is_away(at=160.5)
    assert suspender.tripped
    assert "away for 60 s (limit 60 s; waiting frames: 1): gone. Start it." in justification(suspender)
    polled.answers(6, at=170)
    assert suspender.tripped  # it has to catch up first
    polled.answers(5, at=171)
    assert not suspender.tripped


def test_server_never_seen_is_away_from_the_installation_on(
    installed: Callable[..., ConverterBehind], polled: Polled, server: FakeServer
) -> None:
    server.state = replace(UP, connected=False, seen=0.0, polled=START - 5, attributes={})
    suspender = installed(away=60)
    polled.is_away(at=60)
    assert not suspender.tripped
    polled.is_away(at=61)
    assert suspender.tripped


def test_frames_that_wait_in_the_session_count(
    installed: Callable[..., ConverterBehind],
    polled: Polled,
    server: FakeServer,
    converter: PETifConverter,
    tmp_path: Path,
) -> None:
    suspender = installed(4)
    polled.answers(3)
    polled.is_away(at=1)
    callback = ConversionCallback(converter, spool=tmp_path / "spool.sqlite")
    callback._spool.put_all([{"key": key, "run_uid": "run", "source": f"/{key}"} for key in "ab"])
    polled.is_away(at=2)
    assert suspender.tripped
    text = justification(suspender)
    assert text.startswith("converter: ")
    assert "5 frames behind (limit 4): 3 in the queue" in text
    assert f"{server.address}, 2 in this session" in text
    assert "resumes at 2" in text
    callback.close()
    assert converter.runs.spooled == 0


def test_installed_late_it_trips_at_once(installed: Callable[..., ConverterBehind], polled: Polled) -> None:
    polled.answers(11)
    assert installed(10).tripped


def test_own_message_is_part_of_the_justification(installed: Callable[..., ConverterBehind], polled: Polled) -> None:
    polled.answers(11)
    suspender = installed(10, tripped_message="Call 1234")
    assert justification(suspender).endswith(": Call 1234")
    polled.answers(0)
    assert (suspender.tripped, justification(suspender)) == (False, "")


def test_removed_suspender_no_longer_watches(
    installed: Callable[..., ConverterBehind], polled: Polled, server: FakeServer, run_engine: RunEngine
) -> None:
    before = dict(server.watchers)
    suspender = installed(10)
    polled.answers(11)
    run_engine.remove_suspender(suspender)
    assert (suspender.tripped, server.watchers, run_engine.suspenders) == (False, before, ())
    polled.answers(12)
    assert not suspender.tripped


def test_plan_waits_and_goes_on_by_itself(
    installed: Callable[..., ConverterBehind],
    polled: Polled,
    run_engine: RunEngine,
    recorder: Recorder,
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    suspender = installed(10)
    monkeypatch.setattr(run_engine, "record_interruptions", True)
    suspended = threading.Event()

    def catch_up(msg: Msg) -> None:
        if msg.command == "wait_for":  # the RunEngine is about to wait for the suspender
            assert suspender.tripped
            suspended.set()
            polled.answers(5)

    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.checkpoint()
        polled.answers(11)
        while not suspended.is_set():
            yield from bps.null()
        yield from bps.close_run()

    run_engine.msg_hook = catch_up
    run_engine(plan())
    texts = [event["data"]["interruption"] for event in recorder.stream("interruptions")]
    assert "11 frames behind (limit 10)" in texts[0]
    assert recorder.of("stop")[0]["exit_status"] == "success"
    assert server.callers == set()


def test_users_pause_does_not_swallow_a_suspension(
    installed: Callable[..., ConverterBehind], polled: Polled, run_engine: RunEngine
) -> None:
    suspender = installed(10)
    with pytest.raises(RunEngineInterrupted):
        run_engine(bps.pause())
    polled.answers(11)
    assert not suspender.tripped
    run_engine.abort()
    polled.answers(11)
    assert suspender.tripped


@pytest.mark.parametrize("limits", [{"backlog": -1}, {"away": -0.5}, {"away": float("nan")}])
def test_invalid_limits_are_refused(limits: dict[str, Any], converter: PETifConverter) -> None:
    (name,) = limits
    with pytest.raises(ValueError, match=f"{name}.*{limits[name]}"):
        ConverterBehind(converter, **limits)
