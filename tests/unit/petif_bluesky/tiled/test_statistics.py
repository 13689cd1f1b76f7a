"""The background component that keeps the conversion's statistics in the metadata of catalogued runs."""

import logging
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from petif_bluesky import PETifConverter
from petif_bluesky.testing.fake_server import PATIENCE, FakeServer
from petif_bluesky.tiled import statistics as module
from petif_bluesky.tiled.statistics import CatalogueStatistics, refresh_statistics
from tango_server.backoff import Backoff
from tango_server.client.client import LinkDownError, UnknownRunError

RUN = "run-1"


class Node:
    """A catalogued run, as a Tiled client shows it."""

    def __init__(self, catalogue: "Catalogue", uid: str) -> None:
        self._catalogue = catalogue
        self._uid = uid

    @property
    def metadata(self) -> dict[str, Any]:
        return self._catalogue.metadata[self._uid]

    def update_metadata(self, metadata: dict[str, Any], *, drop_revision: bool) -> None:
        assert drop_revision
        with self._catalogue.changed:
            self._catalogue.callers.add(threading.current_thread())
            self.metadata.update(metadata)
            self._catalogue.written.append((self._uid, metadata["conversion"]))
            self._catalogue.changed.notify_all()


class Catalogue:
    """What a Tiled client does for the component: runs by uid, troubles on demand."""

    def __init__(self) -> None:
        self.metadata: dict[str, dict[str, Any]] = {}
        self.written: list[tuple[str, dict[str, Any]]] = []
        self.callers: set[threading.Thread] = set()
        self.troubles: deque[Exception] = deque()
        self.looks = 0
        self.changed = threading.Condition()

    def __getitem__(self, uid: str) -> Node:
        with self.changed:
            self.looks += 1
            self.changed.notify_all()
            if self.troubles:
                raise self.troubles.popleft()
            if uid not in self.metadata:
                raise KeyError(uid)
        return Node(self, uid)

    def add(self, uid: str, *, stopped: bool = True) -> None:
        self.metadata[uid] = {"start": {"uid": uid}, **({"stop": {"run_start": uid}} if stopped else {})}

    def until_looks(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.looks >= count, PATIENCE)

    def until_written(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.written) >= count, PATIENCE)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSES", Backoff(0.01, 0.01))
    monkeypatch.setattr(module, "_PAUSE_AFTER_CHANGE", 0.01)


@pytest.fixture
def catalogue() -> Catalogue:
    catalogue = Catalogue()
    catalogue.add(RUN)
    return catalogue


@pytest.fixture
def statistics(catalogue: Catalogue, converter: PETifConverter) -> Iterator[CatalogueStatistics]:
    component = CatalogueStatistics(catalogue, converter)
    yield component
    component.close(PATIENCE)
    assert not component._thread.is_alive()


def frames(converter: PETifConverter, server: FakeServer, count: int, run: str = RUN) -> None:
    """Let a run have frames, in the session's book and at the server."""
    converter.runs.announce(run)
    requests = [{"source": f"/raw/{n}.tif", "key": f"{run}/{n}", "run_uid": run} for n in range(count)]
    for request in requests:
        converter.runs.add(run, request["key"])
    server.submit(requests, [run])


def stop(component: CatalogueStatistics, run: str = RUN) -> None:
    component("stop", {"run_start": run})


def test_statistics_are_written_after_stop_in_a_thread(
    statistics: CatalogueStatistics, catalogue: Catalogue, converter: PETifConverter, server: FakeServer
) -> None:
    frames(converter, server, 3)
    server.callers.clear()
    for name in ("start", "descriptor", "event"):
        statistics(name, {"uid": RUN})
    assert statistics.pending == []
    stop(statistics)
    assert statistics.wait(PATIENCE)
    expected = server.statistics(RUN).model_dump(mode="json", exclude={"run_uid"})
    assert catalogue.written == [(RUN, expected)]
    assert (expected["submitted"], expected["converted"]) == (3, 3)
    assert threading.current_thread() not in catalogue.callers | server.callers


def test_only_changed_statistics_are_written_again(
    statistics: CatalogueStatistics, catalogue: Catalogue, converter: PETifConverter, server: FakeServer
) -> None:
    server.converts = False
    frames(converter, server, 2)
    stop(statistics)
    catalogue.until_written(1)
    assert (catalogue.written[0][1]["converted"], catalogue.written[0][1]["pending"]) == (0, 2)
    asked = server.attempts
    server.until(lambda: server.attempts > asked + 3)
    assert len(catalogue.written) == 1
    assert statistics.pending == [RUN]
    server.converts = True
    assert statistics.wait(PATIENCE)
    assert [(fields["converted"], fields["pending"]) for _, fields in catalogue.written] == [(0, 2), (2, 0)]


