"""The book of watched folders as a file: who may have it, and what becomes of one that can't be used."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tango_server.jobs.watch import sqlite_store
from tango_server.jobs.watch.folder_state import Changes, Known
from tango_server.jobs.watch.sqlite_store import WatchStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "watched.sqlite"


def written(path: Path) -> None:
    book = WatchStore(path)
    book.write(Path("/raw"), Changes(files={"a.tif": Known()}))
    book.close()


def test_a_damaged_book_is_put_aside_over_no_earlier_one(path: Path) -> None:
    contents = []
    for number in range(3):
        written(path)
        contents.append(b"no database %d" % number * 50)
        path.write_bytes(contents[-1])
        book = WatchStore(path)
        assert book.read(Path("/raw"))[0] == {}
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
    with pytest.raises(OSError, match="a book of version 7; expected 1"):
        WatchStore(path)
    assert path.read_bytes() == before
    assert {found.name for found in path.parent.iterdir()} == {path.name, f"{path.name}.lock"}


def test_a_book_has_one_owner(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tango_server.sqlite.sole_owner.PATIENCE", 0.05)
    owner = WatchStore(path)
    with pytest.raises(OSError, match="expected one that nobody else uses"):
        WatchStore(path)
    owner.close()
    WatchStore(path).close()


def test_last_watched_folders_are_remembered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "KEPT_FOLDERS", 2)
    raw, old, new = Path("/raw"), Path("/old"), Path("/new")
    with closing(WatchStore(path)) as book:
        for folder in (raw, old):
            book.write(folder, Changes(files={"a.tif": Known()}))
    with closing(WatchStore(path)) as book:
        assert book.read(raw)[0]
        book.write(new, Changes(files={"a.tif": Known()}))
    with closing(WatchStore(path)) as book:
        assert {folder for folder in (raw, old, new) if book.read(folder)[0]} == {raw, new}


def test_a_book_that_told_the_time_keeps_its_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "KEPT_FOLDERS", 1)
    with closing(WatchStore(path)) as book:
        for folder in ("/earlier", "/later"):
            book.write(Path(folder), Changes(files={"a.tif": Known()}))
        book._file.writer.execute("UPDATE folders SET opened = 1.7e9 + number")
        book.write(Path("/now"), Changes(files={"a.tif": Known()}))
    with closing(WatchStore(path)) as book:
        assert [name for name in ("/earlier", "/later", "/now") if book.read(Path(name))[0]] == ["/now"]
