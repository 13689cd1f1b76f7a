"""The testing kit as its users have it: their own tests, in a pytest of their own."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "test-your-plans.md"
CONFTEST, TESTS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
FAILING = """
import psutil

def test_that_fails(petif_server, petif_converter):
    server = psutil.Process(petif_server.pid)
    for process in [server, *server.children(recursive=True)]:
        print("STARTED", process.pid)
    raise RuntimeError("as a plan may fail")
"""


def run_pytest(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    """Run the tests as their user does: with nothing of the pytest around them, in a terminal of a known width."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_beamline.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\n")
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(("PYTEST_", "COVERAGE_"))}
    plugins = ["-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist"]
    options = ["-q", "-s", *plugins, "--basetemp", str(folder / "tmp")]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=folder,
        env={**inherited, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.long
def test_tests_in_the_guide_pass(tmp_path: Path) -> None:
    ended = run_pytest(tmp_path, TESTS)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "4 passed" in ended.stdout


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="looks at process ids")
def test_failing_test_leaves_no_process(tmp_path: Path) -> None:
    ended = run_pytest(tmp_path, FAILING)
    assert "1 failed" in ended.stdout, ended.stdout + ended.stderr
    started = [int(pid) for pid in re.findall(r"STARTED (\d+)", ended.stdout)]
    assert len(started) >= 2
    for pid in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait(10)
