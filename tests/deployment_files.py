"""The files in examples/deployment, read as the programs read them for which they are."""

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from configparser import ConfigParser
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from xml.etree import ElementTree

import click
import yaml

from tango_server.cli import petif

PROJECT = Path(__file__).parents[1]
DEPLOYMENT = PROJECT / "examples" / "deployment"
CONFIGURATION_FILE = PROJECT / "examples" / "configuration" / "p02.2.toml"
UNITS = ("petif.service", "petif-tango@.service")
COMPOSE_FILES = ("compose.yaml", "compose-standalone.yaml")
DOCKERFILE = DEPLOYMENT / "docker" / "Dockerfile"
WINDOWS_SERVICE = DEPLOYMENT / "windows" / "petif-service.xml"
_VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")


def unit(name: str) -> ConfigParser:
    """Return a unit; a key that stands there twice is an error."""
    parser = ConfigParser(interpolation=None, comment_prefixes="#", delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOYMENT / name, encoding="utf-8")
    return parser


def example_environment() -> dict[str, str]:
    """Return the variables that env.example sets."""
    lines = (DEPLOYMENT / "docker" / "env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def compose(name: str, variables: Mapping[str, str]) -> dict[str, Any]:
    """Return a compose file with its variables replaced as docker does it.

    Raises
    ------
    KeyError
        if a variable that has to be set is not

    """

    def value(match: re.Match[str]) -> str:
        variable, kind, default = match.groups()
        return variables.get(variable) or default if kind == ":-" else variables[variable]

    def replaced(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: replaced(entry) for key, entry in node.items()}
        if isinstance(node, list):
            return [replaced(entry) for entry in node]
        return _VARIABLE.sub(value, node) if isinstance(node, str) else node

    found: dict[str, Any] = replaced(yaml.safe_load((DEPLOYMENT / "docker" / name).read_text(encoding="utf-8")))
    return found


def windows_service() -> ElementTree.Element:
    """Return the service that WinSW runs."""
    return ElementTree.parse(WINDOWS_SERVICE).getroot()


def commands() -> Iterator[tuple[str, list[str]]]:
    """Return every command that these files run, with the file that runs it."""
    for name in UNITS:
        yield name, shlex.split(unit(name)["Service"]["ExecStart"])
    for name in COMPOSE_FILES:
        for service in compose(name, example_environment())["services"].values():
            check = service.get("healthcheck", {}).get("test", [])
            yield from ((name, words) for words in (service.get("command"), check[1:]) if words)
    service = windows_service()
    arguments = (service.findtext("arguments") or "").split()
    yield WINDOWS_SERVICE.name, [PureWindowsPath(service.findtext("executable") or "").stem, *arguments]


def petif_commands() -> list[Any]:
    """Return the words after `petif` of those commands that run it."""
    return [(name, words[1:]) for name, words in commands() if PurePosixPath(words[0]).name == "petif"]


def understood(words: Sequence[str]) -> click.Context:
    """Let click parse the words after `petif` as the program does, with a configuration file that is there.

    Raises
    ------
    click.UsageError
        if the program would refuse them

    """
    words = [str(CONFIGURATION_FILE) if word.endswith("petif.toml") else word for word in words]
    with click.Context(petif) as parent:
        command = petif.get_command(parent, words[0])
        if command is None:
            raise click.UsageError(f"petif has no command {words[0]}")
        return command.make_context(words[0], list(words[1:]), parent=parent)


def on_this_machine(words: Sequence[str], programs: Path, replaced: Mapping[str, str]) -> list[str]:
    """Return a command with its program from a folder, and with words replaced."""
    suffix = ".exe" if os.name == "nt" else ""
    return [str(programs / f"{words[0]}{suffix}"), *(replaced.get(word, word) for word in words[1:])]
