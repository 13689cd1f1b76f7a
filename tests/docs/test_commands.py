"""The commands of the documentation: their options, extras and files exist, their JSON can be read."""

import importlib.util
import json
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from tango_server.cli import petif
from tests.docs.pages import DOCS, PAGES, PROJECT, Block, blocks, inline_code, name_of
from tests.docs.shell import Command, commands

LANGUAGES = {"sh", "console", "python", "toml", "yaml", "json", "text", "powershell", "ini", "{eval-rst}"}
SHELL = ("sh", "console")
OTHER_PROGRAMS = {
    *(".", "cd", "cp", "eval", "export", "install", "ls", "mkdir", "runuser", "useradd", "usermod"),
    *("do", "done", "grep", "rm", "sleep", "until"),
    *("apt", "apt-get", "curl", "docker", "git", "journalctl", "jq", "nc", "ssh", "systemctl"),
    *("bluesky-0MQ-proxy", "dask", "json2tango", "qserver", "start-re-manager", "tiled"),
    *("jupyter", "lint-imports", "mypy", "pre-commit", "pytest", "ruff", "run", "twine"),
}
"""Programs that are not ours; a new one is added here once somebody has tried its line."""
PETIF_ON_WINDOWS = re.compile(r"(?:petif\.exe |-Argument \")(\w+ [^\n\"]*)")

COMMANDS = [command for block in blocks(*SHELL) for command in commands(block)]
by_place = pytest.mark.parametrize("command", COMMANDS, ids=str)


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse a call of `petif` as it would be; only that files may be missing here."""
    if words[:1] in (["--version"], ["--help"]) or words[1:2] == ["--help"]:
        return
    context = click.Context(petif, info_name="petif")
    command = petif.get_command(context, words[0])
    assert command is not None, f"petif has no command {words[0]}; after a new one: pip install -e ."
    for parameter in command.params:
        if isinstance(parameter.type, click.Path):
            monkeypatch.setattr(parameter.type, "exists", False)
    command.make_context(words[0], words[1:], parent=context)


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
            assert command.reads
            compile(command.reads, command.block.place, "exec")
        case ["-m", module, *arguments]:
            spec = importlib.util.find_spec(module)
            assert spec is not None
            assert spec.origin is not None
            if module.startswith(("tests.", "benchmarks.")):
                names = {spec.origin, str(Path(spec.origin).with_name("__main__.py"))}
                sources = "".join(Path(name).read_text(encoding="utf-8") for name in names if Path(name).is_file())
                assert all(f'"{word}"' in sources for word in arguments if word.startswith("--"))
        case [script, *_]:
            assert (PROJECT / script).is_file()


@by_place
def test_a_command_can_be_given(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    match command.program:
        case "petif":
            parse(command.words[1:], monkeypatch)
        case "PETifConverter":
            assert re.fullmatch(r"[\w.-]+", command.words[1])
        case "pip":
            check_pip(command)
        case "python" | "python3":
            check_python(command)
        case other:
            assert other in OTHER_PROGRAMS, f"{other}: known programs are in {name_of(Path(__file__))}"
    for word in command.words:
        if word.startswith(("examples/", "docs/", "tests/", "benchmarks/")) and "_build" not in word:
            assert (PROJECT / word).exists()
        if word.startswith("{"):
            json.loads(word)


@pytest.mark.parametrize("block", blocks("powershell"), ids=lambda block: block.place)
def test_our_program_can_be_called_so_on_windows(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in PETIF_ON_WINDOWS.findall(block.text.replace("`\n", "")):
        parse(shlex.split(line, posix=False), monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_in_the_text_exist(page: Path) -> None:
    """Such as `petif serve --config FILE` within a sentence."""
    context = click.Context(petif, info_name="petif")
    for text in inline_code(page):
        words = text.split()
        if words[0] != "petif" or len(words) == 1 or not re.fullmatch("[a-z]+", words[1]):
            continue
        command = petif.get_command(context, words[1])
        assert command is not None, text
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= options | {"--help"}, text


def test_every_block_has_a_language_that_is_looked_at() -> None:
    other = [block.place for page in PAGES for block in blocks(pages=[page]) if block.language not in LANGUAGES]
    assert not other


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 90
    assert {command.block.page for command in COMMANDS} >= {PROJECT / "README.md", DOCS / "how-to" / "deploy.md"}
