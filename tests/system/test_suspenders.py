"""The suspender with a real RunEngine and a real server that is paused, resumed, killed and started again."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import tango
from bluesky import RunEngine
from bluesky.plans import count

from petif_bluesky import ConversionCallback, ConversionPreprocessor, ConverterBehind, PETifConverter
from petif_bluesky.server_poller import ServerPoller
from petif_bluesky.sim import SimulatedPerkinElmer
from tango_server.client.client import Client
from tango_server.client.local_server import LocalServer
from tests.system.waiting import PATIENCE, until

BACKLOG = 4
ENOUGH = 400
"""Points of a plan that would last far longer than the server is away; it is stopped by `Session.enough`."""


class Session:
    """A RunEngine with a suspender; its plan takes points until `enough` is set."""

    def __init__(self, engine: RunEngine, root: Path, address: str) -> None:
        self.engine = engine
        self.root = root
        self.poller = ServerPoller(Client(address, 3.0))
        self.converter = PETifConverter(address, name="converter", poller=self.poller)
        self.converter.wait_for_connection(timeout=20)
        self.callback = ConversionCallback(self.converter, spool=root / "spool.sqlite")
        self.detector = SimulatedPerkinElmer(name="pe", directory=root / "raw", shape=(64, 64), exposure_time=0.05)
        self.enough = threading.Event()
        self.documents: list[tuple[str, dict[str, Any]]] = []
        engine.record_interruptions = True
        engine.subscribe(self.callback)
        engine.subscribe(lambda name, document: self.documents.append((name, document)))
        engine.preprocessors.append(ConversionPreprocessor(self.converter, recipe="xdi"))

    def run(self, operator: Callable[[], None]) -> None:
        """Run the plan while `operator` acts in a thread of its own; raise what that raised."""
        errors: list[BaseException] = []

        def act() -> None:
            try:
                operator()
            except BaseException as error:  # noqa: BLE001 - raised in the test's own thread
                errors.append(error)
            finally:
                self.enough.set()
                self.engine.clear_suspenders()

        thread = threading.Thread(target=act)
        thread.start()
        try:
            self.engine(self.plan())
        finally:
            thread.join(PATIENCE)
        assert errors == []

    def plan(self) -> Any:
        """Return `count`, until there are enough points."""

        def per_shot(*arguments: Any) -> Any:
            if not self.enough.is_set():
                yield from one_shot(*arguments)

        from bluesky.plan_stubs import one_shot

        return count([self.detector], ENOUGH, per_shot=per_shot)

    @property
    def points(self) -> int:
        return len(self.frames())

    def frames(self) -> list[str]:
        """The files that the run has; the point that a suspension interrupts is taken again, as another file."""
        return sorted(data["pe_full_file_name"] for data in self.events("primary"))

    def events(self, stream: str) -> list[dict[str, Any]]:
        documents = list(self.documents)
        uids = {doc["uid"] for name, doc in documents if name == "descriptor" and doc["name"] == stream}
        return [doc["data"] for name, doc in documents if name == "event" and doc["descriptor"] in uids]

    def interruptions(self) -> list[str]:
        return [data["interruption"] for data in self.events("interruptions")]

    def check_that_every_frame_is_converted(self) -> None:
        (stop,) = [document for name, document in self.documents if name == "stop"]
        assert stop["exit_status"] == "success"
        until(lambda: self.callback.waiting == 0, "the server has accepted every frame")

        def sources() -> list[str]:
            reports = self.poller.client.reports_of_run(stop["run_start"])
            return sorted(report.source for report in reports if report.outcome == "converted")

        until(lambda: sources() == self.frames(), "every frame is converted once")

    def close(self) -> None:
        self.callback.close()
        self.poller.close()


@pytest.fixture
def open_session(run_engine: RunEngine, root: Path) -> Iterator[Callable[[str], Session]]:
    opened: list[Session] = []

    def open_(address: str) -> Session:
        opened.append(Session(run_engine, root, address))
        return opened[-1]

    yield open_
    for session in opened:
        session.close()


@contextmanager
def polls(session: Session) -> Iterator[Callable[[int], None]]:
    """Return a function that waits for so many further polls of the server."""
    polled = threading.Semaphore(0)
    unwatch = session.poller.watch(lambda _state: polled.release())

    def wait(number: int) -> None:
        for _ in range(number):
            assert polled.acquire(timeout=PATIENCE)

    yield wait
    unwatch()


def test_paused_server_with_a_backlog_suspends_the_plan(
    open_session: Callable[[str], Session], server: LocalServer, proxy: tango.DeviceProxy
) -> None:
    session = open_session(server.address)
    suspender = ConverterBehind(session.converter, backlog=BACKLOG)
    session.engine.install_suspender(suspender)
    proxy.Pause()

    def operate() -> None:
        until(lambda: suspender.tripped, "the plan is suspended")
        with polls(session) as wait:
            wait(1)
            points = session.points
            wait(2)
        assert suspender.tripped
        assert session.points == points > BACKLOG
        proxy.Resume()
        until(lambda: not suspender.tripped, "the plan is released")
        until(lambda: session.points >= points + 2, "the plan goes on")

    session.run(operate)
    session.check_that_every_frame_is_converted()
    first = session.interruptions()[0]
    assert f"(limit {BACKLOG})" in first
    assert server.address in first


@pytest.mark.long
def test_server_away_for_longer_suspends_until_it_is_back(
    open_session: Callable[[str], Session], start_server: Callable[..., LocalServer]
) -> None:
    first = start_server("--port", "0")
    session = open_session(first.address)
    suspender = ConverterBehind(session.converter, backlog=1000, away=1.0)
    session.engine.install_suspender(suspender)

    def operate() -> None:
        until(lambda: session.points >= 2, "the plan takes points")
        psutil.Process(first.pid).kill()
        until(lambda: suspender.tripped, "the plan is suspended")
        with polls(session) as wait:
            wait(1)
            points = session.points
            wait(2)
        assert session.points == points
        first.stop()
        start_server("--port", first.address.split(":")[2].split("/")[0])
        until(lambda: not suspender.tripped, "the plan is released")
        until(lambda: session.points >= points + 2, "the plan goes on")

    session.run(operate)
    session.check_that_every_frame_is_converted()
    (text, *_) = session.interruptions()
    assert "limit 1 s" in text
    assert "petif serve" in text


@pytest.mark.long
def test_run_suspended_while_it_waits_for_reports_has_each_once(
    open_session: Callable[[str], Session], server: LocalServer, proxy: tango.DeviceProxy
) -> None:
    session = open_session(server.address)
    suspender = ConverterBehind(session.converter, backlog=BACKLOG)

    def operate() -> None:
        until(lambda: session.points > BACKLOG, "the points are taken")
        session.enough.set()
        until(lambda: session.converter.server.queue_length.get() > BACKLOG, "the server has them")
        session.engine.install_suspender(suspender)
        assert suspender.tripped
        with polls(session) as wait:
            wait(2)
        proxy.Resume()
        until(lambda: any(name == "stop" for name, _ in session.documents), "the run ends")

    proxy.Pause()
    session.run(operate)
    session.check_that_every_frame_is_converted()
    assert sorted(data["converter_raw"] for data in session.events("converted")) == session.frames()
    (statistics,) = session.events("conversion")
    assert statistics["converter_drained"] is True


@pytest.mark.long
def test_plan_begins_once_the_backlog_is_gone(
    open_session: Callable[[str], Session],
    server: LocalServer,
    proxy: tango.DeviceProxy,
    put: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    proxy.Pause()
    sources = [put("qxrd_f32_64.tif", f"before-{number}.tif") for number in range(BACKLOG + 1)]
    proxy.Submit(json.dumps({"requests": [{"source": str(source)} for source in sources]}))
    session = open_session(server.address)
    session.enough.set()
    suspender = ConverterBehind(session.converter, backlog=BACKLOG)
    session.engine.install_suspender(suspender)
    until(lambda: suspender.tripped, "the backlog is seen")

    def operate() -> None:
        with polls(session) as wait:
            wait(2)
        assert session.documents == []
        proxy.Resume()
        until(lambda: bool(session.documents), "the plan begins")

    session.run(operate)
    assert f"{BACKLOG + 1} frames behind" in capsys.readouterr().out
