"""The tutorial's page about a server and a scan, with its own lines: the server goes away and comes back."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tango_server.addresses import free_port
from tests.docs.pages import DOCS, PROJECT, blocks
from tests.docs.shell import commands
from tests.system.waiting import until

PAGE = DOCS / "tutorial" / "3-session.md"
ADDRESS = "tango://127.0.0.1:45450/"
NEXT = "\nprint('NEXT', flush=True)\ninput()\n"

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.name == "nt", reason="Ctrl-C can't be sent to another console on Windows"),
]


@pytest.fixture
def port() -> int:
    return free_port("127.0.0.1")


@pytest.fixture
def start(tmp_path: Path, port: int) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start programs in the folder of the tutorial; kill those that are left."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(PROJECT),
                "XDG_STATE_HOME": str(tmp_path / "state"),
                "TMPDIR": str(tmp_path),
            },
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def told(process: subprocess.Popen[str], last: str) -> str:
    """Return what a program prints, up to a line that begins with `last`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(last):
            return "".join(lines)
    raise AssertionError(f"it ended without {last}: {''.join(lines)}")


def test_scan_is_converted_also_if_the_server_comes_late(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path, port: int
) -> None:
    make_folder, serve, *_ = [command for block in blocks("sh", pages=[PAGE]) for command in commands(block)]
    assert make_folder.words == ["mkdir", "-p", "first-steps/raw"]
    (tmp_path / "first-steps" / "raw").mkdir(parents=True)
    serving = ["-m", "tango_server", *serve.words[1:], "--port", str(port), "--workers", "1"]
    *connected, with_server, without_server = [block.text for block in blocks("python", pages=[PAGE])]
    session = "".join([*connected, with_server, NEXT, without_server, NEXT])
    assert ADDRESS in session
    session = session.replace(ADDRESS, f"tango://127.0.0.1:{port}/").replace('raw")', 'raw", shape=(64, 64))')

    server = start(*serving)
    assert ADDRESS.replace("45450", str(port)) in told(server, "ready: ")
    running = start("-c", session)
    answer = told(running, "NEXT")
    assert "5 5 0\n1 converted " in answer
    assert answer.count(" converted ") == 5
    server.send_signal(signal.SIGINT)
    assert server.wait(30) == 0
    go_on(running)
    assert "3 0 False" in told(running, "NEXT")
    told(start(*serving), "ready: ")
    until(lambda: len(list((tmp_path / "first-steps" / "processed").glob("*.tif"))) == 8, "all frames are converted")
    go_on(running)
    assert running.wait(30) == 0


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
