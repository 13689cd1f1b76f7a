"""Files appear whole or not at all, with the rights that were asked for."""

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from tango_server.conversion import convert_file
from tango_server.conversion.errors import OutputWriteError, SourceChangedError
from tango_server.conversion.files.atomic_write import Attempt, publish, write_parts
from tango_server.conversion.files.ownership import Ownership
from tango_server.conversion.files.temporary_names import remove_leftovers, temporary_path
from tango_server.recipe import Recipe
from tests.unit.full_disk import no_file_grows_beyond

posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has no such permission bits")


@pytest.fixture
def source(tmp_path: Path, data: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return Path(shutil.copy(data / "qxrd_f32_64.tif", tmp_path / "raw" / "a.tif"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_partial_file_is_never_visible(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    seen: list[list[str]] = []

    def parts() -> "list[bytes]":
        for part in (b"first", b"second"):
            seen.append([name for name in names(tmp_path) if not name.endswith(".petif-tmp")])
            yield part

    assert publish(output, write_parts(parts()), Attempt("job")) == 11
    assert seen == [[], []]
    assert output.read_bytes() == b"firstsecond"
    assert names(tmp_path) == ["out.tif"]


def test_a_failure_midway_leaves_the_old_file_alone(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    output.write_bytes(b"old")

    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputWriteError, match=r"out\.tif.*No space left"):
        publish(output, fail, Attempt("job"))
    assert output.read_bytes() == b"old"
    assert names(tmp_path) == ["out.tif"]


@pytest.mark.parametrize("durable", [False, True])
def test_an_exclusive_attempt_never_replaces(tmp_path: Path, durable: bool) -> None:
    output = tmp_path / "out.tif"
    publish(output, write_parts([b"first"]), Attempt("a", durable=durable, exclusive=True))
    with pytest.raises(FileExistsError):
        publish(output, write_parts([b"second"]), Attempt("b", durable=durable, exclusive=True))
    assert output.read_bytes() == b"first"
    assert names(tmp_path) == ["out.tif"]


def test_an_exclusive_attempt_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[tuple[str, ...]] = []

    def refuse(*names: str, **options: object) -> None:
        refused.append(names)
        raise PermissionError(1, "Operation not permitted", *names)

    monkeypatch.setattr(os, "link", refuse)  # as some network file systems do
    test_an_exclusive_attempt_never_replaces(tmp_path, durable=False)
    assert len(refused) == 2


def test_leftovers_of_one_job_are_found_by_its_token(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    for token in ("mine", "mine", "other"):
        temporary_path(output, token).write_bytes(b"half")
    remove_leftovers(output, "mine")
    (left,) = names(tmp_path)
    assert left.startswith(".out.tif.other.")
    remove_leftovers(tmp_path / "no folder" / "out.tif", "mine")


@posix_only
def test_modes_of_new_files_and_folders(tmp_path: Path) -> None:
    output = tmp_path / "new" / "deep" / "out.tif"
    ownership = Ownership(file_mode=0o640, folder_mode=0o2770, group=os.getegid())
    publish(output, write_parts([b"x"]), Attempt("a", ownership=ownership))
    assert output.stat().st_mode & 0o7777 == 0o640
    assert output.parent.stat().st_mode & 0o7777 == output.parent.parent.stat().st_mode & 0o7777 == 0o2770
    before = tmp_path.stat().st_mode
    publish(tmp_path / "out.tif", write_parts([b"x"]), Attempt("a", ownership=ownership))
    assert tmp_path.stat().st_mode == before, "the mode of an existing folder was changed"


@posix_only
def test_a_recipe_sets_modes_mtime_and_group(tmp_path: Path, source: Path) -> None:
    os.utime(source, ns=(1_000_000_000, 1_234_567_890_000_000_000))
    output = {"file_mode": "0664", "folder_mode": "2775", "preserve_mtime": True}
    report = convert_file(source, Recipe.preset("xdi", output=output))
    written = Path(report.output or "")
    assert written.stat().st_mode & 0o7777 == 0o664
    assert written.parent.stat().st_mode & 0o7777 == 0o2775
    assert written.stat().st_mtime_ns == 1_234_567_890_000_000_000
    unknown = Recipe.preset("xdi", output={"group": "no-such-group-here", "folder": str(tmp_path / "other")})
    with pytest.raises(OutputWriteError, match="no-such-group-here"):
        convert_file(source, unknown)
    assert not list(tmp_path.rglob("*.petif-tmp"))


def test_a_backup_keeps_the_first_original(source: Path) -> None:
    original = source.read_bytes()
    for rotation in (90, 180):
        output = {"mode": "in_place", "backup": True, "force": True}
        convert_file(source, Recipe.preset("xdi", rotation=rotation, output=output))
        assert source.with_name("a.tif.orig").read_bytes() == original
    assert names(source.parent) == ["a.tif", "a.tif.orig"]


def test_a_source_that_is_replaced_meanwhile_is_not_overwritten(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tango_server.conversion.publishing as room

    real: Callable[..., object] = room.image_writer

    def meddling(*args: object) -> object:
        write = real(*args)
        newer = tmp_path / "newer"
        newer.write_bytes(b"a newer frame")
        newer.replace(source)
        return write

    monkeypatch.setattr(room, "image_writer", meddling)
    with pytest.raises(SourceChangedError, match="left unchanged"):
        convert_file(source, Recipe.preset("xdi", output={"mode": "in_place"}))
    assert source.read_bytes() == b"a newer frame"
    assert names(source.parent) == ["a.tif"]


@posix_only
@pytest.mark.parametrize("umask", [0, 0o022, 0o027, 0o077])
def test_the_umask_holds_and_nothing_is_writable_for_everybody(tmp_path: Path, umask: int) -> None:
    output = tmp_path / "new" / "deep" / "out.tif"
    before = os.umask(umask)
    try:
        publish(output, write_parts([b"x"]), Attempt("a"))
    finally:
        os.umask(before)
    assert output.stat().st_mode & 0o7777 == 0o664 & ~umask
    assert output.parent.stat().st_mode & 0o777 == output.parent.parent.stat().st_mode & 0o777 == 0o775 & ~umask


@posix_only
def test_a_new_folder_keeps_the_setgid_bit_that_it_inherits(tmp_path: Path) -> None:
    tmp_path.chmod(0o2775)
    if not tmp_path.stat().st_mode & stat.S_ISGID:
        pytest.skip("this file system keeps no setgid bit")
    for name, ownership in (("plain", Ownership()), ("given", Ownership(folder_mode=0o770))):
        publish(tmp_path / name / "out.tif", write_parts([b"x"]), Attempt("a", ownership=ownership))
        assert (tmp_path / name).stat().st_mode & stat.S_ISGID, name
    assert (tmp_path / "given").stat().st_mode & 0o777 == 0o770


@posix_only
def test_a_frame_replaced_in_place_hands_on_no_setuid_bit(source: Path) -> None:
    source.chmod(0o6754)
    convert_file(source, Recipe.preset("xdi", output={"mode": "in_place", "backup": True}))
    for path in (source, source.with_name("a.tif.orig")):
        assert path.stat().st_mode & 0o7777 == 0o754


@pytest.mark.parametrize("name", ["n" * 251 + ".tif", "\u03a9" * 125 + ".tif"])
def test_the_longest_name_has_room_for_its_temporary_file(tmp_path: Path, name: str) -> None:
    output = tmp_path / name
    publish(output, write_parts([b"frame"]), Attempt("0123456789abcdef"))
    assert names(tmp_path) == [name]
    temporary_path(output, "0123456789abcdef").write_bytes(b"half")
    remove_leftovers(output, "0123456789abcdef")
    assert names(tmp_path) == [name]


@posix_only
@pytest.mark.parametrize("mode", ["new", "in_place"])
@pytest.mark.parametrize("compression", ["none", "deflate"])
@pytest.mark.parametrize("limit", [100, 3000])
def test_a_full_disk_leaves_the_source_and_no_partial_output(
    tmp_path: Path, source: Path, mode: str, compression: str, limit: int
) -> None:
    before = source.read_bytes()
    recipe = Recipe.preset("xdi", output={"mode": mode}, compression=compression)
    with no_file_grows_beyond(limit), pytest.raises(OutputWriteError):
        convert_file(source, recipe)
    assert source.read_bytes() == before
    assert [path.name for path in tmp_path.rglob("*.*")] == ["a.tif"]
