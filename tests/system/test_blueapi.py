"""blueapi runs the plans of the example by its REST API; the frames are converted, the statistics catalogued."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tango_server.client.local_server import LocalServer
from tests.empty_environment import CheckError, EmptyEnvironment, build
from tests.system.blueapi_server import BlueapiServer
from tests.system.converted_run import as_in_the_examples, check

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]  # pip installs blueapi


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`blueapi` in an environment of its own: its releases pin versions of Tiled and event-model."""
    folder = tmp_path_factory.mktemp("blueapi")
    environment = EmptyEnvironment(folder)
    packages = f"petif-bluesky[ophyd-async,tiled] @ {build(folder, '--wheel').as_uri()}", "blueapi>=1.21"
    try:
        environment.pip("install", "--quiet", "--no-compile", *packages)
    except CheckError as error:
        pytest.skip(f"blueapi cannot be installed: {error}")
    return environment.program("blueapi")


@pytest.fixture
def blueapi(program: Path, root: Path, server: LocalServer, catalogue: Any) -> Iterator[BlueapiServer]:
    environment = {
        "TILED_URI": catalogue[1].uri,
        "PETIF_DEVICE": server.address,
        "PETIF_RAW": str(root / "raw"),
        "XDG_STATE_HOME": str(root / "home"),
    }
    with BlueapiServer(program, root, environment) as running:
        yield running


def test_runs_started_by_rest_are_converted(blueapi: BlueapiServer, catalogue: Any) -> None:
    client, _ = catalogue
    counted = blueapi.run("count", detectors=["pe"], num=3)
    scanned = blueapi.run("scan", detectors=["pe"], motor="motor", start=-1, stop=1, num=5)
    check(client, counted, as_in_the_examples, 3)
    check(client, scanned, as_in_the_examples, 5)
    assert blueapi.worker.children() == [], "a daemonic process may not have children"
