"""The examples of configuration and the pages about it: loaded, complete, and true."""

import ast
import os
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tango_server.recipe import Recipe
from tango_server.settings import ConfigurationError, Settings, read_configuration
from tango_server.text import explain

PROJECT = Path(__file__).parents[3]
EXAMPLES = PROJECT / "examples" / "configuration"
GUIDE = PROJECT / "docs" / "how-to" / "configure.md"
GENERATOR = PROJECT / "docs" / "generate_settings.py"
SWITCHED_OFF = re.compile(r"^#(?=\w+ = )", re.MULTILINE)
NO_DEFAULT_IN_TOML = {"dask_scheduler"}

posix_paths = pytest.mark.skipif(os.name == "nt", reason="/gpfs is no absolute path on Windows")


@pytest.fixture
def least(tmp_path: Path) -> dict[str, Any]:
    return {"read_roots": [str(tmp_path / "raw")], "state_dir": str(tmp_path / "state")}


@posix_paths
def test_minimal_configuration_leaves_every_default() -> None:
    settings = Settings.merged(read_configuration(EXAMPLES / "minimal.toml"))
    assert settings.read_roots == (Path("/data/raw"),)
    assert settings.state_dir == Path("/var/lib/petif")
    assert settings.model_fields_set == {"read_roots", "state_dir"}


@posix_paths
def test_beamline_configuration_sets_what_it_needs() -> None:
    settings = Settings.merged(read_configuration(EXAMPLES / "p02.2.toml"))
    assert settings.model_dump(exclude_unset=True) == {
        "read_roots": (Path("/gpfs/current/raw"),),
        "write_roots": (Path("/gpfs/current/processed"),),
        "state_dir": Path("/var/lib/petif"),
        "path_maps": (("Y:\\", "/gpfs/current"),),
        "recipe": {"pixel_type": "uint32", "rotation": 0, "flip": "none"},
        "settle_complete": 1.0,
        "settle_time": 3.0,
        "timeout": 30.0,
        "on_timeout": "placeholder",
        "placeholder_shape": (2048, 2048),
        "lambda_modules": 3,
        "numworkers": 4,
    }


def test_example_names_every_setting_once() -> None:
    lines = (EXAMPLES / "p02.2.toml").read_text(encoding="utf-8").splitlines()
    named = [match[1] for match in (re.match(r"#?(\w+) = ", line) for line in lines) if match]
    assert sorted(named) == sorted(Settings.model_fields)


@posix_paths
def test_what_the_example_switches_off_is_the_default() -> None:
    text = (EXAMPLES / "p02.2.toml").read_text(encoding="utf-8")
    used, all_on = tomllib.loads(text), tomllib.loads(SWITCHED_OFF.sub("", text))
    settings, with_all_on = Settings.merged(used), Settings.merged(all_on)
    for name in all_on.keys() - used.keys() - NO_DEFAULT_IN_TOML:
        assert getattr(with_all_on, name) == getattr(settings, name), name


def test_table_of_settings_is_up_to_date() -> None:
    generator = runpy.run_path(str(GENERATOR))
    page = generator["PAGE"].read_text(encoding="utf-8")
    assert page == generator["page"](), "run python docs/generate_settings.py"
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(Settings.model_fields)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


@posix_paths
def test_guide_gives_the_same_file_and_properties() -> None:
    (toml,), (python,) = blocks("toml"), blocks("python")
    assignment = ast.parse(python).body[0]
    assert isinstance(assignment, ast.Assign)
    properties = ast.literal_eval(assignment.value)
    assert properties.keys() == tomllib.loads(toml).keys()
    assert Settings.merged(properties) == Settings.merged(tomllib.loads(toml))


def test_guide_quotes_the_message_that_people_read(least: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.merged(least, {"numworkers": "four"})
    assert explain(caught.value) in " ".join(GUIDE.read_text(encoding="utf-8").split())


@posix_paths
@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("timeout = 30", {"timeout": 30.0}),
        ("timeout = 30.5", {"timeout": 30.5}),
        ("min_size = 1.6e7", {"min_size": 16_000_000}),
        ("placeholder_shape = [1024, 2048]", {"placeholder_shape": (1024, 2048)}),
        ("watch_recursive = false", {"watch_recursive": False}),
        (r"path_maps = ['Y:\ -> /gpfs/current', 'Z:\->/scratch']",
         {"path_maps": (("Y:\\", "/gpfs/current"), ("Z:\\", "/scratch"))}),
        (r"path_maps = 'Y:\ -> /gpfs/current'", {"path_maps": (("Y:\\", "/gpfs/current"),)}),
        ("[path_maps]\n'Y:\\' = '/gpfs/current'", {"path_maps": (("Y:\\", "/gpfs/current"),)}),
        ("[recipe]\npreset = 'xdi'\nrotation = 90\nflip = 1", {"recipe": Recipe.preset("xdi", rotation=90, flip="1")}),
        ("[recipe]\nrotation = 90\n[recipe.output]\nfolder = '/data/out'",
         {"recipe": Recipe.model_validate({"rotation": 90, "output": {"folder": "/data/out"}})}),
        ("recipe = 'xdi-unsigned'", {"recipe": Recipe.preset("xdi-unsigned")}),
    ],
)  # fmt: skip
def test_toml_forms_are_read(toml: str, expected: dict[str, Any], least: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(toml, encoding="utf-8")
    settings = Settings.merged(least, read_configuration(path))
    assert {name: getattr(settings, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"timeout": "30", "min_size": "16000000"}, {"timeout": 30.0, "min_size": 16_000_000}),
        ({"numworkers": "3"}, {"numworkers": 3}),
        ({"watch_existing": "true"}, {"watch_existing": True}),
        ({"placeholder_shape": ["1024", "2048"]}, {"placeholder_shape": (1024, 2048)}),
        ({"placeholder_shape": "1024, 2048"}, {"placeholder_shape": (1024, 2048)}),
        ({"placeholder_shape": ["1024, 2048"]}, {"placeholder_shape": (1024, 2048)}),
        ({"placeholder_shape": "1024 x 2048"}, {"placeholder_shape": (1024, 2048)}),
        ({"recipe": '{"preset": "xdi", "rotation": 90}'}, {"recipe": Recipe.preset("xdi", rotation=90)}),
        ({"recipe": '{"rotation": 90}'}, {"recipe": Recipe(rotation=90)}),
        ({"dask_scheduler": "", "executor": "process"}, {"executor": "process"}),
    ],
)
def test_property_forms_are_read(properties: dict[str, Any], expected: dict[str, Any], least: dict[str, Any]) -> None:
    settings = Settings.merged(least, properties)
    assert {name: getattr(settings, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'path_maps = ["Y:\\ -> /gpfs"]', "single quotes"),
        (b"timeout = \n", "line 1"),
        (b"# \xff", "invalid TOML"),
        (None, "--config"),
    ],
    ids=["backslash", "no value", "no UTF-8", "no file"],
)
def test_unreadable_file_is_named_with_the_reason(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=words) as caught:
        read_configuration(path)
    assert str(path) in str(caught.value)
