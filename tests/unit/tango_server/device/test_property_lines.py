"""Settings become the lines of Tango properties, and mean the same when they are read back."""

from pathlib import Path
from typing import Any

import pytest

from tango_server.device.property_lines import from_lines, to_lines
from tango_server.recipe import Recipe
from tango_server.settings import ConfigurationError, Settings, read_configuration

LEAST: dict[str, Any] = {"read_roots": ["/data/raw"], "state_dir": "/var/lib/petif"}
EVERY: dict[str, Any] = {
    "read_roots": ["/data/raw", '/gpfs/it\'s "here", too'],
    "write_roots": ["/data/processed"],
    "state_dir": "/var/lib/petif \xe4",
    "path_maps": {"Y:\\": "/gpfs/current", "//server/share": "/mnt/share"},
    "recipe": {"preset": "xdi-unsigned", "rotation": 90, "flip": "1", "output": {"template": "{sample}_{seq_num:03d}"}},
    "numworkers": 3,
    "executor": "dask",
    "dask_scheduler": "tcp://10.0.0.1:8786",
    "time_limit": 61.5,
    "attempts": 4,
    "readiness": "age",
    "settle_time": 2.25,
    "settle_complete": 0.1,
    "min_size": 16_000_000,
    "timeout": 31.0,
    "run_timeout": 301.0,
    "on_timeout": "placeholder",
    "placeholder_shape": (1024, 2048),
    "lambda_modules": 3,
    "sidecar_timeout": 0.0,
    "backlog_limit": 99,
    "history_days": 1 / 3,
    "history_limit": 12,
    "free_space_warning": 3 * 10**12,
    "free_space_limit": 10**11,
    "watch": ["/data/raw/a", "/data/raw/b"],
    "watch_existing": True,
    "watch_recursive": False,
    "watch_interval": 0.5,
    "log_level": "DEBUG",
    "log_bytes": 20_000,
    "log_files": 2,
    "metrics_port": 9100,
    "metrics_host": "0.0.0.0",
}


def test_every_setting_is_read_back_as_it_was_written() -> None:
    assert set(EVERY) == set(Settings.model_fields), "a new setting must be tried here, with a value of its own"
    settings = Settings.merged(EVERY)
    defaults = Settings.merged(LEAST)
    assert not [name for name in set(EVERY) - set(LEAST) if getattr(settings, name) == getattr(defaults, name)]
    lines = to_lines(settings, EVERY)
    assert all(isinstance(line, str) for texts in lines.values() for line in texts)
    assert Settings.merged(from_lines(lines)) == settings


def test_lines_are_what_a_person_would_write() -> None:
    lines = to_lines(Settings.merged(EVERY), EVERY)
    assert lines["path_maps"] == ["Y:\\ -> /gpfs/current", "//server/share -> /mnt/share"]
    assert lines["read_roots"] == EVERY["read_roots"]
    assert (lines["watch_existing"], lines["watch_recursive"]) == (["true"], ["false"])
    assert lines["placeholder_shape"] == ["1024", "2048"]
    assert lines["min_size"] == ["16000000"]
    (recipe,) = lines["recipe"]
    assert Recipe.model_validate_json(recipe).rotation == 90


def test_only_what_is_named_becomes_a_property() -> None:
    assert to_lines(Settings.merged(LEAST, {"timeout": 20}), ["timeout"]) == {"timeout": ["20.0"]}


def test_what_is_empty_has_no_lines_and_is_not_set_when_read() -> None:
    lines = to_lines(
        Settings.merged(LEAST, {"write_roots": [], "dask_scheduler": None}), ["write_roots", "dask_scheduler"]
    )
    assert lines == {"write_roots": [], "dask_scheduler": []}
    assert from_lines(lines) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("read_roots", ["/data/\u03b2-Sn"]),
        ("read_roots", ["/data/two\nlines"]),
        ("path_maps", {"/a->b": "/data/raw"}),
        ("path_maps", {"/mnt/detector ": "/data/raw"}),
        ("dask_scheduler", "tcp://\u4e2d:1"),
    ],
)
def test_what_a_property_can_not_hold_is_refused_and_not_changed(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name}: .*Latin-1"):
        to_lines(Settings.merged(LEAST, {name: value}), [name])


def test_a_name_that_is_no_setting_is_kept_for_the_settings_to_refuse() -> None:
    assert from_lines({"setle_time": ["1"]}) == {"setle_time": "1"}


def test_the_examples_can_be_registered() -> None:
    for path in (Path(__file__).parents[4] / "examples" / "configuration").glob("*.toml"):
        given = read_configuration(path)
        settings = Settings.merged(given)
        assert Settings.merged(from_lines(to_lines(settings, given))).model_dump(include=set(given)) == (
            settings.model_dump(include=set(given))
        ), path
