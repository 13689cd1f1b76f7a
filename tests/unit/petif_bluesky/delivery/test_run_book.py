"""How many frames of which run went into the spool."""

from threading import Thread

import pytest

from petif_bluesky.delivery.run_book import RunBook


@pytest.fixture
def book() -> RunBook:
    return RunBook()


def test_frames_are_counted_run_by_run(book: RunBook) -> None:
    book.announce("first")
    for key in ("a", "b", "c"):
        book.add("first", key)
    book.add("second", "a")
    assert (book.submitted("first"), book.submitted("second"), book.submitted("third")) == (3, 1, 0)


def test_frame_with_repeated_documents_counts_once(book: RunBook) -> None:
    for _ in range(3):
        book.announce("run")
        book.add("run", "a")
        book.add("run", "b")
    assert book.submitted("run") == 2


def test_only_old_closed_runs_are_forgotten(book: RunBook) -> None:
    book.add("open", "a")
    for number in range(150):
        book.add(str(number), "a")
        book.close(str(number))
    assert book.submitted("open") == 1
    assert book.submitted("149") == book.submitted("50") == 1
    assert book.submitted("49") == 0


def test_no_frame_is_lost_between_threads(book: RunBook) -> None:
    def add(prefix: str) -> None:
        for number in range(500):
            book.add("run", f"{prefix}{number}")

    threads = [Thread(target=add, args=(prefix,)) for prefix in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert book.submitted("run") == 2000


def test_rejected_frame_is_not_counted_in_either_order(book: RunBook) -> None:
    book.announce("run")
    book.set_aside("run", "b")
    for key in "abc":
        book.add("run", key)
    assert (book.submitted("run"), book.set_aside_of("run")) == (2, 1)
    book.close("run")
    assert (book.submitted("run"), book.set_aside_of("run")) == (2, 1)
    book.set_aside("never heard of", "a")
    assert (book.submitted("never heard of"), book.set_aside_of("never heard of")) == (0, 0)


def test_replayed_run_counts_once(book: RunBook) -> None:
    for _ in range(2):
        book.announce("run")
        for key in "abc":
            book.add("run", key)
        assert book.submitted("run") == 3
        book.close("run")
    assert book.submitted("run") == 3


def test_closed_and_abandoned_runs_do_not_accumulate(book: RunBook) -> None:
    for number in range(1000):
        book.announce(f"abandoned {number}")
        book.add(f"abandoned {number}", "a")
        book.announce(f"{number}")
        book.add(f"{number}", "a")
        book.close(f"{number}")
    assert len(book._runs) <= 200
    assert sum(len(frames.keys) for frames in book._runs.values()) <= 100


def test_documents_that_wait_count_as_not_read(book: RunBook) -> None:
    book.announce("run")
    book.add("run", "a", "primary")
    book.read("run", {"primary": 3, "baseline": 1}, 2)
    assert book.counts("run") == {"primary": (1, 1), "baseline": (0, 0)}
    assert book.held("run") == 2
    book.read("run", {"primary": 3, "baseline": 1}, 0)
    assert book.counts("run") == {"primary": (3, 1), "baseline": (1, 0)}


def test_rejected_frames_are_not_announced_as_submitted(book: RunBook) -> None:
    for key in "abc":
        book.add("run", key, "primary")
    book.set_aside("run", "b", "primary")
    book.close("run")
    assert book.counts("run") == {"primary": (0, 2)}


def test_only_changed_counts_are_announced() -> None:
    book = RunBook(announcing=True)
    book.add("run", "a", "primary")
    assert book.news() == {"run": {"primary": (0, 1)}}
    assert not book.has_news
    book.read("run", {"primary": 1}, 0)
    news = book.news()
    assert news == {"run": {"primary": (1, 1)}}
    book.keep_news(news)
    assert book.news() == news


def test_book_of_a_session_announces_nothing(book: RunBook) -> None:
    book.add("run", "a", "primary")
    book.read("run", {"primary": 1}, 0)
    assert not book.has_news
