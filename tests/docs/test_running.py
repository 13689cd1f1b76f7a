"""The lines of the documentation run, one by one, on a small folder of frames: without a server, then with one."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from fabio.edfimage import EdfImage

from petif_bluesky.sim import SimulatedPerkinElmer
from tango_server.cli import petif
from tango_server.client.local_server import LocalServer
from tests.docs.pages import DOCS, PAGES, PROJECT, blocks, name_of
from tests.docs.shell import Command, commands

RUNNING = {"average", "convert", "inspect", "preview", "watch"}
HOW_TO = DOCS / "how-to"
TUTORIAL = sorted((DOCS / "tutorial").glob("[0-9]*.md"))
TALKING = {"acknowledge", "add", "reports", "retry", "statistics", "status"}
TAKES_LONG = {"watch.md"}
ELSEWHERE = ("/gpfs/current", "/data", "/tmp", "/var/lib", "/etc/petif")


def lines(pages: list[Path], *names: str) -> list[Command]:
    """Return the calls of these subcommands of `petif` on some pages."""
    found = [command for block in blocks("sh", pages=pages) for command in commands(block)]
    return [command for command in found if command.program == "petif" and {*names} & {*command.words[1:2]}]


@pytest.fixture(scope="module", autouse=True)
def tracker(long_lived: set[int]) -> None:
    """multiprocessing starts one with the first worker; it lives as long as this process."""
    if os.name != "nt":
        resource_tracker.ensure_running()
        long_lived.add(resource_tracker._resource_tracker._pid)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two raw frames with their sidecars."""
    return taken(tmp_path_factory.mktemp("frames"), "open")


