"""pytest fixtures for tests at beamlines; load them with `pytest_plugins = ["petif_bluesky.testing.fixtures"]`.

All files are in pytest's `tmp_path`, servers listen only on 127.0.0.1, and everything ends with its test.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from petif_bluesky import ConversionCallback, PETifConverter
    from petif_bluesky.sim import SimulatedPerkinElmer
    from petif_bluesky.testing.fake_server import FakeServer
    from tango_server.client.local_server import LocalServer

_FIRST_POLL = 10.0


@pytest.fixture
def petif_root(tmp_path: Path) -> Path:
    """Return the folder that the server may read and write, with a folder `raw` for the frames."""
    root = tmp_path.resolve() / "petif"
    (root / "raw").mkdir(parents=True)
    return root


@pytest.fixture
def petif_perkin_elmer(petif_root: Path) -> "SimulatedPerkinElmer":
    """Return a simulated detector, `pe`, which writes small QXRD frames to `raw`."""
    from petif_bluesky.sim import SimulatedPerkinElmer  # noqa: PLC0415 - only imported when used

    return SimulatedPerkinElmer(name="pe", directory=petif_root / "raw", shape=(64, 64), exposure_time=0.01)


@pytest.fixture
def petif_server(petif_root: Path, tmp_path: Path) -> Iterator["LocalServer"]:
    """Start a real conversion server in its own processes; takes about two seconds."""
    from tango_server.client.local_server import LocalServer  # noqa: PLC0415 - as above

    with LocalServer(petif_root, tmp_path / "petif-state", ["--workers", "1"]) as server:
        yield server


@pytest.fixture
def petif_converter(petif_server: "LocalServer") -> Iterator["PETifConverter"]:
    """Return the device `converter` for the real server, which has been polled once."""
    from petif_bluesky import PETifConverter  # noqa: PLC0415 - as above
    from petif_bluesky.server_poller import ServerPoller  # noqa: PLC0415 - as above
    from tango_server.client.client import Client  # noqa: PLC0415 - as above

    poller = ServerPoller(Client(petif_server.address))
    poller.wait_for_first_poll(_FIRST_POLL)
    yield PETifConverter(petif_server.address, name="converter", poller=poller)
    poller.close()


@pytest.fixture
def petif_callback(petif_converter: "PETifConverter", tmp_path: Path) -> Iterator["ConversionCallback"]:
    """Return a callback that sends frames to the real server; subscribe it to a RunEngine."""
    yield from _callback(petif_converter, tmp_path / "petif-spool.sqlite")


@pytest.fixture
def petif_fake_server(petif_root: Path) -> "FakeServer":
    """Return a fake server that may read and write `petif_root`."""
    from petif_bluesky.testing.fake_server import FakeServer  # noqa: PLC0415 - as above

    return FakeServer(petif_root)


@pytest.fixture
def petif_fake_converter(petif_fake_server: "FakeServer") -> "PETifConverter":
    """Return the device `converter` for the fake server; no process is started."""
    from petif_bluesky import PETifConverter  # noqa: PLC0415 - as above

    return PETifConverter(petif_fake_server.address, name="converter", poller=petif_fake_server)


@pytest.fixture
def petif_fake_callback(petif_fake_converter: "PETifConverter", tmp_path: Path) -> Iterator["ConversionCallback"]:
    """Return a callback that sends frames to the fake server; subscribe it to a RunEngine."""
    yield from _callback(petif_fake_converter, tmp_path / "petif-fake-spool.sqlite")


def _callback(converter: "PETifConverter", spool: Path) -> Iterator["ConversionCallback"]:
    from petif_bluesky import ConversionCallback  # noqa: PLC0415 - as above

    callback = ConversionCallback(converter, spool=spool)
    yield callback
    callback.close()
