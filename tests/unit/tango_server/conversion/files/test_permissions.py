"""Who may read what is made: in place as before, to the last entry of an access list; new files as the recipe says."""

import errno
import os
import shutil
import stat
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner

from tango_server.cli import petif
from tango_server.conversion import convert_file
from tango_server.conversion.errors import OutputWriteError
from tango_server.recipe import Recipe

IN_PLACE = Recipe.preset("xdi", output={"mode": "in_place", "backup": True})
ACCESS_LIST = "system.posix_acl_access"
USER_OBJ, USER, GROUP_OBJ, MASK, OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
NAMED = 12345

pytestmark = pytest.mark.skipif(not hasattr(os, "setxattr"), reason="extended attributes as Linux has them")


def access_list(*entries: tuple[int, int, int]) -> bytes:
    """Return a POSIX access list as the kernel takes it: version 2, then tag, permissions and id of each entry."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


PRIVATE = access_list(
    (USER_OBJ, 6, 2**32 - 1), (USER, 4, NAMED), (GROUP_OBJ, 0, 2**32 - 1), (MASK, 4, 2**32 - 1), (OTHER, 0, 2**32 - 1)
)


@pytest.fixture
def frame(tmp_path: Path, data: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return Path(shutil.copy(data / "qxrd_f32_64.tif", tmp_path / "raw" / "a.tif"))


def attributes(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path) if not name.startswith("security.")}


def set_attribute(path: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        pytest.skip(f"this file system takes no {name}: {error}")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_in_place_keeps_access_list_and_attributes(frame: Path) -> None:
    frame.chmod(0o640)
    set_attribute(frame, ACCESS_LIST, PRIVATE)
    set_attribute(frame, "user.sample", b"CeO2")
    before, status = attributes(frame), frame.stat()
    assert convert_file(frame, IN_PLACE).outcome == "converted"
    for path in (frame, frame.with_name("a.tif.orig")):
        assert attributes(path) == before
        assert (mode(path), path.stat().st_uid, path.stat().st_gid) == (0o640, status.st_uid, status.st_gid)
    assert frame.stat().st_ino != status.st_ino


def test_attribute_that_cannot_be_kept_is_refused_by_name(frame: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_attribute(frame, "user.sample", b"CeO2")
    before = frame.read_bytes()

    def refuse(_target: int, _name: str, _value: bytes) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "setxattr", refuse)
    with pytest.raises(OutputWriteError, match=r"a\.tif.*extended attribute user\.sample"):
        convert_file(frame, IN_PLACE)
    assert frame.read_bytes() == before
    assert [path.name for path in frame.parent.iterdir()] == ["a.tif"]


def test_new_files_get_source_permissions_on_request(frame: Path) -> None:
    frame.chmod(0o640)
    frame.parent.chmod(0o2750)
    frame.with_name("a.tif.metadata").write_text("[metadata]\nwidth=64\nheight=64\nfileBase=a.tif\n")
    recipe = Recipe.preset("xdi", output={"mode": "new", "file_mode": "source", "folder_mode": "source"})
    report = convert_file(frame, recipe)
    assert report.output is not None
    output = Path(report.output)
    assert mode(output) == 0o640
    assert mode(output.parent) == 0o2750
    assert output.stat().st_gid == frame.stat().st_gid
    if report.sidecar == "carried":
        assert mode(output.with_name("a.tif.metadata")) == 0o640


def test_the_command_line_gives_modes_and_group(frame: Path) -> None:
    group = str(frame.stat().st_gid)
    words = ["convert", str(frame), "--file-mode", "0600", "--folder-mode", "0700", "--workers", "1"]
    ended = CliRunner().invoke(petif, words)
    assert ended.exit_code == 0, ended.output
    output = frame.parent.with_name("processed") / "a.tif"
    assert (mode(output), mode(output.parent)) == (0o600, 0o700)
    refused = CliRunner().invoke(petif, ["convert", str(frame), "--in-place", "--file-mode", "0600", "--group", group])
    assert refused.exit_code == 2
    assert "--file-mode" in refused.output
    wrong = CliRunner().invoke(petif, ["convert", str(frame), "--file-mode", "rw"])
    assert wrong.exit_code == 2
    assert "file_mode" in wrong.output
