"""What was put into the spool stays there until it is removed, whatever becomes of the session."""

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from petif_bluesky.spool import Spool, SpooledRequest, SpoolError


def request(name: str, run_uid: str = "run") -> dict[str, Any]:
    return {"source": f"/raw/{name}.tif", "key": f"{run_uid}/{name}", "run_uid": run_uid, "seq_num": 1}


def names(letters: list[SpooledRequest]) -> list[str]:
    return [Path(letter.request["source"]).stem if letter.request else letter.run_uid for letter in letters]


@pytest.fixture
def open_spool(tmp_path: Path) -> Iterator[Callable[..., Spool]]:
    opened = []

    def open_(folder: Path = tmp_path) -> Spool:
        opened.append(Spool(folder / "spool.sqlite"))
        return opened[-1]

    yield open_
    for spool in opened:
        spool.close()


@pytest.fixture
def spool(open_spool: Callable[..., Spool]) -> Spool:
    return open_spool()


def test_requests_are_returned_unchanged_and_in_order(spool: Spool) -> None:
    spool.announce("run")
    for name in ("b", "a", "c"):
        assert spool.put(request(name))
    assert [letter.request for letter in spool.first(10)] == [None, request("b"), request("a"), request("c")]
    assert {letter.run_uid for letter in spool.first(10)} == {"run"}
    assert names(spool.first(2)) == ["run", "b"]
    assert len(spool) == 4


def test_only_removed_requests_are_gone(spool: Spool) -> None:
    for name in "abcd":
        spool.put(request(name))
    spool.remove([letter for letter in spool.first(10) if names([letter])[0] in "ac"])
    assert names(spool.first(10)) == ["b", "d"]
    spool.remove([])
    assert len(spool) == 2


def test_same_key_is_stored_once(spool: Spool) -> None:
    assert spool.put(request("a"))
    assert not spool.put({**request("a"), "seq_num": 2})
    spool.announce("run")
    spool.announce("run")
    assert [letter.request for letter in spool.first(10)] == [request("a"), None]


def test_spool_survives_the_end_of_a_session(open_spool: Callable[..., Spool]) -> None:
    first = open_spool()
    first.announce("run")
    first.put(request("a"))
    first.close()
    second = open_spool()
    assert not second.put(request("a"))
    assert second.put(request("b"))
    assert names(second.first(10)) == ["run", "a", "b"]


def test_spool_survives_a_killed_session(open_spool: Callable[..., Spool], spool: Spool, tmp_path: Path) -> None:
    spool.put(request("a"))
    spool.put(request("b"))
    spool.remove(spool.first(1))
    image = tmp_path / "as it is on disk"
    image.mkdir()
    for path in tmp_path.glob("spool.sqlite*"):
        shutil.copy(path, image)
    assert (image / "spool.sqlite-wal").stat().st_size > 0
    assert names(open_spool(image).first(10)) == ["b"]


def test_order_holds_over_sessions_with_an_empty_spool(open_spool: Callable[..., Spool]) -> None:
    first = open_spool()
    first.put(request("a"))
    letters = first.first(1)
    first.remove(letters)
    first.close()
    second = open_spool()
    second.put(request("b"))
    second.remove(letters)
    assert names(second.first(10)) == ["b"]


def test_two_sessions_can_share_a_spool(open_spool: Callable[..., Spool], spool: Spool) -> None:
    other = open_spool()
    spool.put(request("a"))
    assert not other.put(request("a"))
    other.put(request("b"))
    spool.remove(other.first(1))
    assert names(spool.first(10)) == names(other.first(10)) == ["b"]


def test_rejected_request_is_kept_with_the_reason(open_spool: Callable[..., Spool], spool: Spool) -> None:
    for name in "abc":
        spool.put(request(name))
    spool.set_aside(spool.first(10)[1], "found b; expected something else")
    assert names(spool.first(10)) == ["a", "c"]
    assert len(spool) == 2
    spool.close()
    again = open_spool()
    assert names(again.first(10)) == ["a", "c"]
    assert not again.put(request("b"))
    with closing(sqlite3.connect(again.path)) as database:
        kept = database.execute("SELECT key, rejected FROM outbox WHERE rejected IS NOT NULL").fetchall()
    assert kept == [("run/b", "found b; expected something else")]


