"""The settings of a server: what is allowed, what holds by default, which layer wins."""

import copy
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tango_server.jobs.state_machine.rules import ServiceRules
from tango_server.recipe import Recipe
from tango_server.settings import Settings
from tango_server.text import explain

PATHS = ("read_roots", "write_roots", "state_dir")
posix_paths = pytest.mark.skipif(os.name == "nt", reason="/gpfs is no absolute path on Windows")


@pytest.fixture
def least(tmp_path: Path) -> dict[str, Any]:
    """What has to be said at least."""
    return {"read_roots": [str(tmp_path / "raw")], "state_dir": str(tmp_path / "state")}


def test_least_settings_leave_the_documented_defaults(least: dict[str, Any], tmp_path: Path) -> None:
    settings = Settings.merged(least)
    assert settings.recipe == Recipe.preset("xdi")
    assert (settings.settle_time, settings.settle_complete, settings.min_size) == (3.0, 0.0, 0)
    assert (settings.timeout, settings.run_timeout) == (15.0, 300.0)
    assert settings.sidecar_timeout == 2.0
    assert 1 <= settings.numworkers <= 4
    assert settings.ledger_path.parent == tmp_path / "state"
    with pytest.raises(ValidationError, match="frozen"):
        settings.timeout = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("name", ["read_roots", "state_dir"])
def test_setting_without_a_default_must_be_given(name: str, least: dict[str, Any]) -> None:
    del least[name]
    with pytest.raises(ValidationError, match=name):
        Settings.merged(least)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        *[(name, path, f"{path} is a relative path") for name in PATHS for path in ("data/raw", ".", "~/raw")],
        ("write_roots", [""], "relative path"),
        ("read_roots", ["/data\0"], "/data"),
        ("read_roots", [], ""),
        ("setle_time", 1.0, "setle_time: unknown name"),
        ("timeout_s", 30, "timeout_s: unknown name"),
        ("numworkers", 0, ""),
        ("numworkers", 257, ""),
        ("numworkers", 1.5, ""),
        ("settle_time", -0.1, ""),
        ("settle_complete", float("inf"), ""),
        ("timeout", float("nan"), ""),
        ("run_timeout", "soon", ""),
        ("sidecar_timeout", -1, ""),
        ("min_size", -1, ""),
        ("min_size", "16 MB", "got '16 MB'"),
        ("time_limit", 0, ""),
        ("time_limit", float("nan"), ""),
        ("attempts", 0, ""),
        ("recipe", {"rotation": 45}, ""),
        ("recipe", "{", "got '{'"),
        ("recipe", "", ""),
        ("recipe", "90", ""),
        ("recipe", '{"rotation": 45}', ""),
        ("recipe", '{"preset": "xdi", "rotation": 45}', "recipe.rotation: input should be 0, 90, 180 or 270, got 45"),
        ("recipe", {"preset": "xdi", "rotation": 45}, "recipe.rotation: input should be 0, 90, 180 or 270, got 45"),
        ("recipe", {"preset": []}, "preset []"),
        ("recipe", {"preset": "xdi", "name": "x"}, "recipe.name: unknown name"),
        ("recipe", "xid", "xdi, xdi-unsigned"),
        ("path_maps", ["Y:\\"], "PREFIX -> FOLDER"),
        ("path_maps", ["Y:\\ -> gpfs"], "gpfs is a relative path"),
        pytest.param("path_maps", {"": "/gpfs"}, "prefix for /gpfs", marks=posix_paths),
        ("placeholder_shape", [2048], "placeholder_shape"),
        ("placeholder_shape", "2048", "placeholder_shape"),
        ("log_level", "chatty", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    ],
)
def test_wrong_setting_is_refused_in_words(name: str, value: Any, words: str, least: dict[str, Any]) -> None:
    roots = name.endswith("_roots") and isinstance(value, str)
    with pytest.raises(ValidationError, match=name) as caught:
        Settings.merged(least, {name: [least["state_dir"], value] if roots else value})
    assert {fault["loc"][0] for fault in caught.value.errors()} == {name}
    assert words in explain(caught.value)
    assert "value error" not in explain(caught.value).lower()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"settle_time": 20}, "timeout (15 s)"),
        ({"settle_complete": 15}, "timeout (15 s)"),
        ({"settle_time": 300, "timeout": 400}, "run_timeout (300 s)"),
        ({"timeout": 2}, "timeout (2 s) must be longer than the settle time (3 s)"),
        ({"executor": "dask"}, "executor dask needs dask_scheduler"),
    ],
)
def test_settings_that_contradict_are_refused(fields: dict[str, Any], words: str, least: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.merged(least, fields)
    assert words in explain(caught.value)
    assert "value error" not in explain(caught.value).lower()


def test_later_layer_wins_and_replaces_a_recipe_as_a_whole(least: dict[str, Any]) -> None:
    layers = [
        least,
        {"timeout": 20, "attempts": 5, "recipe": {"rotation": 90, "flip": "1"}},
        {},
        {"timeout": 30, "recipe": {"rotation": 180}},
    ]
    before = copy.deepcopy(layers)
    settings = Settings.merged(*layers)
    assert (settings.timeout, settings.attempts) == (30.0, 5)
    assert settings.recipe == Recipe(rotation=180)
    assert layers == before


def test_outputs_go_to_write_roots_or_else_beside_the_frames(least: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path.resolve()
    roots = Settings.merged(least).roots()
    assert roots.read == (folder / "raw",)
    assert set(roots.write) == {folder / "raw", folder / "processed"}
    roots = Settings.merged(least, {"write_roots": [str(tmp_path / "out")]}).roots()
    assert roots.write == (folder / "out",)


def test_job_service_gets_every_rule_and_runs_their_own_timeout(least: dict[str, Any]) -> None:
    changes = {
        "numworkers": 7,
        "attempts": 2,
        "settle_time": 1.5,
        "settle_complete": 0.5,
        "min_size": 16,
        "sidecar_timeout": 9,
    }
    rules = ServiceRules.of(Settings.merged(least, changes, {"timeout": 4.0, "run_timeout": 40.0}))
    assert (rules.workers, rules.attempts, rules.sidecar_timeout) == (7, 2, 9.0)
    assert (rules.readiness.timeout, rules.run_readiness.timeout) == (4.0, 40.0)
    for rule in (rules.readiness, rules.run_readiness):
        assert (rule.settle_time, rule.settle_complete, rule.min_size) == (1.5, 0.5, 16)


def test_threads_are_read_as_processes_with_one_warning(
    least: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert Settings.merged(least, {"executor": "thread"}).executor == "process"
    (record,) = caplog.records
    assert '"thread"' in record.getMessage()
