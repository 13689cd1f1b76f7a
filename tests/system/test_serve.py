"""`petif serve` where standard output, the terminal, an address or a package is not as one would like."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tango
from click.testing import CliRunner

from tango_server.addresses import address_of, free_port
from tango_server.cli import petif
from tango_server.jobs.executors import factory
from tests.system.waiting import PATIENCE, until

Serve = Callable[..., "subprocess.Popen[str]"]
_PROGRAM = (  # whatever this suite was started with: `nohup`, say
    "import signal; hasattr(signal, 'SIGHUP') and signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    "from tango_server.cli import main; main()"
)


@pytest.fixture
def serve(root: Path, tmp_path: Path) -> Iterator[Serve]:
    started: list[subprocess.Popen[str]] = []

    def start(*options: str, shell: str = '"$@"') -> "subprocess.Popen[str]":
        words = [sys.executable, "-c", _PROGRAM, "serve", "--root", str(root), "--state-dir", str(tmp_path / "state")]
        command = ["sh", "-c", f"exec {shell}", "sh", *words, "--set", "numworkers=1", *options]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def answers(port: int) -> bool:
    try:
        return bool(tango.DeviceProxy(address_of("127.0.0.1", port, "petif/converter/1")).state() == tango.DevState.ON)
    except tango.DevFailed:
        return False


@pytest.mark.skipif(os.name == "nt", reason="shells of another kind")
@pytest.mark.parametrize(
    "shell",
    [
        pytest.param('"$@" >&-', marks=pytest.mark.long),
        pytest.param('"$@" >/dev/full', marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="")),
    ],
    ids=["closed", "full"],
)
def test_a_server_whose_standard_output_takes_nothing_serves(serve: Serve, shell: str) -> None:
    port = free_port("127.0.0.1")
    process = serve("--port", str(port), shell=shell)
    until(lambda: answers(port), "it answers")
    process.terminate()
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert f"ready: tango://127.0.0.1:{port}/" in errors


@pytest.mark.skipif(os.name == "nt", reason="no such signal there")
def test_a_server_ends_in_good_order_with_its_terminal(serve: Serve) -> None:
    process = serve("--port", "0")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ready: ")
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_address_that_tango_can_not_take_is_refused_by_its_name(host: str, root: Path, tmp_path: Path) -> None:
    words = ["serve", "--host", host, "--root", str(root), "--state-dir", str(tmp_path / "state")]
    ended = CliRunner().invoke(petif, words)
    assert ended.exit_code == 2
    assert f"Cannot listen on {host}: IPv6" in ended.output


def test_an_executor_whose_package_is_missing_names_the_extra(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factory, "find_spec", lambda _name: None)
    words = ["serve", "--check", "--root", str(root), "--state-dir", str(tmp_path / "state")]
    ended = CliRunner().invoke(
        petif, [*words, "--set", "executor=dask", "--set", "dask_scheduler=tcp://127.0.0.1:8786"]
    )
    assert ended.exit_code == 1
    assert "pip install 'petif-bluesky[dask]'" in ended.output
