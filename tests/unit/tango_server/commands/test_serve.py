"""What the options of `petif serve` make of the settings of its server; nothing is served here."""

import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tango_server.commands.serve import serve
from tango_server.device import server
from tango_server.settings import Configuration, Settings


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return the settings of a server that is started with options."""
    monkeypatch.setattr("tango_server.observability.console.log_to_stderr", lambda **_: None)

    def settings(*options: str) -> Settings:
        given: list[Configuration] = []
        monkeypatch.setattr(server, "run_without_database", lambda configuration, **_: given.append(configuration))
        result = CliRunner().invoke(serve, ["--state-dir", str(tmp_path), *options], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return given[0].settings({}, "petif/converter/1")

    return settings


def test_set_adds_lines_to_a_list_and_replaces_anything_else(settings_of: Any, tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    found = settings_of("--set", f"read_roots={one}", "--set", "timeout=31", "--set", f"read_roots={two}")
    assert (found.read_roots, found.timeout) == ((one, two), 31)
    assert settings_of("--set", "timeout=31", "--set", "timeout=32").timeout == 32
    assert settings_of("--set", f"path_maps=Y:\\ -> {one}").path_maps == (("Y:\\", str(one)),)
    assert settings_of("--set", "placeholder_shape=48, 32").placeholder_shape == (48, 32)
    assert settings_of("--root", str(tmp_path)).read_roots == (tmp_path.resolve(),)
    assert settings_of("--root", str(tmp_path), "--set", f"read_roots={two}").read_roots == (two,)


def test_assignment_without_equals_is_refused() -> None:
    result = CliRunner().invoke(serve, ["--set", "timeout"])
    assert result.exit_code == 2
    assert "'timeout'" in result.output
    assert "NAME=VALUE" in result.output


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1", "no-such-host.invalid"])
def test_address_that_cannot_be_used_is_named_with_a_remedy(tmp_path: Path, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = ["--state-dir", str(tmp_path), "--root", str(tmp_path), "--host", host, "--port", str(port)]
        result = CliRunner().invoke(serve, options)
    assert result.exit_code == 1
    assert f"{host}:{port}" in result.stderr
    assert "--port" in result.stderr
    assert ("in use" in result.stderr) is (host == "127.0.0.1")
    assert len(result.stderr.splitlines()) == 1
