"""The book of watched folders as a file: who may have it, and what becomes of one that can't be used."""

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tango_server.jobs.watch import sqlite_store
from tango_server.jobs.watch.known import Identity, Known, Past
from tango_server.jobs.watch.sqlite_store import WatchStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "watched.sqlite"


def write(book: WatchStore, folder: Path) -> None:
    files = book.open_folder(folder)
    files["a.tif"] = Known()
    files.write(Past(watched_before=True))


def written(path: Path) -> None:
    with closing(WatchStore(path)) as book:
        write(book, Path("/raw"))


def test_a_damaged_book_is_put_aside_over_no_earlier_one(path: Path) -> None:
    contents = []
    for number in range(3):
        written(path)
        contents.append(b"no database %d" % number * 50)
        path.write_bytes(contents[-1])
        book = WatchStore(path)
        assert not book.open_folder(Path("/raw"))
        assert "was damaged (file is not a database)" in book.damage
        book.close()
    aside = [found for found in path.parent.iterdir() if ".damaged-" in found.name]
    assert sorted(found.read_bytes() for found in aside) == contents
    again = WatchStore(path)
    assert again.damage == ""
    again.close()


def test_a_book_of_another_version_is_refused_and_not_changed(path: Path) -> None:
    path.parent.mkdir()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version=7")
    database.execute("CREATE TABLE later (x)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(OSError, match="version 7, not 1"):
        WatchStore(path)
    assert path.read_bytes() == before
    assert {found.name for found in path.parent.iterdir()} == {path.name, f"{path.name}.lock"}


def test_a_book_has_one_owner(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tango_server.sqlite.sole_owner.LOCK_TIMEOUT", 0.05)
    owner = WatchStore(path)
    with pytest.raises(OSError, match="another process has it open"):
        WatchStore(path)
    owner.close()
    WatchStore(path).close()


def test_last_watched_folders_are_remembered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "KEPT_FOLDERS", 2)
    raw, old, new = Path("/raw"), Path("/old"), Path("/new")
    with closing(WatchStore(path)) as book:
        for folder in (raw, old):
            write(book, folder)
    with closing(WatchStore(path)) as book:
        assert book.open_folder(raw)
        write(book, new)
    with closing(WatchStore(path)) as book:
        assert {folder for folder in (raw, old, new) if book.open_folder(folder)} == {raw, new}


def test_store_whose_order_was_a_timestamp_keeps_its_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "KEPT_FOLDERS", 1)
    with closing(WatchStore(path)) as book:
        for folder in ("/earlier", "/later"):
            write(book, Path(folder))
        book._file.writer.execute("UPDATE folders SET opened = 1.7e9 + number")
        write(book, Path("/now"))
    with closing(WatchStore(path)) as book:
        assert [name for name in ("/earlier", "/later", "/now") if book.open_folder(Path(name))] == ["/now"]


NAMES = st.builds("/".join, st.lists(st.sampled_from(["a", "b", "c \udce9", "d"]), min_size=1, max_size=3))
VALUES = st.builds(
    Known,
    st.integers(0, 2**40),
    st.none() | st.builds(Identity, st.integers(-1, 2**63 - 1), st.integers(-(2**63), 2**63 - 1)),
    st.none() | st.text(max_size=4),
    st.none() | st.floats(0, 2e9),
)
NUMBERS = itertools.count()
STEPS = st.lists(st.tuples(st.sampled_from(["set", "set", "get", "pop", "all", "write", "begin"]), NAMES, VALUES))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchStore]:
    with closing(WatchStore(tmp_path_factory.mktemp("state") / "watched.sqlite")) as store:
        yield store


@settings(max_examples=100)
@given(steps=STEPS)
def test_files_do_as_a_dict_does_and_what_was_written_stays(
    store: WatchStore, steps: list[tuple[str, str, Known]]
) -> None:
    folder = Path("/", str(next(NUMBERS)))
    files, plain, kept = store.open_folder(folder), dict[str, Known](), dict[str, Known]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_store, "_AFTER", sqlite_store._AFTER.replace("1000", "2"))
        for step, name, value in steps:
            match step:
                case "set":
                    files[name] = plain[name] = value
                case "get":
                    assert files.get(name) == plain.get(name)
                case "pop":
                    assert files.pop(name, None) == plain.pop(name, None)
                case "all":
                    assert dict(files.items()) == plain
                    assert sorted(files) == sorted(plain)
                case "write":
                    files.write(Past(watched_before=True, floor=len(plain), due=frozenset(plain)))
                    kept = dict(plain)
                case "begin":  # as after a crash
                    files, plain = store.open_folder(folder), dict(kept)
            assert len(files) == len(plain)
            assert (name in files) == (name in plain)
        if files.past.watched_before:
            assert files.past == Past(watched_before=True, floor=len(kept), due=frozenset(kept))


def test_files_that_cannot_be_read_are_an_error_that_is_remembered(path: Path) -> None:
    with closing(WatchStore(path)) as book:
        write(book, Path("/raw"))
        files = book.open_folder(Path("/raw"))
        assert not files.failed
        book._file.writer.execute("DROP TABLE files")
        with pytest.raises(sqlite3.Error):
            files.get("a.tif")
        assert files.failed
