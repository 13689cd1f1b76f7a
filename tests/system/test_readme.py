"""The session in README.md, as it stands there, with a real server, RunEngine, simulated detector and catalogue."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from ophyd.sim import SynAxis

from petif_bluesky import Recipe
from petif_bluesky.sim import SimulatedPerkinElmer
from tango_server.client.local_server import LocalServer
from tests.docs.pages import PROJECT, blocks
from tests.tiled_server import open_client, open_tiled

ADDRESS = "tango://conversion-host:45450/petif/converter/1#dbase=no"
CATALOGUE = "http://tiled.example:8000"
MOST_LINES = 10


@pytest.fixture
def tiled(root: Path) -> Iterator[Any]:
    with open_tiled(root / "catalogue", readable_storage=[root]) as tiled:
        yield tiled


@pytest.fixture
def session(root: Path, server: LocalServer, tiled: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Run the session; its names."""
    monkeypatch.setenv("XDG_STATE_HOME", str(root / "home"))
    (block,) = blocks("python", pages=[PROJECT / "README.md"])
    assert len(block.text.splitlines()) <= MOST_LINES
    text = block.text
    for given, own in ((ADDRESS, server.address), (CATALOGUE, tiled.uri)):
        assert text.count(given) == 1
        text = text.replace(given, own)
    detector = SimulatedPerkinElmer(name="pe", directory=root / "raw", shape=(48, 64), exposure_time=0.0)
    names: dict[str, Any] = {"pe": detector, "motor": SynAxis(name="motor")}
    try:
        exec(compile(text, block.place, "exec"), names)
        yield names
    finally:
        if "attached" in names:
            names["attached"].close()
        if (engine := names.get("RE")) is not None:
            engine.loop.call_soon_threadsafe(engine.loop.stop)
            engine._th.join(timeout=5)
            engine.loop.close()


def test_session_of_the_readme_fills_the_catalogue(session: dict[str, Any], tiled: Any, root: Path) -> None:
    client = open_client(tiled.uri)
    run = client[session["uid"]]
    raw = [tifffile.imread(path) for path in sorted((root / "raw").glob("*.tif"))]
    assert len(raw) == 5
    np.testing.assert_array_equal(run["primary"]["pe_image"].read()[:, 0], raw)
    turned = [np.flip(np.rot90(frame), 1).astype(np.int32) for frame in raw]
    np.testing.assert_array_equal(run["converted"]["converter_image"].read()[:, 0], turned)
    recipe = Recipe.parse(run.metadata["start"]["conversion"]["recipe"])
    assert recipe == Recipe.preset("xdi", rotation=90, flip="1")
    statistics = run.metadata["conversion"]
    assert {name: statistics[name] for name in ("submitted", "converted", "failed", "pending")} == {
        "submitted": 5,
        "converted": 5,
        "failed": 0,
        "pending": 0,
    }
    row = run["conversion"].read()
    assert (row["converter_converted"].values[0], row["converter_drained"].values[0]) == (5, True)
    client.context.close()
