"""The way from the spool to the server: everything once, in order, whatever the server does meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from petif_bluesky.delivery.sender import Sender
from petif_bluesky.link import LinkDownError, UnknownRunError
from petif_bluesky.spool import Spool
from petif_bluesky.testing.fake_link import FakeLink

NAME = "petif-sender"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("petif_bluesky.delivery.sender._FIRST_PAUSE", 0.01)
    monkeypatch.setattr("petif_bluesky.delivery.sender._LONGEST_PAUSE", 0.02)


@pytest.fixture
def link() -> FakeLink:
    return FakeLink()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool.sqlite")
    yield spool
    spool.close()


@pytest.fixture
def start(spool: Spool, link: FakeLink) -> Iterator[Callable[[], Sender]]:
    senders = []

    def start_sender() -> Sender:
        senders.append(Sender(spool, link))
        return senders[-1]

    yield start_sender
    link.answers.set()
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


def has(link: FakeLink, sources: list[str]) -> Callable[[], bool]:
    return lambda: link.sources == sources


def messages(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


def test_letters_go_in_order_and_leave_the_spool(spool: Spool, link: FakeLink, start: Callable[[], Sender]) -> None:
    spool.announce("run")
    sources = put(spool, *"cab")
    sender = start()
    link.until(has(link, sources))
    sources += put(spool, *"zyx")
    sender.wake()
    link.until(has(link, sources))
    sender.close(5.0)
    assert link.announced == ["run"]
    assert len(spool) == 0


def test_more_letters_than_go_at_once_stay_in_order(
    monkeypatch: pytest.MonkeyPatch, spool: Spool, link: FakeLink, start: Callable[[], Sender]
) -> None:
    monkeypatch.setattr("petif_bluesky.delivery.sender._BATCH", 3)
    sources = put(spool, *(f"{number:02d}" for number in range(10)))
    start()
    link.until(has(link, sources))
    assert link.attempts == 4


def test_server_that_was_down_gets_everything_once_and_in_order(
    spool: Spool, link: FakeLink, start: Callable[[], Sender], caplog: pytest.LogCaptureFixture
) -> None:
    link.go_down()
    spool.announce("run")
    sources = put(spool, *"ab")
    sender = start()
    link.until(lambda: link.attempts >= 4)
    sources += put(spool, "c")
    assert link.requests == {}
    assert len(spool) == 4
    link.go_up()
    link.until(has(link, sources))
    sender.close(5.0)
    assert link.announced == ["run"]
    assert len(spool) == 0
    (warning,) = messages(caplog, "nothing is lost")
    assert str(spool.path) in warning
    assert "expected a running server" in warning
    assert len(messages(caplog, "takes frames again")) == 1


def test_each_time_the_server_goes_is_worth_one_warning(
    spool: Spool, link: FakeLink, start: Callable[[], Sender], caplog: pytest.LogCaptureFixture
) -> None:
    sender = start()
    sources: list[str] = []
    for name in "ab":
        link.go_down()
        before = link.attempts
        sources += put(spool, name)
        sender.wake()
        link.until(lambda seen=before: link.attempts >= seen + 3)
        link.go_up()
        link.until(has(link, sources))
    sender.close(5.0)
    assert len(messages(caplog, "nothing is lost")) == len(messages(caplog, "takes frames again")) == 2


def test_letter_whose_answer_was_lost_goes_again_under_the_same_key(
    spool: Spool, link: FakeLink, start: Callable[[], Sender]
) -> None:
    answered = link.submit

    def lose_the_first_answer(*arguments: Any) -> Any:
        answer = answered(*arguments)
        if link.attempts == 1:
            raise LinkDownError("no answer in time")
        return answer

    link.submit = lose_the_first_answer  # type: ignore[method-assign]
    sources = put(spool, *"ab")
    sender = start()
    link.until(lambda: link.attempts >= 2)
    sender.close(5.0)
    assert link.sources == sources
    assert len(spool) == 0


def test_rejected_letter_is_set_aside_and_the_others_go(
    spool: Spool, link: FakeLink, start: Callable[[], Sender], caplog: pytest.LogCaptureFixture
) -> None:
    first, bad, third, last = put(spool, *"abcd")
    link.rejected = {bad}
    sender = start()
    link.until(has(link, [first, third, last]))
    later = put(spool, "e")
    sender.wake()
    link.until(has(link, [first, third, last, *later]))
    sender.close(5.0)
    assert spool.first(10) == []
    assert not spool.put({"source": bad, "key": f"run{bad}", "run_uid": "run"})
    (error,) = messages(caplog, "set aside")
    assert "found a request that can't be" in error


def test_refused_frame_is_logged_and_done_with(
    spool: Spool, link: FakeLink, start: Callable[[], Sender], caplog: pytest.LogCaptureFixture
) -> None:
    first, refused, third = put(spool, *"abc")
    link.refused = {refused}
    sender = start()
    link.until(has(link, [first, third]))
    sender.close(5.0)
    assert link.attempts == 1
    assert len(spool) == 0
    assert messages(caplog, "will not be converted") == [f"a frame will not be converted: {refused} is outside"]


def test_server_that_goes_while_letters_go_singly_gets_the_rest_later_in_order(
    spool: Spool, link: FakeLink, start: Callable[[], Sender]
) -> None:
    bad, *others = put(spool, *"abcd")
    link.rejected = {bad}
    answered = link.submit

    def vanish_for_a_call(requests: Any, runs: Any = ()) -> Any:
        if link.attempts == 2:
            link.troubles.append(LinkDownError("gone"))
        return answered(requests, runs)

    link.submit = vanish_for_a_call  # type: ignore[method-assign]
    start()
    link.until(lambda: len(link.requests) == len(others))
    assert link.sources == others


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(RuntimeError("nobody thought of this"), id="unforeseen"),
        pytest.param(UnknownRunError("never heard of it"), id="another-error-of-the-link"),
    ],
)
def test_unforeseen_trouble_does_not_end_the_sending(
    trouble: Exception,
    spool: Spool,
    link: FakeLink,
    start: Callable[[], Sender],
    caplog: pytest.LogCaptureFixture,
) -> None:
    link.troubles.extend([trouble, trouble, trouble])
    sources = put(spool, *"ab")
    sender = start()
    link.until(has(link, sources))
    sender.close(5.0)
    assert len(spool) == 0
    assert len(messages(caplog, "nothing is lost")) == 1
    assert str(trouble) in caplog.text


def test_close_returns_in_time_though_a_call_hangs(spool: Spool, link: FakeLink, start: Callable[[], Sender]) -> None:
    link.answers.clear()
    put(spool, "a")
    sender = start()
    link.until(lambda: link.attempts == 1)
    began = time.monotonic()
    sender.close(0.1)
    assert time.monotonic() - began < 2.0
    assert len(spool) == 1


def test_answer_that_comes_after_the_spool_was_closed_harms_nobody(
    spool: Spool, link: FakeLink, start: Callable[[], Sender], caplog: pytest.LogCaptureFixture
) -> None:
    link.answers.clear()
    sources = put(spool, "a")
    sender = start()
    link.until(lambda: link.attempts == 1)
    sender.close(0.01)
    spool.close()
    link.answers.set()
    sender._thread.join(5.0)
    assert not sender._thread.is_alive()
    assert link.sources == sources
    assert caplog.records == []


def test_close_does_not_wait_for_what_the_server_does_not_take(
    spool: Spool, link: FakeLink, start: Callable[[], Sender], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("petif_bluesky.delivery.sender._FIRST_PAUSE", 60.0)
    monkeypatch.setattr("petif_bluesky.delivery.sender._LONGEST_PAUSE", 60.0)
    link.go_down()
    put(spool, *"ab")
    sender = start()
    link.until(lambda: link.attempts == 1)
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
