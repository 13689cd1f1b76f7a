"""Which files of a folder are frames, in real folders."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tango_server.conversion.errors import OutsideRootsError
from tango_server.conversion.files.roots import Roots
from tango_server.jobs.frame_listing import FrameLister, Listing, frames_in, is_frame_name, packed_names, unpacked_names
from tango_server.jobs.state_machine.events import Instant

WITH_LINKS = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def found(folder: Path, *, recursive: bool = False, skip_dark: bool = True) -> list[str]:
    frames = frames_in(folder, recursive=recursive, skip_dark=skip_dark)
    return [frame.relative_to(folder).as_posix() for frame in frames]


FRAMES = (
    "a.tif", "a.tiff", "a.TIF", "a.Tiff", "a b\u00b5-00001.tif", "a.tif.tif", "a.cbf", "a.EDF", "a.mccd", "a.h5",
    "a.hdf5", "a.NXS",
)  # fmt: skip
OTHERS = (
    "a.tif.metadata", "a.tif.bak", "atif", "tif", "", ".a.tif", ".tif", ".a.tif.0f3e.petif-tmp", "a.tif ",
)  # fmt: skip
DARKS = ("a.dark.tif", "DARK.tif", "darkness.tiff", "a-Dark-00001.TIF")


def test_tiffs_in_any_case_are_frames_and_darks_if_asked_for() -> None:
    for names, light, dark in ((FRAMES, True, True), (OTHERS, False, False), (DARKS, False, True)):
        assert {name: is_frame_name(name) for name in names} == dict.fromkeys(names, light)
        assert {name: is_frame_name(name, skip_dark=False) for name in names} == dict.fromkeys(names, dark)


def test_frames_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    fill(tmp_path, "b-00010.tif", "a-00002.tif", "a-00001.TIFF", "b-00009.tif", "notes.txt", "a-00001.tif.metadata")
    assert found(tmp_path) == ["a-00001.TIFF", "a-00002.tif", "b-00009.tif", "b-00010.tif"]


def test_sub_folders_and_darks_are_listed_if_asked_for(tmp_path: Path) -> None:
    fill(tmp_path, "z.tif", "z.dark.tif", "b/b.tif", "b/c/c.tif", "b/c/c.dark.tif", "a/a.tif", "e/notes.txt")
    fill(tmp_path, "dark/d.tif", "dark/d.dark.tif", "folder.tif/inside.tif")
    assert found(tmp_path) == ["z.tif"]
    assert found(tmp_path, skip_dark=False) == ["z.dark.tif", "z.tif"]
    below = ["a/a.tif", "b/b.tif", "b/c/c.tif", "dark/d.tif", "folder.tif/inside.tif"]
    assert found(tmp_path, recursive=True) == ["z.tif", *below]
    assert "b/c/c.dark.tif" in found(tmp_path, recursive=True, skip_dark=False)
    assert found(tmp_path / "dark") == ["d.tif"], "the name of the folder makes no dark"
    assert found(tmp_path / "e") == []


@WITH_LINKS
def test_links_to_files_are_frames_but_folder_links_are_ignored(tmp_path: Path) -> None:
    fill(tmp_path, "elsewhere/a.tif")
    (tmp_path / "link.tif").symlink_to(tmp_path / "elsewhere" / "a.tif")
    (tmp_path / "broken.tif").symlink_to(tmp_path / "nothing.tif")
    (tmp_path / "loop.tif").symlink_to(tmp_path / "loop.tif")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert found(tmp_path) == ["link.tif"]
    assert found(tmp_path, recursive=True) == ["link.tif", "elsewhere/a.tif"]
    assert FrameLister(tmp_path).scan().came == ("link.tif",)


@WITH_LINKS
def test_folder_that_became_a_link_is_not_listed_below_roots(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", "secret.tif")
    root = fill(tmp_path.resolve() / "root", "raw/a.tif")
    roots = Roots.of([root])
    assert list(frames_in(root / "raw", roots=roots)) == [root / "raw" / "a.tif"]
    (root / "raw").rename(root / "before")
    (root / "raw").symlink_to(outside)
    with pytest.raises(OutsideRootsError, match="symbolic link"):
        list(frames_in(root / "raw", roots=roots))
    assert list(frames_in(root / "raw")) == [root / "raw" / "secret.tif"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names that are no text")
def test_a_name_that_is_no_text_is_listed(tmp_path: Path) -> None:
    name = os.fsdecode(b"M\xfcller.tif")
    assert found(fill(tmp_path, name)) == [name]


@pytest.mark.parametrize("name", ["nowhere", "file.tif"])
def test_what_can_not_be_listed_is_an_error(name: str, tmp_path: Path) -> None:
    fill(tmp_path, "file.tif")
    with pytest.raises(OSError, match=name):
        list(frames_in(tmp_path / name))


def test_lister_finds_what_came_and_went_since_last_time(tmp_path: Path) -> None:
    lister = FrameLister(fill(tmp_path, "b.tif", "a.tif", "a.dark.tif", "a.tif.metadata", "sub/c.tif"))
    assert lister.scan() == Listing(("a.tif", "b.tif"), (), {})
    assert lister.scan() == Listing((), (), {})
    (tmp_path / "a.tif").rename(tmp_path / "d.tif")
    (tmp_path / "a.tif.metadata").unlink()
    assert lister.scan() == Listing(("d.tif",), ("a.tif",), {})


def test_a_lister_goes_on_from_what_was_known(tmp_path: Path) -> None:
    fill(tmp_path, "a.tif", "sub/c.tif", "sub/d.tif")
    scan = FrameLister(tmp_path, ["a.tif", "b.tif", "sub/c.tif", "gone/e.tif"], recursive=True).scan()
    assert scan.came == ("sub/d.tif",)
    assert sorted(scan.gone) == ["b.tif", "gone/e.tif"]


def test_lister_skips_hidden_and_excluded_sub_folders(tmp_path: Path) -> None:
    fill(tmp_path, "z.tif", "b/b.tif", "b/c/c.tif", "a/a.tif", ".snap/s.tif", "out/o.tif", "folder.tif/f.tif")
    lister = FrameLister(tmp_path, recursive=True)
    scan = lister.scan(excluded=[tmp_path / "out"])
    assert scan.came == ("z.tif", "a/a.tif", "b/b.tif", "b/c/c.tif", "folder.tif/f.tif")
    assert scan.excluded == {"out"}
    (tmp_path / "b" / "c" / "c.tif").unlink()
    (tmp_path / "b" / "c").rmdir()
    (tmp_path / "b").rename(tmp_path / "e")
    scan = lister.scan(excluded=[tmp_path / "out"])
    assert (scan.came, sorted(scan.gone)) == (("e/b.tif",), ["b/b.tif", "b/c/c.tif"])


@WITH_LINKS
def test_a_link_is_a_frame_from_when_its_target_is_there(tmp_path: Path) -> None:
    (tmp_path / "link.tif").symlink_to(tmp_path / "elsewhere")
    lister = FrameLister(tmp_path)
    assert lister.scan().came == ()
    (tmp_path / "elsewhere").touch()
    assert lister.scan().came == ("link.tif",)
    assert lister.scan().came == ()


def test_files_in_an_unlistable_folder_have_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.tif", "locked/b.tif", "locked/deep/c.tif")
    lister = FrameLister(tmp_path, recursive=True)
    lister.scan()
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refuse)
        fill(tmp_path, "d.tif", "locked/e.tif")
        assert lister.scan() == Listing(("d.tif",), (), {"locked": "Permission denied"})
    assert lister.scan() == Listing(("locked/e.tif",), (), {})


def test_nothing_is_gone_when_the_folder_is_back(tmp_path: Path) -> None:
    folder = fill(tmp_path / "raw", "a.tif", "sub/b.tif")
    lister = FrameLister(folder, recursive=True)
    lister.scan()
    folder.rename(tmp_path / "away")
    with pytest.raises(OSError, match="raw"):
        lister.scan()
    (tmp_path / "away").rename(folder)
    assert lister.scan() == Listing((), (), {})


class Clock:
    """Reads what a test says; folders were changed `age` seconds before its wall clock."""

    def __init__(self) -> None:
        self.monotonic, self.age = 0.0, 120.0

    def __call__(self) -> Instant:
        return Instant(self.monotonic, time.time() + self.age)


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that are listed, by their names."""
    listed: list[str] = []
    scandir = os.scandir

    def listing(path: Any) -> Any:
        listed.append(Path(path).name)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", listing)
    return listed


