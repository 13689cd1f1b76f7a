"""The way from the spool to the server: everything once, in order, whatever the server does meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from petif_bluesky.delivery.sender import Sender
from petif_bluesky.spool import Spool
from petif_bluesky.testing.fake_server import FakeServer
from tango_server.backoff import Backoff
from tango_server.client.client import LinkDownError, UnknownRunError

NAME = "petif-sender"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("petif_bluesky.delivery.sender._PAUSES", Backoff(0.01, 0.02))


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool.sqlite")
    yield spool
    spool.close()


@pytest.fixture
def start(spool: Spool, server: FakeServer) -> Iterator[Callable[[], Sender]]:
    senders = []

    def start_sender() -> Sender:
        senders.append(Sender(spool, server))
        return senders[-1]

    yield start_sender
    server.answers.set()
    for sender in senders:
        sender.close(5.0)
        assert not sender._thread.is_alive()


def put(spool: Spool, *names: str) -> list[str]:
    """Put requests; return their sources."""
    sources = [f"/raw/{name}.tif" for name in names]
    for source in sources:
        request: dict[str, Any] = {"source": source, "key": f"run{source}", "run_uid": "run"}
        assert spool.put(request)
    return sources


def has(server: FakeServer, sources: list[str]) -> Callable[[], bool]:
    return lambda: server.sources == sources


def messages(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


def test_requests_are_sent_in_order_and_removed(spool: Spool, server: FakeServer, start: Callable[[], Sender]) -> None:
    spool.announce("run")
    sources = put(spool, *"cab")
    sender = start()
    server.until(has(server, sources))
    sources += put(spool, *"zyx")
    sender.wake()
    server.until(has(server, sources))
    sender.close(5.0)
    assert server.announced == ["run"]
    assert len(spool) == 0


def test_several_batches_stay_in_order(
    monkeypatch: pytest.MonkeyPatch, spool: Spool, server: FakeServer, start: Callable[[], Sender]
) -> None:
    monkeypatch.setattr("petif_bluesky.delivery.sender._BATCH", 3)
    sources = put(spool, *(f"{number:02d}" for number in range(10)))
    start()
    server.until(has(server, sources))
    assert server.attempts == 4


def test_requests_are_sent_in_order_after_an_outage(
    spool: Spool, server: FakeServer, start: Callable[[], Sender], caplog: pytest.LogCaptureFixture
) -> None:
    server.go_down()
    spool.announce("run")
    sources = put(spool, *"ab")
    sender = start()
    server.until(lambda: server.attempts >= 4)
    sources += put(spool, "c")
    assert server.requests == {}
    assert len(spool) == 4
    server.go_up()
    server.until(has(server, sources))
    sender.close(5.0)
    assert server.announced == ["run"]
    assert len(spool) == 0
    (warning,) = messages(caplog, "Cannot send")
    assert str(spool.path) in warning
    assert server.client.address in warning
    assert len(messages(caplog, "accepts frames again")) == 1


def test_each_outage_is_logged_once(
    spool: Spool, server: FakeServer, start: Callable[[], Sender], caplog: pytest.LogCaptureFixture
) -> None:
    sender = start()
    sources: list[str] = []
    for name in "ab":
        server.go_down()
        before = server.attempts
        sources += put(spool, name)
        sender.wake()
        server.until(lambda seen=before: server.attempts >= seen + 3)
        server.go_up()
        server.until(has(server, sources))
    sender.close(5.0)
    assert len(messages(caplog, "Cannot send")) == len(messages(caplog, "accepts frames again")) == 2


def test_request_with_lost_answer_is_sent_again_with_its_key(
    spool: Spool, server: FakeServer, start: Callable[[], Sender]
) -> None:
    answered = server.submit

    def lose_the_first_answer(*arguments: Any) -> Any:
        answer = answered(*arguments)
        if server.attempts == 1:
            raise LinkDownError("no answer in time")
        return answer

    server.submit = lose_the_first_answer  # type: ignore[method-assign]
    sources = put(spool, *"ab")
    sender = start()
    server.until(lambda: server.attempts >= 2)
    sender.close(5.0)
    assert server.sources == sources
    assert len(spool) == 0


def test_rejected_request_does_not_block_the_others(
    spool: Spool, server: FakeServer, start: Callable[[], Sender], caplog: pytest.LogCaptureFixture
) -> None:
    first, bad, third, last = put(spool, *"abcd")
    server.rejected = {bad}
    sender = start()
    server.until(has(server, [first, third, last]))
    later = put(spool, "e")
    sender.wake()
    server.until(has(server, [first, third, last, *later]))
    sender.close(5.0)
    assert spool.first(10) == []
    assert not spool.put({"source": bad, "key": f"run{bad}", "run_uid": "run"})
    (error,) = messages(caplog, "rejected")
    assert str(spool.path) in error


def test_refused_frame_is_logged_and_removed(
    spool: Spool, server: FakeServer, start: Callable[[], Sender], caplog: pytest.LogCaptureFixture
) -> None:
    first, refused, third = put(spool, *"abc")
    server.refused = {refused}
    sender = start()
    server.until(has(server, [first, third]))
    sender.close(5.0)
    assert server.attempts == 1
    assert len(spool) == 0
    (warning,) = messages(caplog, "not converted")
    assert f"{refused} is outside" in warning


def test_outage_while_sending_singly_keeps_the_order(
    spool: Spool, server: FakeServer, start: Callable[[], Sender]
) -> None:
    bad, *others = put(spool, *"abcd")
    server.rejected = {bad}
    answered = server.submit

    def vanish_for_a_call(*call: Any) -> Any:
        if server.attempts == 2:
            server.troubles.append(LinkDownError("gone"))
        return answered(*call)

    server.submit = vanish_for_a_call  # type: ignore[method-assign]
    start()
    server.until(lambda: len(server.requests) == len(others))
    assert server.sources == others


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(RuntimeError("nobody thought of this"), id="unforeseen"),
        pytest.param(UnknownRunError("never heard of it"), id="another-error-of-the-server"),
    ],
)
def test_unexpected_errors_do_not_stop_the_sender(
    trouble: Exception,
    spool: Spool,
    server: FakeServer,
    start: Callable[[], Sender],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.troubles.extend([trouble, trouble, trouble])
    sources = put(spool, *"ab")
    sender = start()
    server.until(has(server, sources))
    sender.close(5.0)
    assert len(spool) == 0
    assert len(messages(caplog, "Cannot send")) == 1
    assert str(trouble) in caplog.text


def test_close_returns_in_time_while_a_call_hangs(
    spool: Spool, server: FakeServer, start: Callable[[], Sender]
) -> None:
    server.answers.clear()
    put(spool, "a")
    sender = start()
    server.until(lambda: server.attempts == 1)
    began = time.monotonic()
    sender.close(0.1)
    assert time.monotonic() - began < 2.0
    assert len(spool) == 1


def test_answer_after_the_spool_is_closed_does_no_harm(
    spool: Spool, server: FakeServer, start: Callable[[], Sender], caplog: pytest.LogCaptureFixture
) -> None:
    server.answers.clear()
    sources = put(spool, "a")
    sender = start()
    server.until(lambda: server.attempts == 1)
    sender.close(0.01)
    spool.close()
    server.answers.set()
    sender._thread.join(5.0)
    assert not sender._thread.is_alive()
    assert server.sources == sources
    assert caplog.records == []


def test_close_does_not_wait_for_pending_requests(
    spool: Spool, server: FakeServer, start: Callable[[], Sender], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("petif_bluesky.delivery.sender._PAUSES", Backoff(60.0, 60.0))
    server.go_down()
    put(spool, *"ab")
    sender = start()
    server.until(lambda: server.attempts == 1)
    began = time.monotonic()
    sender.close(5.0)
    assert time.monotonic() - began < 2.0
    assert len(spool) == 2


def test_close_ends_the_thread(start: Callable[[], Sender]) -> None:
    sender = start()
    assert NAME in {thread.name for thread in threading.enumerate()}
    sender.close(5.0)
    sender.close(5.0)
    assert NAME not in {thread.name for thread in threading.enumerate()}
