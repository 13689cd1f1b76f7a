"""Real servers and real runs; nothing that a test starts may outlive it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import tango
from bluesky import RunEngine

from tango_server.local import LocalServer

Proxy = tango.DeviceProxy
FAST = ("settle_time=0.3", "timeout=1.0", "run_timeout=1.5", "sidecar_timeout=0.2")


def settings(*assignments: str) -> list[str]:
    """Return the options of `petif serve` for settings."""
    return [word for assignment in assignments for word in ("--set", assignment)]


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    _, alive = psutil.wait_procs(left, timeout=5)
    assert not alive, [child.cmdline() for child in alive]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with an empty `raw` in it."""
    (tmp_path / "raw").mkdir()
    return tmp_path.resolve()


@pytest.fixture
def start_server(root: Path) -> Iterator[Callable[..., LocalServer]]:
    """Start a server on `root`; each with the same ledger, as one that is started again."""
    started: list[LocalServer] = []

    def start(*arguments: str) -> LocalServer:
        server = LocalServer(root, root / "state", ["--workers", "2", *settings(*FAST), *arguments])
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def server(start_server: Callable[..., LocalServer]) -> LocalServer:
    return start_server()


@pytest.fixture
def proxy(server: LocalServer) -> Proxy:
    return tango.DeviceProxy(server.address)


@pytest.fixture
def put(root: Path, data: Path) -> Callable[..., Path]:
    """Copy a file of the test data into `raw`, under another name if given."""

    def put_file(name: str, target: str = "") -> Path:
        return Path(shutil.copy(data / name, root / "raw" / (target or name)))

    return put_file


@pytest.fixture
def run_engine() -> Iterator[RunEngine]:
    engine = RunEngine({}, context_managers=[])
    yield engine
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(timeout=5)
    engine.loop.close()
