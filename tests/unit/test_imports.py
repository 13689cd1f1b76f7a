"""Who drags in what: looked at in fresh interpreters, since import contracts don't see what an `__init__` does."""

import subprocess
import sys

import pytest

BLUESKY = {"bluesky", "ophyd", "event_model", "tiled", "petif_bluesky"}
HEAVY = {"pytest", "tango", "cv2", "tifffile", "fabio", "matplotlib", "rich", "numpy", "sqlite3", "asyncio"}


def modules_after(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize(
    "module",
    [
        "tango_server",
        "tango_server.recipe",
        "tango_server.conversion.convert",
        "tango_server.jobs.opening",
        "tango_server.device",
        "tango_server.cli",
        "tango_server.monitor.web",
    ],
)
def test_the_conversion_host_imports_nothing_of_bluesky(module: str) -> None:
    assert not modules_after(f"import {module}") & BLUESKY


@pytest.mark.parametrize(
    "module",
    ["tango_server", "tango_server.conversion", "tango_server.cli", "petif_bluesky", "petif_bluesky.testing"],
)
def test_what_everybody_imports_is_light(module: str) -> None:
    assert not modules_after(f"import {module}") & (HEAVY | BLUESKY - {"petif_bluesky"})


def test_a_spawned_worker_pays_for_conversion_only() -> None:
    loaded = modules_after("import tango_server.jobs.worker, tango_server.conversion.convert")
    assert not loaded & {"tango", "fabio", "matplotlib", "rich", "sqlite3", *BLUESKY}


def test_the_bluesky_side_needs_no_opencv() -> None:
    loaded = modules_after("import petif_bluesky.converter, petif_bluesky.callback, petif_bluesky.preprocessors")
    assert not loaded & {"cv2", "tifffile", "imagecodecs", "rich"}


def test_public_names_are_loaded_when_they_are_used() -> None:
    assert "tango" in modules_after("from petif_bluesky import PETifConverter")
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        from petif_bluesky import Nothing  # type: ignore[attr-defined]  # noqa: F401


def test_the_stand_in_for_a_server_needs_no_pytest() -> None:
    loaded = modules_after("from petif_bluesky.testing import FakeLink; FakeLink()")
    assert not loaded & {"pytest", "cv2", "bluesky"}


def test_fixtures_import_what_they_need_when_they_are_asked_for() -> None:
    loaded = modules_after("import petif_bluesky.testing.fixtures")
    assert not loaded & {"tango", "bluesky", "ophyd", "numpy"}
