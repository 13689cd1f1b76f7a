"""The files that other programs read about this project agree with each other."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[3]
PYPROJECT: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
RECIPE = PROJECT / "recipe" / "recipe.yaml"
CONDA_NAMES = {"opencv-python-headless": "py-opencv"}


def test_version_without_tags_follows_the_changelog() -> None:
    heading = re.search(r"^## ([\d.]+) \((.*)\)$", (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert heading, "no version in CHANGELOG.md"
    fallback = PYPROJECT["tool"]["hatch"]["version"]["fallback-version"]
    assert fallback == (f"{heading[1]}.dev0" if heading[2] == "unreleased" else heading[1])


def test_classifiers_name_the_versions_that_the_workflow_tests() -> None:
    workflow = yaml.safe_load((PROJECT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    tested = workflow["jobs"]["linux"]["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: "
    classifiers = PYPROJECT["project"]["classifiers"]
    assert [text.removeprefix(prefix) for text in classifiers if text.startswith(prefix)] == tested
    assert PYPROJECT["project"]["requires-python"] == f">={tested[0]}"


def test_groups_are_names_for_extras() -> None:
    for name, requirements in PYPROJECT["dependency-groups"].items():
        (requirement,) = map(Requirement, requirements)
        assert requirement.name == PYPROJECT["project"]["name"]
        assert name in requirement.extras <= set(EXTRAS)


def test_citation_file_follows_its_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.citation-file-format"]
    checked = subprocess.run([*command, str(PROJECT / "CITATION.cff")], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["license"] == PYPROJECT["project"]["license"]
    assert citation["repository-code"] == PYPROJECT["project"]["urls"]["Source"]
    (author,) = citation["authors"]
    assert author["name"].removeprefix("The ") in (PROJECT / "LICENSE").read_text(encoding="utf-8")


def test_conda_package_needs_what_the_extras_need() -> None:
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    wanted = [*PYPROJECT["project"]["dependencies"], *EXTRAS["server"], *EXTRAS["bluesky"]]
    named = {CONDA_NAMES.get(need.name, need.name): str(need.specifier) for need in map(Requirement, wanted)}
    named["python"] = PYPROJECT["project"]["requires-python"]
    assert dict(line.split(" ", 1) for line in recipe["requirements"]["run"]) == named
    for line in PYPROJECT["build-system"]["requires"]:
        assert line.replace(">=", " >=") in recipe["requirements"]["host"]
    scripts = PYPROJECT["project"]["scripts"].items()
    assert recipe["build"]["python"]["entry_points"] == [f"{name} = {target}" for name, target in scripts]
    assert recipe["about"]["summary"] == PYPROJECT["project"]["description"]


def test_conda_recipe_renders_with_the_version_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    rattler_build = pytest.importorskip("rattler_build", reason="there is no py-rattler-build")
    monkeypatch.setenv("PETIF_VERSION", "1.2.3")
    (rendered,) = rattler_build.Stage0Recipe.from_file(str(RECIPE)).render()
    assert (rendered.recipe.package.name, rendered.recipe.package.version) == ("petif-bluesky", "1.2.3")