@pytest.fixture(scope="module")
def darks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two darks with their sidecars."""
    return taken(tmp_path_factory.mktemp("darks"), "closed")


def taken(folder: Path, shutter: str) -> list[Path]:
    detector = SimulatedPerkinElmer(
        name="pe", directory=folder, shape=(64, 64), exposure_time=0.01, pixel_type="uint16"
    )
    detector.shutter.put(shutter)
    detector.stage()
    for _ in range(2):
        detector.trigger().wait(10)
    detector.unstage()
    return sorted(folder.glob("*.tif"))


@pytest.fixture
def host(tmp_path: Path, frames: list[Path], darks: list[Path]) -> Path:
    """A folder that stands for a whole machine; `here` is the working directory, with frames, darks and a mask."""
    configuration = (PROJECT / "examples" / "configuration" / "p02.2.toml").read_text(encoding="utf-8")
    for folder in ("etc/petif", "here/first-steps", "var/lib"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc" / "petif" / "petif.toml").write_text(
        configuration.replace('"/gpfs', f'"{tmp_path}/gpfs').replace('"/var', f'"{tmp_path}/var'), encoding="utf-8"
    )
    for folder in ("here", "here/raw", "gpfs/current/raw/sample", "data/raw/sample", "tmp"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(frames, 1):
            shutil.copy(frame, tmp_path / folder / f"pattern-{number:05d}.tif")
            shutil.copy(f"{frame}.metadata", tmp_path / folder / f"pattern-{number:05d}.tif.metadata")
    shutil.copytree(darks[0].parent, tmp_path / "here" / "darks")
    EdfImage(np.zeros((64, 64), np.uint8)).write(tmp_path / "here" / "mask.edf")
    for folder in ("here/scan/raw", "data/raw"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        with h5py.File(tmp_path / folder / "run.h5", "w") as file:
            file["entry/data/data"] = np.ones((8, 64, 64), np.uint16)
    return tmp_path


def within(host: Path, command: Command) -> list[str]:
    """Return the words of a command with its paths below `host`."""
    return [next((str(host) + word for place in ELSEWHERE if word.startswith(place)), word) for word in command.words]


@pytest.fixture
def run(host: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Command], str]]:
    """Run a line of `petif` as if `host` were the whole machine; return what it writes."""
    monkeypatch.chdir(host / "here")
    monkeypatch.setenv("XDG_STATE_HOME", str(host / "state"))
    before = signal.getsignal(signal.SIGTERM)

    def run_it(command: Command) -> str:
        words = within(host, command)
        match words[1]:  # options that make it end soon
            case "watch" if "--once" not in words:
                words.append("--once")
            case "convert":
                words += ["--workers", "1"]
            case "serve":
                words.append("--check")
        result = CliRunner().invoke(petif, words[1:])
        assert result.exit_code == 0, f"{command}\n{result.output}{result.exception}"
        return result.output

    yield run_it
    signal.signal(signal.SIGTERM, before)  # `petif watch` sets it


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.long] if page.name in TAKES_LONG else [])
        for page in PAGES
        if page not in TUTORIAL and lines([page], *RUNNING)
    ],
    ids=name_of,
)
def test_lines_of_a_page_run(page: Path, host: Path, run: Callable[[Command], str]) -> None:
    for table in blocks("text", pages=[page]):
        if table.text.startswith("file,"):
            (host / "here" / "angles.csv").write_text(table.text, encoding="utf-8")
    before = {path: path.read_bytes() for path in host.rglob("*") if path.is_file()}
    for command in lines([page], *RUNNING):
        made = {*host.rglob("*")}
        run(command)
        writes = command.words[1] != "inspect" and "--dry-run" not in command.words
        assert bool({*host.rglob("*")} - made) is writes, command
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.system
def test_first_pages_of_the_tutorial_run(host: Path, frames: list[Path], run: Callable[[Command], str]) -> None:
    """After the demo, which tests/system/test_demo.py runs; its folder is made here."""
    here = host / "here"
    shutil.copytree(frames[0].parent, here / "petif-demo" / "raw")
    shutil.copytree(frames[0].parent, here / "petif-demo" / "processed")
    told = [run(command) for command in lines(TUTORIAL[:2], *RUNNING)]
    assert (here / "try.png").is_file()
    assert len(list((here / "turned").glob("*.tif"))) == len(list((here / "watched").glob("*.tif"))) == len(frames)
    assert any("2 of 2 frames converted" in text for text in told), told
    assert any("2 skipped" in text for text in told), told
    (python,) = blocks("python", pages=TUTORIAL[:2])
    finished = subprocess.run(
        [sys.executable, "-c", python.text.replace("/tmp/", f"{host}/tmp/")],
        check=False,
        cwd=here,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert finished.stdout.startswith(f"converted {host}/tmp/turned/sample_0001-00001.tif (64, 64) int32"), finished


@pytest.mark.skipif(os.name == "nt", reason="/gpfs is no absolute path on Windows")
def test_server_accepts_its_lines(run: Callable[[Command], str]) -> None:
    calls = [call for call in lines(PAGES, "serve") if "$PWD" not in call.words]
    assert len(calls) >= 4
    for command in calls:
        run(command)


@pytest.mark.long
@pytest.mark.system
@pytest.mark.skipif(os.name == "nt", reason="the paths of the pages are those of Linux")
def test_lines_for_a_running_server_run(host: Path) -> None:
    """The failed frame that a page retries is one that was damaged until then."""
    frame = host / "data" / "raw" / "sample" / "pattern-00001.tif"
    whole = frame.read_bytes()
    maps = f"path_maps=Z:\\ -> {host}/data"
    quick = ["--workers", "1", "--set", "settle_time=0.1", "--set", "timeout=0.5", "--set", maps]
    with LocalServer(host, host / "state", quick) as server:
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PETIF_DEVICE": server.address}

        def petif_says(words: list[str]) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "tango_server", *words[1:]]
            return subprocess.run(
                command, check=False, cwd=host / "here", capture_output=True, text=True, timeout=60, env=environment
            )

        (host / "data" / "raw" / "other").mkdir()
        shutil.copy(frame, host / "data" / "raw" / "other")
        frame.write_bytes(b"no TIFF")
        assert petif_says(["petif", "add", str(frame), "--wait"]).returncode == 1
        frame.write_bytes(whole)
        for command in lines([HOW_TO / "troubleshooting.md", HOW_TO / "from-a-shell.md"], *TALKING):
            words = [word for word in within(host, command) if word != "--follow"]
            finished = petif_says(words)
            failing = words[1] == "status" and "ALARM" in finished.stdout
            assert finished.returncode == int(failing), f"{command}\n{finished.stdout}{finished.stderr}"
        answer = petif_says(["petif", "statistics", "sample-again", "--wait", "--json"]).stdout
        assert json.loads(answer)["converted"] == 2
