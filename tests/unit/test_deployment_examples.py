"""The files that put a server into service name only what there is, and agree with each other."""

import json
import re
import shlex
from configparser import ConfigParser
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tango_server.commands.register import register
from tango_server.commands.serve import serve
from tango_server.jobs import runner
from tango_server.property_lines import from_lines
from tango_server.settings import Settings, read_configuration

PROJECT = Path(__file__).parents[2]
DEPLOYMENT = PROJECT / "examples" / "deployment"
UNITS = ("petif.service", "petif-tango@.service")
GUIDES = ("deploy.md", "windows.md")
CONFIGURATION = read_configuration(PROJECT / "examples" / "configuration" / "p02.2.toml")


def unit(name: str) -> ConfigParser:
    """Return a unit; a key that stands there twice is an error."""
    parser = ConfigParser(interpolation=None, comment_prefixes="#", delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOYMENT / name, encoding="utf-8")
    return parser


def options_of(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts} | {"--help"}


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_may_write_what_the_configuration_writes_and_no_more_of_the_system(name: str) -> None:
    service = unit(name)["Service"]
    assert (service["User"], service["ProtectSystem"], service["NoNewPrivileges"]) == ("petif", "strict", "yes")
    assert CONFIGURATION["state_dir"] == f"/var/lib/{service['StateDirectory']}"
    writable = [PurePosixPath(path) for path in service["ReadWritePaths"].split()]
    for root in CONFIGURATION["write_roots"]:
        assert any(PurePosixPath(root).is_relative_to(path) for path in writable)
    mounted = [PurePosixPath(path) for path in unit(name)["Unit"]["RequiresMountsFor"].split()]
    for root in [*CONFIGURATION["read_roots"], *CONFIGURATION["write_roots"], CONFIGURATION["state_dir"]]:
        assert any(PurePosixPath(root).is_relative_to(path) for path in mounted)


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_leaves_the_server_time_to_end_its_workers_itself(name: str) -> None:
    service = unit(name)["Service"]
    assert (service["KillMode"], service["Restart"]) == ("mixed", "on-failure")
    assert float(service["TimeoutStopSec"]) > 4 * runner._CLOSE_PATIENCE


def test_the_two_units_differ_only_in_how_the_server_is_started() -> None:
    alone, registered = (unit(name)["Service"] for name in UNITS)
    assert {key for key in {*alone, *registered} if alone.get(key) != registered.get(key)} == {
        "ExecStart",
        "Environment",
    }


def test_the_unit_without_a_database_gives_options_that_there_are() -> None:
    program, command, *words = shlex.split(unit("petif.service")["Service"]["ExecStart"])
    assert (PurePosixPath(program).name, command) == ("petif", "serve")
    assert {word for word in words if word.startswith("--")} <= options_of(serve)
    assert "/etc/petif/petif.toml" in words


def test_the_dsconfig_file_says_what_the_configuration_file_says() -> None:
    tree = json.loads((DEPLOYMENT / "dsconfig.json").read_text(encoding="utf-8"))
    devices = tree["servers"]["PETifConverter"]["p02"]["PETifConverter"]
    lines = devices["p02/petif/1"]["properties"]
    assert set(lines) == set(CONFIGURATION) <= set(Settings.model_fields)
    assert Settings.merged(from_lines(lines)) == Settings.merged(CONFIGURATION)


@pytest.mark.parametrize("name", GUIDES)
def test_the_guides_give_options_and_settings_that_there_are(name: str) -> None:
    text = (PROJECT / "docs" / "how-to" / name).read_text(encoding="utf-8").replace("\\\n", " ")
    for command in (serve, register):
        calls = re.findall(rf"petif(?:\.exe)? {command.name} ([^\n`]*)", text)
        assert calls
        for call in calls:
            assert set(re.findall(r"(?<!\S)--[a-z-]+", call)) <= options_of(command), call
    for setting in re.findall(r"--set ['\"]?(\w+)=", text):
        assert setting in Settings.model_fields


@pytest.mark.parametrize("name", GUIDES)
def test_the_guides_point_at_files_that_there_are(name: str) -> None:
    page = PROJECT / "docs" / "how-to" / name
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert links
    for link in links:
        assert (page.parent / link).exists(), link
