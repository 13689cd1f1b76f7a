"""Temporary files of `petif convert`: those that somebody is at work on stay, wherever he runs; others go."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tango_server.conversion.files.atomic_write import Attempt, publish
from tango_server.conversion.files.temporary_names import is_in_use, temporary_path
from tango_server.jobs.orphans import OURS, remove_orphans

NOBODY = 2**22 + 1
"""A process id beyond all that Linux gives: that of a process in another container, as far as can be told from here."""


def temporary(folder: Path, pid: int = NOBODY) -> Path:
    path = temporary_path(folder / "a.tif", f"{OURS}{pid}-0")
    path.write_bytes(b"half a frame")
    return path


def test_what_a_killed_call_left_goes(tmp_path: Path) -> None:
    left = temporary(tmp_path)
    remove_orphans([tmp_path])
    assert not left.exists()


@pytest.mark.skipif(os.name == "nt", reason="no file that is open is removed there")
def test_a_file_that_another_container_writes_stays(tmp_path: Path) -> None:
    output = tmp_path / "a.tif"

    def write_slowly(file: object) -> None:
        (written,) = [path for path in tmp_path.iterdir() if path.name.endswith("petif-tmp")]
        assert is_in_use(written)
        remove_orphans([tmp_path])
        file.write(b"a frame")  # type: ignore[attr-defined]

    publish(output, write_slowly, Attempt(f"{OURS}{NOBODY}-0"))
    assert output.read_bytes() == b"a frame"
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.skipif(os.name == "nt", reason="no file that is open is removed there")
def test_the_mark_ends_with_its_process(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path\n"
        "from tango_server.conversion.files.atomic_write import Attempt, publish\n"
        f"publish(Path(sys.argv[1]), lambda file: os._exit(9), Attempt('{OURS}{NOBODY}-0'))"
    )
    ended = subprocess.run([sys.executable, "-c", program, tmp_path / "a.tif"], check=False)
    assert ended.returncode == 9
    (left,) = tmp_path.iterdir()
    assert is_in_use(left) is False
    remove_orphans([tmp_path])
    assert not left.exists()


def test_without_file_locks_only_old_orphans_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tango_server.jobs.orphans.is_in_use", lambda _path: None)  # a file system without locks
    young, old = temporary(tmp_path), temporary(tmp_path, os.getpid())
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    remove_orphans([tmp_path])
    assert (young.exists(), old.exists()) == (True, False)