def test_quiet_folders_are_not_listed_at_each_poll(tmp_path: Path, listings: list[str]) -> None:
    fill(tmp_path, "a/old.tif", "b/old.tif")
    clock = Clock()
    lister = FrameLister(tmp_path, recursive=True, clock=clock)
    assert sorted(lister.scan().came) == ["a/old.tif", "b/old.tif"]
    listings.clear()
    for _ in range(3):
        assert lister.scan() == Listing((), (), {}, frozenset())
    assert listings == []
    os.utime(fill(tmp_path, "a/new.tif") / "a", (2e9, 2e9))  # whatever the clock of the file server says
    (tmp_path / "b" / "old.tif").unlink()
    scan = lister.scan()
    assert (scan.came, scan.gone) == (("a/new.tif",), ("b/old.tif",))
    assert listings == ["a", "b"]


def test_a_quiet_folder_is_listed_once_a_minute_all_the_same(tmp_path: Path, listings: list[str]) -> None:
    fill(tmp_path, "old.tif")
    stamp = tmp_path.stat().st_mtime_ns
    clock = Clock()
    lister = FrameLister(tmp_path, clock=clock)
    lister.scan()
    fill(tmp_path, "new.tif")
    os.utime(tmp_path, ns=(stamp, stamp))  # a file system that does not tell
    assert lister.scan().came == ()
    clock.monotonic = 61.0
    assert lister.scan().came == ("new.tif",)
    assert len(listings) == 2


