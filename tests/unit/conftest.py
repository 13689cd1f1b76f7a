"""What the tests of the ledger and of the bluesky side share; bluesky is imported only by those who ask for it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tango_server.jobs.ledger.database import Database
from tango_server.jobs.ledger.history import History
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.sqlite import sole_owner
from tests.unit.documents import Recorder
from tests.unit.ledger_entries import Stopwatch
from tests.unit.ledger_files import close_files

if TYPE_CHECKING:
    from bluesky import RunEngine

    from petif_bluesky import ConversionCallback, PETifConverter
    from petif_bluesky.sim import SimulatedPerkinElmer
    from petif_bluesky.testing.fake_server import FakeServer
    from tests.unit.lab import Lab

SHAPE = (32, 48)


@pytest.fixture(autouse=True, scope="session")
def nothing_is_flushed() -> Iterator[None]:
    """Spare the tests what only a loss of power would show."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sole_owner, "_SYNCHRONOUS", "OFF")
        yield


@pytest.fixture
def stopwatch() -> Stopwatch:
    """The clock of `database`."""
    return Stopwatch()


@pytest.fixture
def database(tmp_path: Path, stopwatch: Stopwatch) -> Iterator[Database]:
    database = Database(tmp_path / "ledger.sqlite", stopwatch)
    yield database
    database.close()


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database)


@pytest.fixture
def history(database: Database) -> History:
    return History(database)


@pytest.fixture
def ledger_path(tmp_path: Path) -> Path:
    """Where `opened` opens its ledgers."""
    return tmp_path / "state" / "ledger.sqlite"


@pytest.fixture
def opened(ledger_path: Path) -> Iterator[Callable[[], Database]]:
    """Open the ledger; its files are closed in the end, as they are."""
    databases: list[Database] = []

    def open_() -> Database:
        databases.append(Database(ledger_path))
        return databases[-1]

    yield open_
    for database in databases:
        close_files(database)


@pytest.fixture(scope="module")
def engine() -> Iterator["RunEngine"]:
    """The RunEngine of a module; tests use it as `run_engine`, which makes it as new after each of them."""
    from bluesky import RunEngine

    engine = RunEngine({}, context_managers=[])
    yield engine
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(timeout=5)
    engine.loop.close()


@pytest.fixture
def run_engine(engine: "RunEngine") -> Iterator["RunEngine"]:
    metadata = dict(engine.md)
    yield engine
    if engine.state != "idle":  # a test has failed within a run
        engine.halt()
    engine.dispatcher.unsubscribe_all()
    engine.preprocessors.clear()
    engine.md.clear()
    engine.md.update(metadata)
    engine.msg_hook = engine.state_hook = engine.waiting_hook = None


@pytest.fixture
def recorder(run_engine: "RunEngine") -> Recorder:
    """The documents of all runs of `run_engine`."""
    recorder = Recorder()
    run_engine.subscribe(recorder)
    return recorder


@pytest.fixture
def make_detector(tmp_path: Path) -> Iterator[Callable[..., "SimulatedPerkinElmer"]]:
    from petif_bluesky.sim import SimulatedPerkinElmer

    made: list[SimulatedPerkinElmer] = []

    def make(name: str = "pe", **changes: Any) -> SimulatedPerkinElmer:
        options = {"directory": tmp_path / "raw" / "sample", "shape": SHAPE, "exposure_time": 0.0}
        made.append(SimulatedPerkinElmer(name=name, **{**options, **changes}))
        return made[-1]

    yield make
    for detector in made:
        detector.destroy()


@pytest.fixture
def server() -> "FakeServer":
    from petif_bluesky.testing.fake_server import FakeServer

    return FakeServer()


@pytest.fixture
def device_kind() -> str:
    """The kind of `converter`, "classic" or "async"; tests for both override it."""
    return "classic"


@pytest.fixture
def converter(server: "FakeServer", device_kind: str) -> Any:
    """A `PETifConverter` or a `ConversionDevice`."""
    if device_kind == "async":
        from petif_bluesky.ophyd_async import ConversionDevice as Device
    else:
        from petif_bluesky import PETifConverter as Device

    return Device(server.address, name="converter", poller=server, drain_timeout=20.0)


@pytest.fixture
def callback(converter: "PETifConverter", tmp_path: Path) -> Iterator["ConversionCallback"]:
    from petif_bluesky import ConversionCallback

    callback = ConversionCallback(converter, spool=tmp_path / "spool.sqlite")
    yield callback
    callback.close()


@pytest.fixture
def lab(
    run_engine: "RunEngine",
    recorder: Recorder,
    converter: "PETifConverter",
    server: "FakeServer",
    make_detector: Callable[..., "SimulatedPerkinElmer"],
) -> "Lab":
    from tests.unit.lab import Lab

    return Lab(run_engine, recorder, converter, server, make_detector)
