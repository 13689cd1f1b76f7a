"""Commands where nobody reads, where there is no folder to be in, no home and no name: what they say is for people."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="shells of another kind")

NOBODY = 12345
PROGRAM = "from tango_server.cli import main; main()"
ARGUMENTS = {
    "convert": ["raw/a.tif", "--json"], "inspect": ["raw/a.tif"], "preview": ["raw/a.tif"],
    "watch": ["raw", "--once", "--state-dir", "state"], "serve": ["--check", "--state-dir", "state"],
    "demo": ["--help"], "monitor": ["--help"], "refresh": ["--help"], "reprocess": ["--help"],
    "subscribe": ["--help"], "register": ["--help"],
    "add": ["raw/a.tif"], "statistics": ["run"],
}  # fmt: skip
"""How each command is called; those that serve would go on, and are asked what they are for."""
COMMANDS = sorted({command.name for command in entry_points(group="petif.commands")})
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def place(tmp_path: Path, data: Path) -> Path:
    place = tmp_path / "place"
    (place / "raw").mkdir(parents=True)
    shutil.copy(data / "qxrd_f32_64.tif", place / "raw" / "a.tif")
    return place


@pytest.fixture
def run(place: Path) -> Run:
    def run(shell: str, *words: str) -> "subprocess.CompletedProcess[str]":
        (place / "gone").mkdir(exist_ok=True)
        command = ["sh", "-c", shell, "sh", sys.executable, "-c", PROGRAM, *words]
        return subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60, check=False)

    return run


def require_plain_words(ended: "subprocess.CompletedProcess[str]") -> None:
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


@pytest.mark.parametrize(
    "name", [name if name == "inspect" else pytest.param(name, marks=pytest.mark.long) for name in COMMANDS]
)
def test_no_traceback_without_usable_output_or_working_directory(name: str, run: Run) -> None:
    words = [name, *ARGUMENTS.get(name, [])]
    full = run('exec "$@" >/dev/full', *words)
    require_plain_words(full)
    if full.returncode == 1:
        assert "No space left on device" in full.stderr
    require_plain_words(run('exec "$@" >&-', *words))
    gone = run('cd gone && rmdir ../gone && exec "$@"', *words)
    require_plain_words(gone)
    assert gone.returncode == 1
    assert "cannot read the working directory" in gone.stderr


@pytest.fixture
def as_nobody(place: Path, tmp_path: Path) -> Run:
    """Run a program as a user whom the system has no name and no home folder for."""
    if os.geteuid() != 0:
        pytest.skip("only root may become somebody else")
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    environment |= {
        "LC_ALL": "C",
        "TMPDIR": str(place),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "env": environment, "cwd": place}
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    for folder in (place, place / "raw"):
        folder.chmod(0o777)
    try:
        subprocess.run([sys.executable, "-c", "import tango_server"], check=True, capture_output=True, **nobody)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("that user may not read this Python, or this checkout")

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", PROGRAM, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, **nobody)

    return run


@pytest.mark.long
def test_a_user_without_a_name_and_a_home_converts_and_runs_the_demo(as_nobody: Run, place: Path) -> None:
    assert as_nobody("convert", "raw/a.tif").returncode == 0
    assert (place / "processed" / "a.tif").exists()
    watched = as_nobody("watch", "raw", "--once", "--state-dir", "state")
    assert (watched.returncode, "Traceback" in watched.stderr) == (0, False), watched.stderr
    for words in (["serve", "--check"], ["watch", "raw", "--once"]):
        told = as_nobody(*words)
        require_plain_words(told)
        assert told.returncode == 1
        assert f"user {NOBODY} has no home folder" in told.stderr
    demo = as_nobody("demo", "--frames", "2")
    assert demo.returncode == 0, demo.stderr
    assert "All 2 frames were converted" in demo.stdout
