"""What the options of `petif serve` make of the settings of its server; nothing is served here."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tango_server import serving
from tango_server.commands.serve import serve
from tango_server.configuration import Configuration
from tango_server.settings import Settings


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return the settings of a server that is started with options."""
    monkeypatch.setattr("tango_server.log_console.log_to_stderr", lambda **_: None)

    def settings(*options: str) -> Settings:
        given: list[Configuration] = []
        monkeypatch.setattr(serving, "run_without_database", lambda configuration, **_: given.append(configuration))
        result = CliRunner().invoke(serve, ["--state-dir", str(tmp_path), *options], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return given[0].settings({}, "petif/converter/1")

    return settings


def test_each_set_of_a_list_is_one_of_its_lines(settings_of: Any) -> None:
    found = settings_of("--set", "read_roots=/a", "--set", "timeout=31", "--set", "read_roots=/b")
    assert found.read_roots == (Path("/a").absolute(), Path("/b").absolute())
    assert found.timeout == 31
    assert settings_of("--set", "path_maps=Y:\\ -> /gpfs").path_maps == (("Y:\\", "/gpfs"),)
    assert settings_of("--set", "placeholder_shape=48, 32").placeholder_shape == (48, 32)


def test_of_any_other_setting_the_last_set_holds(settings_of: Any) -> None:
    assert settings_of("--set", "timeout=31", "--set", "timeout=32").timeout == 32


def test_a_list_that_is_set_takes_the_place_of_the_roots(settings_of: Any, tmp_path: Path) -> None:
    assert settings_of("--root", str(tmp_path)).read_roots == (tmp_path.resolve(),)
    assert settings_of("--root", str(tmp_path), "--set", "read_roots=/b").read_roots == (Path("/b").absolute(),)


def test_an_assignment_without_equals_is_refused_with_what_was_found() -> None:
    result = CliRunner().invoke(serve, ["--set", "timeout"])
    assert result.exit_code == 2
    assert "found 'timeout'; expected NAME=VALUE" in result.output
