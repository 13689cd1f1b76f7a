"""A server whose data lie on a mount that goes away, in a mount namespace of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tango

from tests.system.waiting import reports, submit, until

PROGRAM = "from tango_server.cli import main; main()"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("nsenter") is None,
        reason="only root mounts file systems, in a namespace of its own",
    ),
]


class Mounted:
    """A server in its namespace, with a tmpfs as its root."""

    def __init__(self, root: Path, state: Path) -> None:
        self.root = root
        serve = [sys.executable, "-c", PROGRAM, "serve", "--port", "0", "--root", str(root), "--state-dir", str(state)]
        options = ["--set", "numworkers=1", "--set", "timeout=2", "--set", "settle_time=0.1"]
        script = f'mount -t tmpfs frames "{root}" && mkdir "{root}/raw" && exec "$@"'
        self.process = subprocess.Popen(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *serve, *options],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("ready: "):
            pytest.skip("no file system can be mounted here")
        self.proxy = tango.DeviceProxy(line.removeprefix("ready: ").strip())

    def run(self, *words: object) -> str:
        """Run a program in the namespace of the server."""
        command = ["nsenter", "-t", str(self.process.pid), "-m", *map(str, words)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=30)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounted]:
    (tmp_path / "data").mkdir()
    mounted = Mounted(tmp_path / "data", tmp_path / "state")
    yield mounted
    mounted.stop()


def test_frames_wait_for_their_mount_and_nothing_is_written_below_it(mounted: Mounted, data: Path) -> None:
    frame = data / "qxrd_f32_64.tif"
    mounted.run("cp", frame, mounted.root / "raw" / "a.tif")
    before = submit(mounted.proxy, {"source": str(mounted.root / "raw" / "a.tif")})
    assert [report["outcome"] for report in reports(mounted.proxy, before)] == ["converted"]
    mounted.run("mount", "--bind", mounted.root.parent / "state", mounted.root)  # what lies below a mount is elsewhere
    until(lambda: mounted.proxy.state() == tango.DevState.FAULT, "it is noticed")
    assert "the file system is not mounted" in mounted.proxy.status()
    mounted.run("mkdir", "-p", mounted.root / "raw")
    mounted.run("cp", frame, mounted.root / "raw" / "b.tif")  # a frame that seems to be there
    waiting = submit(mounted.proxy, {"source": str(mounted.root / "raw" / "b.tif")})
    assert mounted.proxy.QueueLength == 1
    mounted.run("sleep", "4")  # longer than a frame is awaited
    assert mounted.proxy.QueueLength == 1
    assert "processed" not in mounted.run("ls", mounted.root)
    mounted.run("rm", "-r", mounted.root / "raw")
    mounted.run("umount", mounted.root)
    mounted.run("cp", frame, mounted.root / "raw" / "b.tif")
    assert [report["outcome"] for report in reports(mounted.proxy, waiting)] == ["converted"]
    assert mounted.run("ls", mounted.root / "processed").split() == ["a.tif", "b.tif"]
    assert mounted.proxy.state() in {tango.DevState.ON, tango.DevState.RUNNING}
