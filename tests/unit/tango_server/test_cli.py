"""`petif` itself: which commands it lists, and what it says to a word that is none."""

import sys

import pytest
from click.testing import CliRunner

from tango_server.cli import _GROUPS, main, petif
from tests.conftest import DATA


def test_every_command_is_in_one_group_of_the_help() -> None:
    shown = CliRunner().invoke(petif, ["--help"]).stdout
    names = [name for group in _GROUPS.values() for name in group]
    assert len(set(names)) == len(names)
    lines = [line.split()[0] for line in shown.splitlines() if line.startswith("  ") and line.split()]
    assert [name for name in names if lines.count(name) != 1] == []
    assert "Others" not in shown
    assert "Start with: petif demo" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("word", "like"), [("convrt", "convert"), ("stat", "status"), ("acknowlege", "acknowledge"), ("zzzz", "")]
)
def test_misspelt_command_is_refused_with_what_it_is_like(word: str, like: str) -> None:
    refused = CliRunner().invoke(petif, [word])
    assert refused.exit_code == 2
    assert f"No such command {word!r}" in refused.stderr
    assert like in refused.stderr.partition("Did you mean")[2]
    assert ("Did you mean" in refused.stderr) is bool(like)


@pytest.mark.parametrize(
    ("package", "words", "extra"),
    [
        ("zmq", ["subscribe", "--zmq", "localhost:5578"], "zmq"),
        ("tiled", ["subscribe", "--zmq", "localhost:5578", "--tiled", "http://localhost:8000"], "tiled"),
        ("tiled", ["refresh", "run", "--tiled", "http://localhost:8000"], "tiled"),
        ("panel", ["monitor"], "monitor"),
        ("matplotlib", ["preview", str(DATA / "qxrd_f32_64.tif"), "--output", "nowhere.png"], "preview"),
    ],
    ids=["zmq", "tiled", "tiled to refresh", "panel", "matplotlib"],
)
def test_missing_package_is_reported_with_its_extra(
    package: str, words: list[str], extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in list(sys.modules):
        ours = name.startswith(("petif_bluesky.remote.zmq_host", "bluesky.callbacks.zmq", "tango_server.monitor"))
        if ours or name.partition(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(sys, "argv", ["petif", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert f"pip install 'petif-bluesky[{extra}]'" in capsys.readouterr().err
