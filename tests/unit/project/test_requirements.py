"""What the code imports is required by name: what comes only with something else goes away with it."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[3]
PACKAGES = ("petif_bluesky", "tango_server")
NOT_FOR_USERS = {"test", "dev", "docs", "notebooks"}
OWN_TESTS = "petif_bluesky/testing"
"""Imported by test suites, which bring pytest."""
PARTS = {"pydantic-core"}
"""Packages that are parts of one that is named, and come in the one version that fits it."""


def required() -> set[str]:
    """Return the packages that users' extras name themselves."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = list(project["dependencies"])
    for extra, requirements in project["optional-dependencies"].items():
        named += requirements if extra not in NOT_FOR_USERS else []
    return {canonicalize_name(Requirement(text).name) for text in named}


def imported(package: str) -> dict[str, str]:
    """Return the modules of others that a package imports anywhere, each with a file that does."""
    found: dict[str, str] = {}
    for path in sorted((PROJECT / package).rglob("*.py")):
        name = path.relative_to(PROJECT).as_posix()
        if name.startswith(OWN_TESTS):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            found.update((module.partition(".")[0], name) for module in modules)
    return {module: name for module, name in found.items() if module not in {*sys.stdlib_module_names, *PACKAGES}}


def test_what_the_code_imports_is_required_by_name() -> None:
    distributions = packages_distributions()
    named = required() | PARTS
    for package in PACKAGES:
        modules = imported(package)
        assert {"click", "numpy", "tango"} <= set(modules), package
        homes = {module: map(canonicalize_name, distributions.get(module, [module])) for module in modules}
        unnamed = {module: name for module, name in modules.items() if named.isdisjoint(homes[module])}
        assert not unnamed, "add what brings these to an extra of pyproject.toml"
