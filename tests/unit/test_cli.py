"""`petif` itself: which commands it lists, and what it says to a word that is none."""

import pytest
from click.testing import CliRunner

from tango_server.cli import _GROUPS, petif


def test_every_command_stands_in_one_group_of_the_help() -> None:
    shown = CliRunner().invoke(petif, ["--help"]).stdout
    names = [name for group in _GROUPS.values() for name in group]
    assert len(set(names)) == len(names)
    lines = [line.split()[0] for line in shown.splitlines() if line.startswith("  ") and line.split()]
    assert [name for name in names if lines.count(name) != 1] == []
    assert "Others" not in shown
    assert "Begin with: petif demo" in " ".join(shown.split())


@pytest.mark.parametrize(("word", "like"), [("convrt", "convert"), ("stat", "status"), ("acknowlege", "acknowledge")])
def test_a_misspelt_command_is_told_with_what_it_is_like(word: str, like: str) -> None:
    refused = CliRunner().invoke(petif, [word])
    assert refused.exit_code == 2
    assert f"No such command {word!r}" in refused.stderr
    assert like in refused.stderr.partition("Did you mean")[2]


def test_a_word_that_is_like_nothing_is_told_without_advice() -> None:
    assert "Did you mean" not in CliRunner().invoke(petif, ["zzzz"]).stderr
