"""`drained` is true only if the numbers are final, also when the callback is in another process and loses documents."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from queue import Queue
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky import RunEngine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petif_bluesky import ConversionCallback
from petif_bluesky.remote.session import RemoteSession
from petif_bluesky.testing.fake_server import FakeServer
from tests.unit.documents import Recorder
from tests.unit.lab import Lab


class Lossy:
    """Passes documents on to a callback in another process, except those whose numbers are in `lost`."""

    def __init__(self, callback: Callable[[str, Any], None]) -> None:
        self.lost: set[int] = set()
        self._callback = callback
        self._number = 0

    def __call__(self, name: str, document: Any) -> None:
        if name == "start":
            self._number = 0
        if self._number not in self.lost:
            self._callback(name, document)
        self._number += 1


@pytest.fixture
def remote(run_engine: RunEngine, server: FakeServer, tmp_path: Path) -> Iterator[Lossy]:
    """The callback of another process, subscribed here: it shares nothing with the converter."""
    with closing(ConversionCallback(RemoteSession(server), spool=tmp_path / "remote.sqlite")) as callback:
        lossy = Lossy(callback)
        run_engine.subscribe(lossy)
        yield lossy


def last(recorder: Recorder) -> dict[str, Any]:
    event = recorder.stream("conversion")[-1]
    return {key.removeprefix("converter_"): value for key, value in event["data"].items()}


def test_counts_of_another_process_are_waited_for(
    lab: Lab, server: FakeServer, run_engine: RunEngine, tmp_path: Path
) -> None:
    documents: Queue[Any] = Queue()
    draining = threading.Event()
    server.on_follow = draining.set

    def read_late() -> None:
        draining.wait(20.0)
        for name, document in iter(documents.get, None):
            callback(name, document)

    run_engine.subscribe(lambda name, document: documents.put((name, document)))
    with closing(ConversionCallback(RemoteSession(server), spool=tmp_path / "remote.sqlite")) as callback:
        reader = threading.Thread(target=read_late)
        reader.start()
        (uid,) = lab.run(bp.count([lab.detector], num=3), recipe="xdi")
        documents.put(None)
        reader.join()
        lab.server.until(lambda: lab.server.statistics(uid).run_counts.get("conversion") == (1, 0))
    numbers = last(lab.recorder)
    assert (numbers["submitted"], numbers["converted"], numbers["drained"]) == (3, 3, True)
    assert lab.server.statistics(uid).run_counts["primary"] == (3, 3)


def test_document_that_a_callback_of_the_session_missed_is_noticed_at_once(
    lab: Lab, callback: ConversionCallback
) -> None:
    def lossy(name: str, document: Any) -> None:
        if document.get("seq_num") != 2:
            callback(name, document)

    lab.run_engine.subscribe(lossy)
    lab.run(bp.count([lab.detector], num=3), recipe="xdi")
    numbers = last(lab.recorder)
    assert (numbers["submitted"], numbers["drained"]) == (2, False)
    assert "2 of 3 documents of stream 'primary'" in numbers["problem"]


def test_document_that_cannot_be_processed_is_not_read(lab: Lab, callback: ConversionCallback) -> None:
    def garbled(name: str, document: Any) -> None:
        callback(name, {**document, "resource_kwargs": None} if name == "resource" else document)

    lab.run_engine.subscribe(garbled)
    lab.run(bp.count([lab.detector], num=2), recipe="xdi")
    numbers = last(lab.recorder)
    assert not numbers["drained"], "although the events name the files, too"
    assert "could not be processed" in numbers["problem"]


def test_without_a_callback_nothing_is_drained(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    lab.converter.drain_timeout = 0.1
    (uid,) = lab.run(bp.count([lab.detector], num=2))
    numbers = last(lab.recorder)
    assert (numbers["submitted"], numbers["drained"]) == (0, False)
    assert "no callback" in numbers["problem"]
    assert any(uid in text and "So far" in text for text in caplog.messages)


@given(lost=st.sets(st.integers(0, 18), max_size=3))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lost_documents_never_make_a_run_drained_with_a_wrong_count(lost: set[int], lab: Lab, remote: Lossy) -> None:
    lab.converter.drain_timeout = 0.05
    remote.lost = lost
    lab.run(bp.count([lab.detector], num=3), recipe="xdi")
    numbers = last(lab.recorder)
    assert not numbers["drained"] or (numbers["submitted"], numbers["converted"]) == (3, 3)
    if not lost:
        assert numbers["drained"]


def test_run_without_frames_is_drained_at_once(lab: Lab, remote: Lossy) -> None:
    lab.run(bpp.run_wrapper(bps.null()))
    assert (last(lab.recorder)["submitted"], last(lab.recorder)["drained"]) == (0, True)


def test_last_known_numbers_are_told_when_the_server_dies(lab: Lab, callback: ConversionCallback) -> None:
    lab.run_engine.subscribe(callback)

    def go_down_after_two(name: str, _document: Any) -> None:
        if name == "event" and len(lab.recorder.of("event")) == 3:
            lab.server.go_down()

    lab.run_engine.subscribe(go_down_after_two)

    def plan() -> Any:
        for number in range(1, 4):
            yield from bps.trigger_and_read([lab.detector])
            if number == 2:
                lab.server.until(lambda: len(lab.server.requests) == 2)

    lab.run(bpp.stage_wrapper(bpp.run_wrapper(plan()), [lab.detector]))
    numbers = last(lab.recorder)
    assert (numbers["submitted"], numbers["converted"], numbers["drained"]) == (3, 2, False)
    assert "cannot be reached" in numbers["problem"]
    lab.server.go_up()