def test_recently_changed_folder_is_listed_at_each_poll(tmp_path: Path, listings: list[str]) -> None:
    clock = Clock()
    clock.age = 30.0
    lister = FrameLister(fill(tmp_path, "a.tif"), clock=clock)
    for _ in range(3):
        lister.scan()
    assert len(listings) == 3


@WITH_LINKS
def test_link_with_a_missing_target_keeps_its_folder_active(tmp_path: Path) -> None:
    folder = fill(tmp_path / "watched", "a.tif")
    (folder / "late.tif").symlink_to(tmp_path / "target.tif")
    lister = FrameLister(folder, clock=Clock())
    assert lister.scan().came == ("a.tif",)
    (tmp_path / "target.tif").touch()
    assert lister.scan().came == ("late.tif",)


@given(names=st.sets(st.text(st.characters(exclude_characters="\0/"), min_size=1)))
def test_packed_names_come_back(names: set[str]) -> None:
    assert unpacked_names(packed_names(names)) == names


SERIES = (
    "a_m01.nxs", "a_m02.nxs", "a_master.nxs", "b_m1_part00000.nxs", "b_m2_part00000.nxs", "c_master.h5",
    "c_data_000001.h5", "c_data_000002.h5", "d_data_000001.h5", "e.h5", "f.tif",
)  # fmt: skip
OF_SERIES = ["a_m01.nxs", "b_m1_part00000.nxs", "c_master.h5", "d_data_000001.h5", "e.h5", "f.tif"]


def test_of_files_converted_together_one_stands_for_all(tmp_path: Path) -> None:
    fill(tmp_path, *SERIES)
    assert found(tmp_path) == OF_SERIES
    assert list(FrameLister(tmp_path).scan().came) == OF_SERIES


def test_a_file_that_stands_for_no_frames_neither_comes_nor_goes(tmp_path: Path) -> None:
    fill(tmp_path, *SERIES)
    lister = FrameLister(tmp_path)
    lister.scan()
    for name in ("a_m02.nxs", "c_data_000001.h5", "d_data_000001.h5"):
        (tmp_path / name).unlink()
    assert lister.scan().gone == ("d_data_000001.h5",)
    for path in tmp_path.iterdir():
        path.unlink()
    assert sorted(lister.scan().gone) == ["a_m01.nxs", "b_m1_part00000.nxs", "c_master.h5", "e.h5", "f.tif"]
