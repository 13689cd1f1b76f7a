"""`petif demo`, as a new user runs it."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.waiting import until

PETIF = [sys.executable, "-m", "tango_server"]


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PETIF, "demo", "--size", "256", *arguments],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
    )


@pytest.mark.long
@pytest.mark.timeout(300)  # the second case starts eight programs
@pytest.mark.parametrize("runs", [1, 2], ids=["once", "twice"])
def test_the_demo_converts_all_frames(tmp_path: Path, runs: int) -> None:
    directory = tmp_path / "petif demo"  # a name that a shell takes for two words
    for run in range(1, runs + 1):
        finished = demo(tmp_path, "--frames", "4", "--directory", str(directory))
        assert finished.returncode == 0, finished.stdout + finished.stderr
        assert "All 4 frames were converted" in finished.stdout
        commands = [line.strip() for line in finished.stdout.splitlines() if line.strip().startswith("petif ")]
        assert [shlex.split(command)[1] for command in commands] == ["preview", "inspect", "convert", "serve"]
        for command in commands[:3]:  # as they are pasted
            again = subprocess.run(
                [*PETIF, *shlex.split(command)[1:]], cwd=tmp_path, capture_output=True, timeout=60, check=False
            )
            assert again.returncode == 0, command
        left = directory
        raw = [len(list((left / "raw").glob(f"{name}_*.tif"))) for name in ("sample", "dark")]
        assert raw == [4 * run, run]
        assert len(list((left / "processed").glob("*.tif"))) == 4 * run
        assert "Overexposed pixels: 9" in finished.stdout.replace("\n", " ")
        assert (left / "before-after.png").read_bytes().startswith(b"\x89PNG")
        assert not list(left.rglob("*.petif-tmp"))


@pytest.mark.long
def test_the_demo_fails_if_a_frame_is_missing(tmp_path: Path) -> None:
    foreign = tmp_path / "petif-demo" / "processed" / "sample_0001-00001.tif"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"somebody's own file")
    finished = demo(tmp_path, "--frames", "3")
    assert finished.returncode == 1
    assert "sample_0001-00001.tif" in finished.stdout.replace("\n", "")
    assert foreign.read_bytes() == b"somebody's own file"


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C can't be sent to another console on Windows")
def test_ctrl_c_stops_the_demo_and_leaves_nothing_running(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*PETIF, "demo", "--frames", "2000", "--size", "256"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            raw = tmp_path / "petif-demo" / "raw"
            until(lambda: running.poll() is not None or bool(list(raw.glob("*-00002.tif"))), "frames are taken")
            os.kill(running.pid, signal.SIGINT)
            output, _ = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == 130
    assert "Stopped" in output
    assert not list(tmp_path.rglob("*.petif-tmp"))
