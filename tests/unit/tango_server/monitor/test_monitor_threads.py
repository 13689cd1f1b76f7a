"""What the threads of the monitor do when something goes wrong: with a client that does what the test says."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tango_server.client.attributes import AttributeReading
from tango_server.client.client import LinkDownError, RequestRejectedError, ServerFullError, ServerSnapshot
from tango_server.messages import FrameReport, ReportsAnswer, ReportsQuery, RunStatistics
from tango_server.monitor import image_loader, poller
from tango_server.monitor.image_loader import Pictures
from tango_server.monitor.images import Pair
from tango_server.monitor.poller import Watch
from tango_server.monitor.state import MonitorState

PATIENCE = 30.0


def report(number: int, outcome: str) -> FrameReport:
    fields = {"job_id": str(number), "source": f"/raw/{number}.tif", "outcome": outcome, "finished": 1.0}
    return FrameReport.model_validate({**fields, "run_uid": "run"})


class Scripted:
    """A server with one failed frame. `troubles` are raised by its next answers, one after the other."""

    def __init__(self) -> None:
        self.troubles: deque[Exception] = deque()
        self.statistics = 0
        self.processed = 1

    def snapshot(self) -> ServerSnapshot:
        values = {"State": "ALARM", "NumProcessed": self.processed, "NumFailed": 1, "FailedFiles": ["/raw/1.tif"]}
        return ServerSnapshot("1.0", {name: AttributeReading(value, 0.0) for name, value in values.items()})

    def reports(self, query: ReportsQuery) -> ReportsAnswer:
        if self.troubles:
            raise self.troubles.popleft()
        return ReportsAnswer(reports=[report(1, query.outcome or "failed")], pending=0)

    def run_statistics(self, run_uid: str) -> RunStatistics:
        self.statistics += 1
        return RunStatistics(run_uid=run_uid, submitted=1, failed=1)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    server = Scripted()
    monkeypatch.setattr(poller, "Client", lambda _address: server)
    return server


@pytest.fixture
def watching(server: Scripted) -> Iterator[Watch]:
    watching = Watch("tango://host:1/a/b/c", interval=0.01)
    yield watching
    watching.close()


def wait_for(watching: Watch, true: Callable[[MonitorState], bool]) -> MonitorState:
    """Wait until something is known."""
    pause, deadline = threading.Event(), time.monotonic() + PATIENCE
    while not true(watching.observed):
        assert time.monotonic() < deadline, watching.observed
        pause.wait(0.01)
    return watching.observed


def test_query_is_repeated_after_the_server_was_busy(server: Scripted, watching: Watch) -> None:
    wait_for(watching, lambda known: bool(known.failures))
    server.troubles.extend(ServerFullError("busy") for _ in range(3))
    server.processed = 2
    wait_for(watching, lambda _: not server.troubles)
    wait_for(watching, lambda known: known.is_answering and known.last is not None)
    server.troubles.extend(LinkDownError("gone") for _ in range(1000))
    server.processed = 3
    wait_for(watching, lambda known: not known.is_answering)
    server.troubles.clear()
    wait_for(watching, lambda known: known.is_answering and bool(known.failures))


def test_action_runs_at_once_and_triggers_an_immediate_poll(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    watching = Watch("tango://host:1/a/b/c", interval=PATIENCE)
    try:
        before = wait_for(watching, lambda known: known.is_answering)

        def act(_client: object) -> str:
            server.processed = 7
            return "done"

        assert watching.act(act) == "done"
        seen = wait_for(watching, lambda known: known is not before)
        assert seen.snapshot is not None
        assert seen.snapshot.value("NumProcessed") == 7
    finally:
        watching.close()


def test_rejected_action_raises_for_its_caller_and_polling_continues(watching: Watch) -> None:
    def reject(_client: object) -> str:
        raise RequestRejectedError("no")

    with pytest.raises(RequestRejectedError):
        watching.act(reject)
    before = wait_for(watching, lambda known: known.is_answering)
    wait_for(watching, lambda known: known is not before)


def test_expensive_run_queries_are_made_less_often(
    server: Scripted, watching: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller, "_PART_OF_A_CORE", 1e9)
    wait_for(watching, lambda known: bool(known.runs))
    asked = server.statistics
    for processed in range(2, 20):
        server.processed = processed
        before = watching.observed
        wait_for(watching, lambda known, before=before: known is not before)  # type: ignore[misc]
    assert server.statistics <= asked + 1


def test_unreadable_frame_is_reported_and_not_reread_forever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read: list[str] = []

    def fail(one: FrameReport) -> Pair:
        read.append(one.source)
        raise ZeroDivisionError

    monkeypatch.setattr(image_loader, "read_pair", fail)
    shown = Pictures(pause=0.0)
    shown.want(report(1, "converted"))
    for thread in threading.enumerate():
        if thread.name == "petif-pictures":
            thread.join(PATIENCE)
    shown.want(report(1, "converted"))
    assert read == ["/raw/1.tif"]
    assert shown.pair is not None
    assert "the log of the monitor" in shown.pair.raw.html
    assert Path(caplog.records[0].pathname).name == "image_loader.py"
    shown.close()
    shown.want(report(2, "converted"))
    assert len(read) == 1
