"""What the documentation lets people run without a server runs here, line by line, on a small folder of frames."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from petif_bluesky.sim import SimulatedPerkinElmer
from tests.docs.pages import DOCS, PAGES, PROJECT, blocks, name_of
from tests.docs.shell import Command, commands

RUNNING = {"convert", "inspect", "preview", "watch"}
TUTORIAL = sorted((DOCS / "tutorial").glob("[0-9]*.md"))
ELSEWHERE = ("/gpfs/current", "/data", "/tmp")


def lines(pages: list[Path], *names: str) -> list[Command]:
    """Return the calls of these subcommands of `petif` on some pages."""
    found = [command for block in blocks("sh", pages=pages) for command in commands(block)]
    return [command for command in found if command.program == "petif" and {*names} & {*command.words[1:2]}]


OTHERS = [page for page in PAGES if page not in TUTORIAL and lines([page], *RUNNING)]


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two frames with their sidecars."""
    folder = tmp_path_factory.mktemp("frames")
    detector = SimulatedPerkinElmer(name="pe", directory=folder, shape=(64, 64), exposure_time=0.01)
    detector.stage()
    for _ in range(2):
        detector.trigger().wait(10)
    detector.unstage()
    return sorted(folder.glob("*.tif"))


@pytest.fixture
def host(tmp_path: Path, frames: list[Path]) -> Path:
    """A folder that stands for a whole machine; `here` is the working directory."""
    for folder in ("here", "here/raw", "gpfs/current/raw/sample", "data/raw/sample", "tmp"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(frames, 1):
            shutil.copy(frame, tmp_path / folder / f"pattern-{number:05d}.tif")
            shutil.copy(f"{frame}.metadata", tmp_path / folder / f"pattern-{number:05d}.tif.metadata")
    return tmp_path


def run(command: Command, host: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a line on `host`, as if that were the whole machine."""
    words = [next((str(host) + word for place in ELSEWHERE if word.startswith(place)), word) for word in command.words]
    finished = subprocess.run(
        [sys.executable, "-m", "tango_server", *words[1:], *more],
        check=False,
        cwd=host / "here",
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "XDG_STATE_HOME": str(host / "state")},
    )
    assert finished.returncode == 0, f"{command}\n{finished.stdout}{finished.stderr}"
    return finished


def more_for(command: Command) -> list[str]:
    """Return options that make a line end soon."""
    if command.words[1] == "watch" and "--once" not in command.words:
        return ["--once"]
    return ["--workers", "1"] if command.words[1] == "convert" else []


@pytest.mark.parametrize("page", OTHERS, ids=name_of)
def test_the_lines_of_a_page_run(page: Path, host: Path) -> None:
    for table in blocks("text", pages=[page]):
        if table.text.startswith("file,"):
            (host / "here" / "angles.csv").write_text(table.text, encoding="utf-8")
    before = {path: path.read_bytes() for path in host.rglob("*") if path.is_file()}
    for command in lines([page], *RUNNING):
        made = {*host.rglob("*")}
        run(command, host, *more_for(command))
        writes = command.words[1] != "inspect" and "--dry-run" not in command.words
        assert bool({*host.rglob("*")} - made) is writes, command
    assert {path: path.read_bytes() for path in before} == before


def test_the_first_pages_of_the_tutorial_run(host: Path, frames: list[Path]) -> None:
    """After the demo, which tests/system/test_demo.py runs; its folder is made here."""
    there = host / "here"
    shutil.copytree(frames[0].parent, there / "petif-demo" / "raw")
    shutil.copytree(frames[0].parent, there / "petif-demo" / "processed")
    told = [run(command, host, *more_for(command)).stdout for command in lines(TUTORIAL[:2], *RUNNING)]
    assert (there / "try.png").is_file()
    assert len(list((there / "turned").glob("*.tif"))) == len(list((there / "watched").glob("*.tif"))) == len(frames)
    assert any("2 of 2 frames converted" in text for text in told)
    assert any("2 skipped" in text for text in told)
    (python,) = blocks("python", pages=TUTORIAL[:2])
    finished = subprocess.run(
        [sys.executable, "-c", python.text.replace("/tmp/", f"{host}/tmp/")],
        check=False,
        cwd=there,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert finished.stdout.startswith(f"converted {host}/tmp/turned/sample_0001-00001.tif (64, 64) int32"), finished