def test_threads_can_put_concurrently(spool: Spool) -> None:
    def put_all(run_uid: str) -> list[bool]:
        return [spool.put(request(str(number), run_uid)) for number in range(50)]

    runs = ["first", "second", "third", "fourth"]
    with ThreadPoolExecutor(len(runs)) as pool:
        assert all(all(put) for put in pool.map(put_all, runs))
    letters = spool.first(1000)
    assert len(letters) == len(spool) == 200
    for run_uid in runs:
        assert names([letter for letter in letters if letter.run_uid == run_uid]) == [str(n) for n in range(50)]


def test_folder_of_the_spool_is_created(tmp_path: Path, open_spool: Callable[..., Spool]) -> None:
    open_spool(tmp_path / "state" / "petif").announce("run")
    assert (tmp_path / "state" / "petif" / "spool.sqlite").is_file()


@pytest.mark.parametrize("lacking", ["key", "run_uid"])
def test_request_without_key_or_run_is_an_error(lacking: str, spool: Spool) -> None:
    with pytest.raises(KeyError):
        spool.put({name: value for name, value in request("a").items() if name != lacking})
    assert len(spool) == 0


def test_locked_file_delays_nothing_and_loses_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.sqlite")
    other = sqlite3.connect(tmp_path / "spool.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for number in range(3):
        spool.put({"key": f"run/{number}", "run_uid": "run"})
    from_memory = spool.first(2)
    assert [letter.request["key"] for letter in from_memory if letter.request] == ["run/0", "run/1"]
    other.execute("COMMIT")
    other.close()
    assert [letter.request["key"] for letter in spool.first(10) if letter.request] == ["run/0", "run/1", "run/2"]
    spool.remove(from_memory)  # they have reached the disk meanwhile
    assert [letter.request["key"] for letter in spool.first(10) if letter.request] == ["run/2"]
    spool.close()


def test_full_disk_keeps_requests_in_memory_and_logs_losses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path / "spool.sqlite")
    spool._file.writer.execute("PRAGMA max_page_count=1")  # as a disk that is full
    for number in range(200):
        spool.put({"key": f"run/{number}", "run_uid": "run", "source": "x" * 200})
    letters = spool.first(1000)
    assert [letter.request["key"] for letter in letters if letter.request] == [f"run/{number}" for number in range(200)]
    assert "kept in memory" in caplog.text
    spool.remove(letters[:-1])
    spool.put({"key": "run/more", "run_uid": "run", "source": "x" * 100_000})
    spool.close()
    assert "1 frames will not be converted" in caplog.text


