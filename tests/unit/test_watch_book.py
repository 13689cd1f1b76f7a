"""The book of watched folders as a file: who may have it, and what becomes of one that can't be used."""

import sqlite3
from pathlib import Path

import pytest

from tango_server.jobs.watch_book import WatchBook
from tango_server.jobs.watching import Changes, Known

NOON = 1.7e9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "watched.sqlite"


def written(path: Path) -> None:
    book = WatchBook(path, NOON)
    book.write(Path("/raw"), Changes(files={"a.tif": Known()}), NOON)
    book.close()


def test_a_damaged_book_is_put_aside_over_no_earlier_one(path: Path) -> None:
    contents = []
    for number in range(3):
        written(path)
        contents.append(b"no database %d" % number * 50)
        path.write_bytes(contents[-1])
        book = WatchBook(path, NOON)
        assert book.read(Path("/raw"), NOON)[0] == {}
        assert "was damaged (file is not a database)" in book.damage
        book.close()
    aside = [found for found in path.parent.iterdir() if ".damaged-" in found.name]
    assert sorted(found.read_bytes() for found in aside) == contents
    again = WatchBook(path, NOON)
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
        WatchBook(path, NOON)
    assert path.read_bytes() == before
    assert {found.name for found in path.parent.iterdir()} == {path.name, f"{path.name}.lock"}


def test_a_book_has_one_owner(path: Path) -> None:
    owner = WatchBook(path, NOON)
    with pytest.raises(OSError, match="expected one that nobody else uses"):
        WatchBook(path, NOON)
    owner.close()
    WatchBook(path, NOON).close()