def test_frames_still_in_the_spool_are_pending(
    statistics: CatalogueStatistics, catalogue: Catalogue, converter: PETifConverter, server: FakeServer
) -> None:
    frames(converter, server, 1)
    converter.runs.add(RUN, "not sent yet")
    stop(statistics)
    catalogue.until_written(1)
    assert [catalogue.written[0][1][name] for name in ("submitted", "converted", "pending")] == [2, 1, 1]
    assert not statistics.wait(0.05)
    server.submit([{"source": "/raw/9.tif", "key": "not sent yet", "run_uid": RUN}])
    assert statistics.wait(PATIENCE)
    assert [catalogue.written[-1][1][name] for name in ("submitted", "converted", "pending")] == [2, 2, 0]


def test_writing_waits_for_the_stop_document(
    statistics: CatalogueStatistics, catalogue: Catalogue, converter: PETifConverter, server: FakeServer
) -> None:
    catalogue.metadata.clear()
    frames(converter, server, 1)
    stop(statistics)
    catalogue.until_looks(3)
    catalogue.add(RUN, stopped=False)
    catalogue.until_looks(catalogue.looks + 3)
    assert catalogue.written == []
    catalogue.add(RUN)
    assert statistics.wait(PATIENCE)
    assert len(catalogue.written) == 1


@pytest.mark.parametrize("away", ["catalogue", "server", "server does not know the run"])
def test_outage_is_retried_and_logged_once(
    away: str,
    statistics: CatalogueStatistics,
    catalogue: Catalogue,
    converter: PETifConverter,
    server: FakeServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    frames(converter, server, 2)
    match away:
        case "catalogue":
            catalogue.troubles.extend(ConnectionError("nobody listens") for _ in range(5))
        case "server":
            server.troubles.extend(LinkDownError("no answer") for _ in range(5))
        case _:
            server.troubles.extend(UnknownRunError(RUN) for _ in range(5))
    stop(statistics)
    assert statistics.wait(PATIENCE)
    assert catalogue.written[-1][1]["converted"] == 2
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert RUN in warnings[0].getMessage()


def test_failing_run_does_not_delay_others(
    statistics: CatalogueStatistics, catalogue: Catalogue, converter: PETifConverter, server: FakeServer
) -> None:
    for run in ("lost", RUN):
        frames(converter, server, 1, run)
        stop(statistics, run)
    catalogue.until_written(1)
    assert catalogue.written[0][0] == RUN
    assert statistics.pending == ["lost"] or statistics.wait(0) is False


@pytest.mark.parametrize("document", [{}, None, {"run_start": []}])
def test_no_document_makes_it_raise(statistics: CatalogueStatistics, document: Any) -> None:
    statistics("stop", document)


def test_run_is_given_up_after_its_timeout(
    catalogue: Catalogue, converter: PETifConverter, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    component = CatalogueStatistics(catalogue, converter, patience=0.0)
    frames(converter, server, 1)
    stop(component, "nobody knows it")
    assert component.wait(PATIENCE)
    component.close(PATIENCE)
    assert "petif refresh" in caplog.text


def test_close_writes_statistics_and_logs_the_rest(
    catalogue: Catalogue, converter: PETifConverter, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    component = CatalogueStatistics(catalogue, converter)
    server.converts = False
    frames(converter, server, 1)
    stop(component)
    component.close(PATIENCE)
    assert not component._thread.is_alive()
    assert catalogue.written[-1][1]["pending"] == 1
    assert f"in the catalogue: {RUN}" in caplog.text
    stop(component)
    assert component.pending == [RUN]


def test_close_does_not_wait_for_a_hanging_server(
    catalogue: Catalogue, converter: PETifConverter, server: FakeServer
) -> None:
    component = CatalogueStatistics(catalogue, converter)
    frames(converter, server, 1)
    server.answers.clear()
    stop(component)
    server.until(lambda: server.attempts == 2)
    component.close(0.05)
    assert component._thread.is_alive()
    server.answers.set()
    component._thread.join(PATIENCE)
    assert not component._thread.is_alive()


def test_refresh_statistics_of_an_earlier_run(
    catalogue: Catalogue, converter: PETifConverter, server: FakeServer
) -> None:
    frames(converter, server, 2)
    assert refresh_statistics(catalogue, server, RUN).converted == 2
    assert catalogue.metadata[RUN]["conversion"]["converted"] == 2
    with pytest.raises(UnknownRunError):
        refresh_statistics(catalogue, server, "another")
