"""What is built, and what an empty environment makes of it. Every extra: python -m tests.extras."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
from configparser import ConfigParser
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import pytest
from packaging.metadata import Metadata, parse_email
from packaging.utils import parse_wheel_filename
from packaging.version import Version

from tests.empty_environment import PROJECT, CheckError, EmptyEnvironment, build
from tests.extras import CHECKS, FRAME, check, extras_of

pytestmark = pytest.mark.long
PACKAGES = ("petif_bluesky", "tango_server")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist and the wheel, both of this tree."""
    folder = tmp_path_factory.mktemp("built")
    build(folder, "--sdist", "--wheel")
    return folder


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    return next(built.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def version(wheel: Path) -> str:
    """The version of this tree, as its tags and commits have it."""
    return str(parse_wheel_filename(wheel.name)[1])


@pytest.fixture(scope="module")
def info(version: str) -> str:
    """The folder of the wheel's metadata."""
    return f"petif_bluesky-{version}.dist-info"


@pytest.fixture(scope="module")
def unpacked(sdist: Path, version: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree that the sdist holds."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # unknown to Python 3.11.2 of Debian 12
        archive.extractall(folder)
    return folder / f"petif_bluesky-{version}"


@pytest.fixture(scope="module")
def members(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_wheel_holds_both_packages_and_nothing_else(members: dict[str, bytes], info: str) -> None:
    files = (path for package in PACKAGES for path in (PROJECT / package).rglob("*"))
    code = {path.relative_to(PROJECT).as_posix() for path in files if path.suffix in {".py", ".typed"}}
    assert {f"{package}/py.typed" for package in PACKAGES} <= code
    described = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert set(members) == code | described
    assert members[f"{info}/licenses/LICENSE"] == (PROJECT / "LICENSE").read_bytes()


def test_programs_and_subcommands_are_functions_of_the_wheel(members: dict[str, bytes], info: str) -> None:
    points = ConfigParser(delimiters="=")
    points.optionxform = str  # type: ignore[assignment,method-assign]
    points.read_string(members[f"{info}/entry_points.txt"].decode())
    assert dict(points["console_scripts"]) == {
        "petif": "tango_server.cli:main",
        "PETifConverter": "tango_server.cli:tango_main",
    }
    commands = points["petif.commands"]
    for name, target in {**points["console_scripts"], **commands}.items():
        module, _, attribute = target.partition(":")
        text = members[f"{module.replace('.', '/')}.py"].decode()
        assert f"def {attribute}(" in text, name
    offered = [name for name in members if PurePosixPath(name).parent.name == "commands"]
    with_a_command = {name.removesuffix(".py") for name in offered if "@click.command(" in members[name].decode()}
    assert {target.partition(":")[0].replace(".", "/") for target in commands.values()} == with_a_command


def test_metadata_is_what_a_package_index_accepts(
    members: dict[str, bytes], wheel: Path, version: str, info: str
) -> None:
    raw, unknown = parse_email(members[f"{info}/METADATA"])
    assert not unknown
    metadata = Metadata.from_raw(raw, validate=True)
    assert (metadata.name, str(metadata.version)) == ("petif-bluesky", version)
    assert metadata.license_expression == "BSD-3-Clause"
    assert str(metadata.requires_python) == ">=3.11"
    assert metadata.description_content_type == "text/markdown"
    assert metadata.description == (PROJECT / "README.md").read_text(encoding="utf-8")
    assert set(CHECKS) <= set(extras_of(wheel)), "tests/extras.py checks an extra that there isn't"
    for requirement in metadata.requires_dist or ():
        assert requirement.specifier or requirement.name == "petif-bluesky", f"{requirement}: it has no lower bound"


def test_sdist_holds_all_that_git_knows(sdist: Path, version: str) -> None:
    if not (PROJECT / ".git").exists():
        pytest.skip("this tree is no checkout: git can't tell what belongs to it")
    listing = ["git", "-C", str(PROJECT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    known = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split("\0")
    expected = {name for name in known if name and (PROJECT / name).exists()} | {"PKG-INFO"}
    with tarfile.open(sdist) as archive:
        held = {member.name.removeprefix(f"petif_bluesky-{version}/") for member in archive if not member.isdir()}
    assert held == expected


def test_wheel_comes_out_the_same_from_the_sdist(unpacked: Path, wheel: Path, tmp_path: Path) -> None:
    again = build(tmp_path, "--wheel", tree=unpacked)
    assert (again.name, again.read_bytes()) == (wheel.name, wheel.read_bytes())


def test_environment_has_the_release_of_this_tree(version: str) -> None:
    """An editable installation keeps the version of the commit at which it was made; the release must be the same."""
    installed = Version(importlib.metadata.version("petif-bluesky"))
    assert installed.release == Version(version).release, "install it again: pip install -e '.[all,test]'"


def test_tests_pass_in_the_tree_of_the_sdist(unpacked: Path, tmp_path: Path) -> None:
    """Those that read files beside the code: data, examples, guides. In a copy: tests leave their caches in a tree."""
    tree = shutil.copytree(unpacked, tmp_path / unpacked.name)
    names = (
        "tango_server/recipe/test_recipe",
        "project/test_configuration_examples",
        "project/test_deployment_examples",
    )
    tests = [f"tests/unit/{name}.py" for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "--basetemp", str(tmp_path / "own"), *tests]
    subprocess.run(command, cwd=tree, check=True)


@pytest.mark.timeout(300)
@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows; python -m tests.extras needs none")
class TestEmptyEnvironment:
    """It borrows from this environment what an extra names, and no more."""

    @pytest.fixture
    def here(self, tmp_path: Path) -> EmptyEnvironment:
        return EmptyEnvironment(tmp_path)

    @pytest.mark.parametrize("extra", ["base", "bluesky"])
    def test_extra_brings_what_it_needs(self, extra: str, wheel: Path, here: EmptyEnvironment) -> None:
        check(extra, wheel, here, borrowed=True)

    def test_conversion_host_is_whole_and_has_one_version(
        self, wheel: Path, version: str, here: EmptyEnvironment
    ) -> None:
        check("server", wheel, here, borrowed=True)
        script = "import sys, tango; print(tango.DeviceProxy(sys.argv[1]).info().version_info['petif-bluesky'])"
        inspected = json.loads(here.run("petif", "inspect", "--json", f"converted/{FRAME.name}"))
        told = {
            "petif": here.run("petif", "--version").split()[-1],
            "the device": here.serving(script).split()[-1],
            "a converted frame": inspected["provenance"]["version"],
        }
        assert told == dict.fromkeys(told, version)

    def test_requirement_that_an_extra_lacks_is_noticed(self, wheel: Path, here: EmptyEnvironment) -> None:
        """The environment is as empty as it should be: without the extra, what it needs can't be imported."""
        here.borrow(wheel)
        with pytest.raises(CheckError, match="No module named 'tango'"):
            here.python("import tango_server.device.converter")
