"""Which files of a folder are frames, in real folders."""

import os
import sys
from pathlib import Path

import pytest

from tango_server.jobs.folders import frames_in, is_frame_name


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def found(folder: Path, *, recursive: bool = False, skip_dark: bool = True) -> list[str]:
    frames = frames_in(folder, recursive=recursive, skip_dark=skip_dark)
    return [frame.relative_to(folder).as_posix() for frame in frames]


@pytest.mark.parametrize("name", ["a.tif", "a.tiff", "a.TIF", "a.Tiff", "a b\u00b5-00001.tif", "a.tif.tif"])
def test_a_tiff_in_any_case_is_a_frame(name: str) -> None:
    assert is_frame_name(name)


@pytest.mark.parametrize(
    "name",
    ["a.tif.metadata", "a.cbf", "a.tif.bak", "atif", "tif", "", ".a.tif", ".tif", ".a.tif.0f3e.petif-tmp", "a.tif "],
)
def test_sidecars_other_formats_and_hidden_files_are_no_frames(name: str) -> None:
    assert not is_frame_name(name)
    assert not is_frame_name(name, skip_dark=False)


@pytest.mark.parametrize("name", ["a.dark.tif", "DARK.tif", "darkness.tiff", "a-Dark-00001.TIF"])
def test_darks_are_frames_only_if_asked_for(name: str) -> None:
    assert not is_frame_name(name)
    assert is_frame_name(name, skip_dark=False)


def test_frames_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    fill(tmp_path, "b-00010.tif", "a-00002.tif", "a-00001.TIFF", "b-00009.tif", "notes.txt", "a-00001.tif.metadata")
    assert found(tmp_path) == ["a-00001.TIFF", "a-00002.tif", "b-00009.tif", "b-00010.tif"]


def test_a_word_in_the_name_of_the_folder_makes_no_dark(tmp_path: Path) -> None:
    assert found(fill(tmp_path / "dark_matter", "a.tif", "a.dark.tif")) == ["a.tif"]


def test_darks_are_listed_if_asked_for(tmp_path: Path) -> None:
    assert found(fill(tmp_path, "a.tif", "a.dark.tif"), skip_dark=False) == ["a.dark.tif", "a.tif"]


def test_sub_folders_are_left_out(tmp_path: Path) -> None:
    assert found(fill(tmp_path, "a.tif", "sub/b.tif")) == ["a.tif"]


def test_sub_folders_follow_if_asked_for(tmp_path: Path) -> None:
    fill(tmp_path, "z.tif", "b/b.tif", "b/c/c.tif", "b/c/c.dark.tif", "a/a.tif", "dark/d.tif", "e/notes.txt")
    assert found(tmp_path, recursive=True) == ["z.tif", "a/a.tif", "b/b.tif", "b/c/c.tif", "dark/d.tif"]
    assert "b/c/c.dark.tif" in found(tmp_path, recursive=True, skip_dark=False)


def test_a_folder_that_is_called_like_a_frame_is_none(tmp_path: Path) -> None:
    fill(tmp_path, "folder.tif/inside.tif")
    assert found(tmp_path) == []
    assert found(tmp_path, recursive=True) == ["folder.tif/inside.tif"]


def test_a_folder_without_frames_has_none(tmp_path: Path) -> None:
    assert found(fill(tmp_path, "notes.txt")) == []


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_links_to_frames_are_frames_and_links_to_nothing_are_not(tmp_path: Path) -> None:
    fill(tmp_path, "elsewhere/a.tif")
    (tmp_path / "link.tif").symlink_to(tmp_path / "elsewhere" / "a.tif")
    (tmp_path / "broken.tif").symlink_to(tmp_path / "nothing.tif")
    assert found(tmp_path) == ["link.tif"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_links_to_folders_are_not_followed_so_that_loops_end(tmp_path: Path) -> None:
    fill(tmp_path, "sub/a.tif")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert found(tmp_path, recursive=True) == ["sub/a.tif"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names that are no text")
def test_a_name_that_is_no_text_is_listed(tmp_path: Path) -> None:
    name = os.fsdecode(b"M\xfcller.tif")
    assert found(fill(tmp_path, name)) == [name]


@pytest.mark.parametrize("name", ["nowhere", "file.tif"])
def test_what_can_not_be_listed_is_an_error(name: str, tmp_path: Path) -> None:
    fill(tmp_path, "file.tif")
    with pytest.raises(OSError, match=name):
        list(frames_in(tmp_path / name))