def test_postponed_request_moves_to_the_end(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool.sqlite")) as spool:
        for name in ("a", "b", "c"):
            spool.put(request(name))
        spool.postpone(spool.first(1)[0])
        assert names(spool.first(10)) == ["b", "c", "a"]


def test_invalid_file_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    path.write_bytes(b"no database at all " * 100)
    with pytest.raises(SpoolError, match=r"spool\.sqlite.*spool=PATH") as error:
        Spool(path)
    assert str(path) not in [each.path for each in psutil.Process().open_files()], error
    assert path.read_bytes() == b"no database at all " * 100


def test_wal_stays_small_under_load(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool.sqlite")) as spool:
        for number in range(5000):
            spool.put(request(str(number)))
            if number % 50 == 49:
                spool.remove(spool.first(50))
                spool.tidy()
        assert (tmp_path / "spool.sqlite-wal").stat().st_size < 10 * 2**20
        assert len(spool) == 0


def test_put_all_is_atomic_on_disk(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool.sqlite")) as spool:
        other = sqlite3.connect(spool.path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        spool.put_all([request(name) for name in "abc"])
        assert spool.frames == 3
        other.execute("COMMIT")
        assert names(spool.first(10)) == ["a", "b", "c"]
        assert other.execute("SELECT count(*) FROM outbox").fetchone() == (3,)
        other.close()


LONGEST_LOG = 9 * 2**20


def size_of(path: Path) -> int:
    return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*"))


@pytest.mark.parametrize("tidy", [1_500, 5_000], ids=["now and then", "at the end"])
def test_files_shrink_when_requests_are_sent(spool: Spool, tidy: int) -> None:
    for number in range(6_000):
        spool.put(request(str(number)))
        if number % tidy == tidy - 1:
            spool.tidy()
    spool.put_all([request(str(number)) for number in range(6_000, 6_600)])
    spool.tidy()
    assert size_of(spool.path) < 6_600 * 1_000 + LONGEST_LOG, "a letter is 200 bytes"
    while letters := spool.first(500):
        spool.remove(letters)
        spool.tidy()
    assert len(spool) == 0
    assert size_of(spool.path) < LONGEST_LOG
    spool.close()
    assert size_of(spool.path) < 400_000, "up to 500 changes are left for the next time"


def test_old_spool_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    with closing(sqlite3.connect(path)) as before, before:
        before.execute("PRAGMA journal_mode=WAL")
        before.execute(
            "CREATE TABLE outbox (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, "
            "run_uid TEXT NOT NULL, request TEXT, rejected TEXT)"
        )
        before.execute("INSERT INTO outbox (key, run_uid, request, rejected) VALUES ('run/a', 'run', '{}', 'found a')")
    with closing(Spool(path)) as spool:
        assert not spool.put(request("a"))
        spool.put_all([request(str(number)) for number in range(600)])
        spool.tidy()
        with closing(sqlite3.connect(path)) as beside:
            kept = beside.execute("SELECT key, rejected_at FROM outbox WHERE rejected IS NOT NULL").fetchall()
        assert [key for key, _ in kept] == ["run/a"]
        assert abs(kept[0][1] - time.time()) < 60
        spool.remove(spool.first(600))
        spool._file.writer.execute("DELETE FROM outbox")
    with closing(Spool(path)) as spool:
        assert spool._file.writer.execute("PRAGMA auto_vacuum").fetchone() == (2,)


def test_rejected_requests_are_limited_in_age_and_number(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def rejected() -> list[str]:
        return [key for (key,) in spool._read("SELECT key FROM outbox WHERE rejected IS NOT NULL ORDER BY number")]

    def reject(*those: str) -> None:
        for name in those:
            spool.put(request(name))
            spool.set_aside(next(letter for letter in spool.first(10) if letter.key == f"run/{name}"), "found it wrong")
        spool._changes = 500
        spool.tidy()

    monkeypatch.setattr("petif_bluesky.spool._MOST_REJECTED", 3)
    reject("a", "b")
    now = time.time()
    monkeypatch.setattr("petif_bluesky.spool.time.time", lambda: now + 29 * 86_400)
    reject("c")
    assert rejected() == ["run/a", "run/b", "run/c"]
    reject("d", "e")
    assert rejected() == ["run/c", "run/d", "run/e"]
    monkeypatch.setattr("petif_bluesky.spool.time.time", lambda: now + 61 * 86_400)
    reject("f")
    assert rejected() == ["run/f"]


def test_put_does_not_wait_for_other_threads(spool: Spool) -> None:
    spool.put(request("a"))
    with spool._file.lock:  # somebody moves a long log into the file, on a slow disk
        began = time.perf_counter()
        for name in "bcd":
            assert spool.put(request(name))
        took = time.perf_counter() - began
        assert spool.frames == 4
    assert took < 1.0
    assert names(spool.first(10)) == ["a", "b", "c", "d"]
    assert len(spool) == 4


def test_nearly_full_disk_is_logged_once(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = [150e6]
    monkeypatch.setattr("petif_bluesky.spool.shutil.disk_usage", lambda _path: SimpleNamespace(free=free[0]))
    for free[0] in (150e6, 100e6, 900e6, 150e6):
        spool.put_all([request(f"{free[0]}-{number}") for number in range(500)])
        spool.tidy()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert str(spool.path) in told[0]
    assert "150 MB" in told[0]
    assert "500 frames" in told[0]
