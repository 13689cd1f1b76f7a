"""`petif reprocess`: a catalogued run is converted again in a new run, by a real server and from a real catalogue."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest
import tifffile
from bluesky import RunEngine
from click.testing import CliRunner, Result

from petif_bluesky import attach
from petif_bluesky.commands.reprocess import reprocess
from petif_bluesky.sim import SimulatedPerkinElmer
from tango_server.client.local_server import LocalServer

pytestmark = pytest.mark.usefixtures("own_state")


@pytest.fixture
def first_run(run_engine: RunEngine, server: LocalServer, client: Any, root: Path) -> str:
    """A run of three frames, turned by 90 degrees."""
    detector = SimulatedPerkinElmer(name="pe", directory=root / "raw", shape=(32, 48), exposure_time=0.01)
    with attach(run_engine, server.address, recipe={"preset": "xdi", "rotation": 90}, tiled=client) as attached:
        (uid,) = run_engine(bp.count([detector], num=3))
        assert attached.wait(30.0)
    return str(uid)


@pytest.fixture
def call(
    first_run: str, run_engine: RunEngine, server: LocalServer, tiled: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    run_engine.dispatcher.unsubscribe_all()
    monkeypatch.setattr("bluesky.RunEngine", lambda *_, **__: run_engine)  # whose thread ends with the test

    def call(*options: str, run_uid: str = first_run) -> Result:
        words = [run_uid, "--tiled", tiled.uri, "--device", server.address, *options]
        return CliRunner().invoke(reprocess, words, env={"COLUMNS": "200"}, catch_exceptions=False)

    return call


def new_run(client: Any, first_run: str) -> Any:
    (found,) = (run for _, run in client.items() if run.metadata["start"].get("parent_uid") == first_run)
    return found


@pytest.mark.long
def test_run_is_converted_again_with_its_own_recipe(
    call: Callable[..., Result], client: Any, first_run: str, root: Path
) -> None:
    result = call("--flip", "1")
    assert result.exit_code == 0, result.output
    assert "3 frames" in result.stdout
    run = new_run(client, first_run)
    assert run.metadata["conversion"]["converted"] == 3
    outputs = list(run["converted"].read()["converter_output"].values)
    raw = sorted((root / "raw").glob("*.tif"))
    for path, output in zip(raw, outputs, strict=True):
        assert output == str(root / "processed" / f"{path.stem}-00001.tif"), "the first output is kept"
        expected = np.flip(np.rot90(tifffile.imread(path)), 1).astype(np.int32)
        np.testing.assert_array_equal(tifffile.imread(output), expected)


@pytest.mark.long
def test_options_make_the_recipe(call: Callable[..., Result], client: Any, first_run: str, root: Path) -> None:
    recipe = json.dumps({"preset": "xdi-unsigned", "output": {"on_existing": "replace_own"}})
    assert call("--recipe", recipe).exit_code == 0
    start = new_run(client, first_run).metadata["start"]
    assert start["conversion"]["recipe"]["pixel_type"] == "uint32"
    assert start["conversion"]["recipe"]["output"]["on_existing"] == "replace_own"
    assert not list((root / "processed").glob("*-00001-00001.tif"))


@pytest.mark.long
def test_failed_frames_give_exit_code_1(call: Callable[..., Result]) -> None:
    result = call("--on-existing", "refuse")
    assert result.exit_code == 1, result.output
    assert "3 frames failed" in result.stderr


@pytest.mark.long
def test_wrong_calls_are_named(call: Callable[..., Result], root: Path) -> None:
    for words, options in (
        ("--preset", ("--recipe", "xdi", "--preset", "xdi")),
        ("--dark", ("--dark", "run", "--dark", "/data/dark.tif")),
        ("rotation", ("--recipe", '{"rotation": 45}')),
        ("allow_in_place", ("--in-place",)),
    ):
        result = call(*options)
        assert result.exit_code == 2, result.output
        assert words in result.stderr
    missing = call(run_uid="nobody")
    assert (missing.exit_code, "no run 'nobody'" in missing.stderr) == (2, True)
    next((root / "raw").glob("*.tif")).unlink()
    lost = call()
    assert lost.exit_code == 2
    assert "1 of 3 frames cannot be found" in lost.stderr
