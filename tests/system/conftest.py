"""Real servers and real runs; nothing that a test starts may outlive it."""

import shutil
from collections.abc import Callable, Iterator
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import tango
from bluesky import RunEngine

from petif_bluesky.sim import SimulatedPerkinElmer
from tango_server.client.local_server import LocalServer
from tests.leaks import children
from tests.system.petif_command import Call, petif_in
from tests.system.reused_server import ReusedServer
from tests.system.tango_database import RegisteredServer, TangoDatabase
from tests.tiled_server import open_client, open_tiled
from tests.unit.documents import Recorder

Proxy = tango.DeviceProxy
Server = LocalServer | RegisteredServer
FAST = ("numworkers=1", "settle_time=0.3", "timeout=1.0", "run_timeout=1.5", "sidecar_timeout=0.2")


def settings(*assignments: str) -> list[str]:
    """Return the options of `petif serve` for settings."""
    return [word for assignment in assignments for word in ("--set", assignment)]


@pytest.fixture(scope="session", autouse=True)
def resource_tracker() -> None:
    """Let the interpreter start the one process that it keeps for itself, so that it is no leak of a test."""
    ensure_running()


@pytest.fixture(autouse=True)
def no_process_is_left(resource_tracker: None, long_lived: set[int]) -> Iterator[None]:
    del resource_tracker
    before = {child.pid for child in children(long_lived)}
    yield
    left = [child for child in children(long_lived) if child.pid not in before]
    _, alive = psutil.wait_procs(left, timeout=5)
    assert not alive, [child.cmdline() for child in alive]


@pytest.fixture(autouse=True)
def detectors_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End the threads of the simulated detectors that a test makes."""
    made: list[SimulatedPerkinElmer] = []
    original = SimulatedPerkinElmer.__init__

    def noted(detector: SimulatedPerkinElmer, *arguments: Any, **options: Any) -> None:
        original(detector, *arguments, **options)
        made.append(detector)

    monkeypatch.setattr(SimulatedPerkinElmer, "__init__", noted)
    yield
    for detector in made:
        detector.destroy()


@pytest.fixture(scope="session")
def tango_database(tmp_path_factory: pytest.TempPathFactory, long_lived: set[int]) -> Iterator[TangoDatabase]:
    """The Tango database of the session."""
    with TangoDatabase(tmp_path_factory.mktemp("tango-database")) as database:
        long_lived.add(database.pid)
        yield database


@pytest.fixture(scope="session")
def reused_server(tmp_path_factory: pytest.TempPathFactory, long_lived: set[int]) -> Iterator[ReusedServer]:
    """The server process of the session, which becomes another server for each test."""
    server = ReusedServer(tmp_path_factory.mktemp("reused-server"))
    yield server
    libraries = psutil.Process(server.pid).memory_maps() if server.is_running else []
    server.stop()
    assert not [each.path for each in libraries if "h5py" in each.path], "HDF5 was opened in the server's own process"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with an empty `raw` in it."""
    (tmp_path / "raw").mkdir()
    return tmp_path.resolve()


@pytest.fixture
def own_state(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spools and runs that a catalogue did not take go to the folder of the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(root / "home"))


@pytest.fixture
def recorder(run_engine: RunEngine) -> Recorder:
    """The documents of all runs of `run_engine`."""
    recorder = Recorder()
    run_engine.subscribe(recorder)
    return recorder


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The Tiled server of a module, which may read all folders of tests."""
    with open_tiled(tmp_path_factory.mktemp("catalogue"), readable_storage=[tmp_path_factory.getbasetemp()]) as tiled:
        yield tiled


@pytest.fixture(scope="module")
def client(tiled: Any) -> Iterator[Any]:
    """A client of the catalogue of `tiled`."""
    client = open_client(tiled.uri)
    yield client
    client.context.close()


@pytest.fixture
def catalogue(root: Path) -> Iterator[Any]:
    """A catalogue for programs of their own: its client and its server, which may read `raw` and `processed`."""
    (root / "processed").mkdir()
    with open_tiled(root / "catalogue", readable_storage=[root / "raw", root / "processed"]) as tiled:
        client = open_client(tiled.uri)
        yield client, tiled
        client.context.close()


@pytest.fixture
def deployment() -> str:
    """How `start_server` runs servers; tests override it.

    "reused": in the process of the session, where that has no other; "standalone": in processes of their own;
    "database": registered in a Tango database.
    """
    return "reused"


@pytest.fixture
def start_server(
    root: Path, deployment: str, long_lived: set[int], request: pytest.FixtureRequest
) -> Iterator[Callable[..., Server]]:
    """Start a server on `root`; each with the same ledger, as one that is started again."""
    started: list[Server] = []
    name = uuid4().hex[:8]

    def standalone(*arguments: str) -> LocalServer:
        return LocalServer(root, root / "state", [*settings(*FAST), *arguments]).start()

    def reused(*arguments: str) -> LocalServer:
        server: ReusedServer = request.getfixturevalue("reused_server")
        if (server in started and server.is_running) or set(arguments[::2]) - {"--set"}:
            return standalone(*arguments)
        server.serve(root, [*FAST, *arguments[1::2]])
        long_lived.add(server.pid)
        return server

    def registered(*arguments: str) -> RegisteredServer:
        """Run the same instance again once it has ended, another one beside it until then."""
        database: TangoDatabase = request.getfixturevalue("tango_database")
        instance = f"{name}-{sum(isinstance(server, RegisteredServer) and server.is_running for server in started)}"
        server = RegisteredServer(database, instance, f"petif/converter/{instance}", root / "state" / f"{instance}.log")
        given = {"read_roots": str(root), "state_dir": str(root / "state")}
        given.update(word.split("=", 1) for word in (*FAST, *arguments) if word != "--set")
        database.register(f"PETifConverter/{instance}", server.device, {key: [text] for key, text in given.items()})
        return server.start()

    def start(*arguments: str) -> Server:
        started.append({"reused": reused, "standalone": standalone, "database": registered}[deployment](*arguments))
        return started[-1]

    yield start
    for server in started:
        if not isinstance(server, ReusedServer):
            server.stop()


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server()


@pytest.fixture
def proxy(server: Server) -> Proxy:
    return tango.DeviceProxy(server.address)


@pytest.fixture
def petif(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """`petif` in the folder of the test."""
    return petif_in(tmp_path, monkeypatch)


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
