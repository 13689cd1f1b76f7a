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
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start programs in the folder of the tutorial; kill those that are left."""
    started: list[subprocess.Popen[str]] = []
    own = {"PYTHONPATH": str(PROJECT), "XDG_STATE_HOME": str(tmp_path / "state"), "TMPDIR": str(tmp_path)}

    def run(*words: str) -> subprocess.Popen[str]:
        command, environment, pipe = [sys.executable, *words], {**os.environ, **own}, subprocess.PIPE
        started.append(subprocess.Popen(command, cwd=tmp_path, stdin=pipe, stdout=pipe, text=True, env=environment))
        return started[-1]

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


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.long
def test_scan_is_converted_when_the_server_starts_late(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    port = str(free_port("127.0.0.1"))
    make_folder, serve, *_ = [command for block in blocks("sh", pages=[PAGE]) for command in commands(block)]
    assert make_folder.words == ["mkdir", "-p", "first-steps/raw"]
    (tmp_path / "first-steps" / "raw").mkdir(parents=True)
    serving = ["-m", "tango_server", *serve.words[1:], "--port", port, "--workers", "1"]
    *connected, with_server, without_server = [block.text for block in blocks("python", pages=[PAGE])]
    session = "".join([*connected, with_server, NEXT, without_server, NEXT])
    assert ADDRESS in session
    address = ADDRESS.replace("45450", port)
    session = session.replace(ADDRESS, address).replace('raw")', 'raw", shape=(64, 64))')

    server = start(*serving)
    assert address in told(server, "ready: ")
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
