"""The commands of the documentation: their options, extras and files exist, their JSON can be read."""

import importlib.util
import json
import re
import shlex
import tomllib
from functools import cache
from itertools import pairwise
from pathlib import Path

import click
import pytest

from tango_server.cli import petif
from tango_server.settings import Settings
from tests.docs.pages import DOCS, PAGES, PROJECT, Block, blocks, failures, inline_code, name_of
from tests.docs.shell import Command, commands

LANGUAGES = {"sh", "console", "python", "toml", "yaml", "json", "text", "powershell", "ini", "{eval-rst}"}
SHELL = ("sh", "console")
OTHER_PROGRAMS = {
    *(".", "cd", "cp", "eval", "export", "install", "ls", "mkdir", "runuser", "useradd", "usermod"),
    *("do", "done", "grep", "rm", "sleep", "until"),
    *("apt", "apt-get", "curl", "docker", "git", "journalctl", "jq", "nc", "ssh", "systemctl"),
    *("blueapi", "bluesky-0MQ-proxy", "dask", "json2tango", "qserver", "start-re-manager", "tiled"),
    *("jupyter", "lint-imports", "mypy", "pre-commit", "pytest", "ruff", "run", "twine"),
}
"""Programs that are not ours; a new one is added here once somebody has tried its line."""
PETIF_ON_WINDOWS = re.compile(r"(?:petif\.exe |-Argument \")(\w+ [^\n\"]*)")

COMMANDS = [command for block in blocks(*SHELL) for command in commands(block)]


@cache
def subcommand(name: str) -> click.Command:
    found = petif.get_command(click.Context(petif, info_name="petif"), name)
    assert found is not None, f"petif has no command {name}; after a new one: pip install -e ."
    return found


def parse(words: list[str]) -> None:
    """Parse a call of `petif` as it would be; only that files may be missing here."""
    if words[:1] in (["--version"], ["--help"]) or words[1:2] == ["--help"]:
        return
    command = subcommand(words[0])
    with pytest.MonkeyPatch.context() as patch:
        for parameter in command.params:
            if isinstance(parameter.type, click.Path):
                patch.setattr(parameter.type, "exists", False)
        command.make_context(words[0], words[1:], parent=click.Context(petif, info_name="petif"))
    check_settings(words)


def check_settings(words: list[str]) -> None:
    for option, assignment in pairwise(words):
        name = assignment.partition("=")[0]
        assert option != "--set" or name in Settings.model_fields, f"no setting {name}"


def check_pip(command: Command) -> None:
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for word in command.words:
        named = re.fullmatch(r"(?:petif-bluesky|\.)\[([\w,]+)\]", word)
        assert named is None or set(named[1].split(",")) <= extras.keys(), f"{word}: no such extra"


def check_python(command: Command) -> None:
    match command.words[1:]:
        case ["-c", code]:
            compile(code, command.block.place, "exec")
        case ["-"]:
            assert command.reads, "nothing to read"
            compile(command.reads, command.block.place, "exec")
        case ["-m", module, *arguments]:
            spec = importlib.util.find_spec(module)
            assert spec is not None, f"no module {module}"
            assert spec.origin is not None, f"{module} can't be run"
            if module.startswith(("tests.", "benchmarks.")):
                names = {spec.origin, str(Path(spec.origin).with_name("__main__.py"))}
                sources = "".join(Path(name).read_text(encoding="utf-8") for name in names if Path(name).is_file())
                for word in arguments:
                    assert f'"{word}"' in sources or not word.startswith("--"), f"{module} has no {word}"
        case [script, *_]:
            assert (PROJECT / script).is_file(), f"no script {script}"


def check(command: Command) -> None:
    match command.program:
        case "petif":
            parse(command.words[1:])
        case "PETifConverter":
            assert re.fullmatch(r"[\w.-]+", command.words[1]), "no name of an instance"
        case "pip":
            check_pip(command)
        case "python" | "python3":
            check_python(command)
        case other:
            assert other in OTHER_PROGRAMS, f"{other}: known programs are in {name_of(Path(__file__))}"
    for word in command.words:
        if word.startswith(("examples/", "docs/", "tests/", "benchmarks/")) and "_build" not in word:
            assert (PROJECT / word).exists(), f"no file {word}"
        if word.startswith("{"):
            json.loads(word)


def check_windows(block: Block) -> None:
    for line in PETIF_ON_WINDOWS.findall(block.text.replace("`\n", "")):
        parse(shlex.split(line, posix=False))


def check_inline(text: str) -> None:
    """Check the options of such as `petif serve --config FILE` within a sentence."""
    words = text.split()
    if words[0] != "petif" or len(words) == 1 or not re.fullmatch("[a-z]+", words[1]):
        return
    parameters = subcommand(words[1]).params
    options = {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= options | {"--help"}, "no such option"
    check_settings(words)


def test_commands_on_all_pages_are_valid() -> None:
    assert not failures(COMMANDS, check)
    assert len(COMMANDS) > 90
    assert {command.block.page for command in COMMANDS} >= {PROJECT / "README.md", DOCS / "how-to" / "deploy.md"}


def test_commands_work_on_windows() -> None:
    assert not failures(blocks("powershell"), check_windows, lambda block: block.place)


def test_options_in_text_exist() -> None:
    found = [f"{name_of(page)}: {wrong}" for page in PAGES for wrong in failures(inline_code(page), check_inline)]
    assert not found


def test_every_code_block_has_a_checked_language() -> None:
    assert not [f"{block.place}: {block.language}" for block in blocks() if block.language not in LANGUAGES]
