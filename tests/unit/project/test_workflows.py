"""The workflows are valid, ask for no more rights than they need, and run the commands that people run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[3]
FOLDER = PROJECT / ".github" / "workflows"
WRITTEN = ("README.md", ".ci/run", "CONTRIBUTING.md", "docs/how-to/release.md")
ACTIONLINT = shutil.which("actionlint", path=Path(sys.executable).parent)


def workflow(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    return found


def steps(name: str) -> list[dict[str, Any]]:
    return [step for job in workflow(name)["jobs"].values() for step in job.get("steps", ())]


@pytest.mark.skipif(ACTIONLINT is None, reason="there is no actionlint: pip install -e '.[test]'")
def test_actionlint_finds_nothing() -> None:
    assert ACTIONLINT is not None
    command = [ACTIONLINT, "-no-color", *FOLDER.glob("*.yml")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_steps_run_the_commands_that_are_written_down() -> None:
    written = "\n".join((PROJECT / name).read_text(encoding="utf-8") for name in WRITTEN)
    commands = [step["run"] for step in steps("ci.yml") if "run" in step]
    assert len(commands) > 10
    assert not [command for command in commands if command not in written]


def test_only_publishing_may_do_more_than_read() -> None:
    more = {"ci.yml": {}, "release.yml": {"publish": {"id-token": "write"}}}
    assert set(more) == {path.name for path in FOLDER.iterdir()}
    for name, rights in more.items():
        found = workflow(name)
        assert found["permissions"] == {"contents": "read"}
        assert {title: job["permissions"] for title, job in found["jobs"].items() if "permissions" in job} == rights
        assert all(re.search(r"@(release/)?v\d+$", step["uses"]) for step in steps(name) if "uses" in step)


def test_release_publishes_what_passed_every_check() -> None:
    jobs = workflow("release.yml")["jobs"]
    assert jobs["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert jobs["publish"]["needs"] == "ci"
    up, down = (
        next(step["with"] for step in steps(name) if f"/{kind}-artifact@" in step.get("uses", ""))
        for name, kind in (("ci.yml", "upload"), ("release.yml", "download"))
    )
    assert (up["name"], up["path"]) == (down["name"], down["path"])
