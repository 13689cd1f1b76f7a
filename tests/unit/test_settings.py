"""The settings of a server: what is allowed, what holds by default, which layer wins."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tango_server.recipe import Recipe
from tango_server.settings import Settings


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


@pytest.mark.parametrize("name", ["read_roots", "write_roots", "state_dir"])
@pytest.mark.parametrize("path", ["data/raw", ".", "~/raw"])
def test_relative_path_is_refused_with_its_reason(name: str, path: str, least: dict[str, Any]) -> None:
    value = path if name == "state_dir" else [least["state_dir"], path]
    with pytest.raises(ValidationError, match=re.escape(f"give the whole path of {path}")) as caught:
        Settings.merged(least, {name: value})
    assert [fault["loc"][0] for fault in caught.value.errors()] == [name]


@pytest.mark.parametrize("name", ["read_roots", "state_dir"])
def test_setting_without_a_default_must_be_given(name: str, least: dict[str, Any]) -> None:
    del least[name]
    with pytest.raises(ValidationError, match=name):
        Settings.merged(least)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("setle_time", 1.0),
        ("read_roots", []),
        ("numworkers", 0),
        ("numworkers", 257),
        ("numworkers", 1.5),
        ("settle_time", -0.1),
        ("settle_complete", float("inf")),
        ("timeout", float("nan")),
        ("run_timeout", "soon"),
        ("sidecar_timeout", -1),
        ("min_size", -1),
        ("time_limit", 0),
        ("time_limit", float("nan")),
        ("attempts", 0),
        ("recipe", {"rotation": 45}),
        ("recipe", "{"),
        ("recipe", ""),
        ("recipe", '{"rotation": 45}'),
        ("recipe", "90"),
    ],
)
def test_setting_that_makes_no_sense_is_refused(name: str, value: object, least: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=name) as caught:
        Settings.merged(least, {name: value})
    assert caught.value.errors()[0]["loc"][0] == name


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
    rules = Settings.merged(least, changes, {"timeout": 4.0, "run_timeout": 40.0}).service_rules()
    assert (rules.workers, rules.attempts, rules.sidecar_timeout) == (7, 2, 9.0)
    assert (rules.readiness.timeout, rules.run_readiness.timeout) == (4.0, 40.0)
    for rule in (rules.readiness, rules.run_readiness):
        assert (rule.settle_time, rule.settle_complete, rule.min_size) == (1.5, 0.5, 16)


@pytest.mark.parametrize("fields", [{"settle_time": 20}, {"settle_complete": 15}, {"settle_time": 300, "timeout": 400}])
def test_settle_time_must_be_shorter_than_each_timeout(fields: dict[str, float], least: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="longer than the time to settle"):
        Settings.merged(least, fields)
