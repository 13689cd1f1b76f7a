"""The settings of a server: what is allowed, what holds by default, which layer wins."""

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


def test_the_least_that_has_to_be_said_gives_the_defaults_of_the_design(least: dict[str, Any]) -> None:
    settings = Settings.merged(least)
    assert settings.recipe == Recipe.preset("xdi")
    assert (settings.settle_time, settings.settle_complete, settings.min_size) == (3.0, 0.0, 0)
    assert (settings.timeout, settings.run_timeout) == (15.0, 300.0)
    assert settings.sidecar_timeout == 2.0
    assert 1 <= settings.numworkers <= 4


@pytest.mark.parametrize("name", ["read_roots", "write_roots", "state_dir"])
@pytest.mark.parametrize("path", ["data/raw", ".", "~/raw"])
def test_a_relative_path_is_refused_with_its_reason(name: str, path: str, least: dict[str, Any]) -> None:
    value = path if name == "state_dir" else [least["state_dir"], path]
    with pytest.raises(ValidationError, match=re.escape(f"give the whole path of {path}")) as caught:
        Settings.merged(least, {name: value})
    assert [fault["loc"][0] for fault in caught.value.errors()] == [name]


def test_an_unknown_setting_is_an_error_that_names_it(least: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="setle_time"):
        Settings.merged(least, {"setle_time": 1.0})


@pytest.mark.parametrize("name", ["read_roots", "state_dir"])
def test_a_setting_without_a_default_must_be_given(name: str, least: dict[str, Any]) -> None:
    del least[name]
    with pytest.raises(ValidationError, match=name):
        Settings.merged(least)


@pytest.mark.parametrize(
    ("name", "value"),
    [
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
    ],
)
def test_a_value_that_makes_no_sense_is_refused(name: str, value: object, least: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.merged(least, {name: value})
    assert caught.value.errors()[0]["loc"][0] == name


def test_a_later_layer_wins_over_an_earlier_one(least: dict[str, Any]) -> None:
    settings = Settings.merged(least, {"timeout": 20, "attempts": 5}, {}, {"timeout": 30})
    assert (settings.timeout, settings.attempts) == (30.0, 5)


def test_a_recipe_of_a_later_layer_replaces_the_earlier_one_as_a_whole(least: dict[str, Any]) -> None:
    settings = Settings.merged(least, {"recipe": {"rotation": 90, "flip": "1"}}, {"recipe": {"rotation": 180}})
    assert settings.recipe == Recipe(rotation=180)


def test_merging_leaves_the_layers_as_they_were(least: dict[str, Any]) -> None:
    before = dict(least)
    Settings.merged(least, {"timeout": 30})
    assert least == before


def test_numbers_may_be_written_as_text(least: dict[str, Any]) -> None:
    settings = Settings.merged(least, {"timeout": "30", "numworkers": "3", "min_size": "16000000"})
    assert (settings.timeout, settings.numworkers, settings.min_size) == (30.0, 3, 16_000_000)


def test_a_recipe_may_be_written_as_json(least: dict[str, Any]) -> None:
    assert Settings.merged(least, {"recipe": '{"rotation": 90}'}).recipe == Recipe(rotation=90)


@pytest.mark.parametrize("text", ["{", "", '{"rotation": 45}', "90"])
def test_a_recipe_that_is_wrong_json_is_refused(text: str, least: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.merged(least, {"recipe": text})
    assert caught.value.errors()[0]["loc"][0] == "recipe"


def test_settings_can_not_be_changed_afterwards(least: dict[str, Any]) -> None:
    settings = Settings.merged(least)
    with pytest.raises(ValidationError, match="frozen"):
        settings.timeout = 1.0  # type: ignore[misc]


def test_the_ledger_lies_in_the_state_folder(least: dict[str, Any], tmp_path: Path) -> None:
    assert Settings.merged(least).ledger_path.parent == tmp_path / "state"


def test_outputs_may_go_to_the_images_of_the_read_roots_by_default(least: dict[str, Any], tmp_path: Path) -> None:
    roots = Settings.merged(least).roots()
    folder = tmp_path.resolve()
    assert roots.read == (folder / "raw",)
    assert set(roots.write) == {folder / "raw", folder / "processed"}


def test_outputs_may_go_to_the_write_roots_alone_if_there_are_any(least: dict[str, Any], tmp_path: Path) -> None:
    roots = Settings.merged(least, {"write_roots": [str(tmp_path / "out")]}).roots()
    assert roots.write == (tmp_path.resolve() / "out",)


def test_the_job_service_gets_every_rule_and_runs_their_own_patience(least: dict[str, Any]) -> None:
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
def test_a_time_to_settle_that_no_file_can_keep_is_refused(fields: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="longer than the time to settle"):
        Settings.model_validate({"read_roots": [tmp_path], "state_dir": tmp_path, **fields})
