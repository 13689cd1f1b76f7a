"""Runs in a real Tiled catalogue: frames as arrays, statistics in the runs' metadata, runs found by recipe."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tango
import tifffile
from bluesky import Msg, RunEngine
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.plans import count

from petif_bluesky import ConversionCallback, ConversionPreprocessor, PETifConverter
from petif_bluesky.server_poller import ServerPoller
from petif_bluesky.sim import SimulatedPerkinElmer
from petif_bluesky.tiled.literal_names import LiteralNames
from petif_bluesky.tiled.statistics import CatalogueStatistics
from tango_server.client.client import Client
from tango_server.client.local_server import LocalServer
from tango_server.messages import RunStatistics
from tango_server.recipe import Recipe
from tests.tiled_server import open_client, open_tiled, tiled_writer

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from tiled.server import SimpleTiledServer

RECIPE = Recipe.preset("xdi", rotation=90, flip="1")
SHAPE = (48, 64)  # turned by 90 degrees it is higher than wide
PATIENCE = 20.0


class Session:
    """A bluesky session with a catalogue."""

    def __init__(self, engine: RunEngine, root: Path, address: str) -> None:
        self.engine = engine
        self.root = root
        (root / "processed").mkdir()
        self.tiled = self.open_catalogue()
        self.client = open_client(self.tiled.uri)
        self.poller = ServerPoller(Client(address))
        self.poller.wait_for_first_poll(10)
        self.converter = PETifConverter(address, name="converter", poller=self.poller, drain_timeout=10)
        self.detector = SimulatedPerkinElmer(name="pe", directory=root / "raw", shape=SHAPE, exposure_time=0.01)
        self.callback = ConversionCallback(self.converter, spool=root / "spool.sqlite")
        self.statistics = CatalogueStatistics(self.client, self.converter)
        self.preprocessor = ConversionPreprocessor(self.converter, recipe=RECIPE)
        self.before: Callable[[str, dict[str, Any]], None] = lambda _name, _document: None
        engine.subscribe(self._interfere)
        for subscriber in (self.callback, self.statistics, LiteralNames(tiled_writer(self.client))):
            engine.subscribe(subscriber)
        engine.preprocessors.append(self.preprocessor)

    def _interfere(self, name: str, document: dict[str, Any]) -> None:
        self.before(name, document)

    def open_catalogue(self, port: int = 0) -> "SimpleTiledServer":
        storage = [self.root / "raw", self.root / "processed"]
        return open_tiled(self.root / "catalogue", api_key="secret", port=port, readable_storage=storage)

    def server_statistics(self, uid: str) -> dict[str, Any]:
        """What the server itself says of a run."""
        answer = RunStatistics.model_validate_json(
            tango.DeviceProxy(self.converter.client.address).GetRunStatistics(uid)
        )
        return answer.model_dump(mode="json", exclude={"run_uid"})

    def raw_files(self, uid: str) -> list[Path]:
        """The files that the detector says it has written for the events of a run."""
        return [Path(name) for name in self.client[uid]["primary"].read()["pe_full_file_name"].values]

    def close(self) -> None:
        self.statistics.close()
        self.callback.close()
        self.poller.close()
        self.client.context.close()
        self.tiled.close()


@pytest.fixture
def session(run_engine: RunEngine, root: Path, server: LocalServer) -> Iterator[Session]:
    session = Session(run_engine, root, server.address)
    yield session
    session.close()


def with_lone_frames(detector: SimulatedPerkinElmer, kept: list[bool]) -> Iterator[Msg]:
    """Take a frame for each of `kept`, without an event where it is False: numbers begin late and have gaps."""

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def inner() -> Iterator[Msg]:
        for keep in kept:
            yield from bps.trigger(detector, wait=True)
            if keep:
                yield from bps.create("primary")
                yield from bps.read(detector)
                yield from bps.save()

    return inner()


def takes_names(session: Session) -> None:
    """Let somebody take the name of every second frame before the detector gets to it."""

    def take(name: str, document: dict[str, Any]) -> None:
        if name == "event" and "pe_full_file_name" in document["data"] and document["seq_num"] % 2:
            stem = Path(document["data"]["pe_full_file_name"]).stem.split("-")[0]
            tifffile.imwrite(session.root / "raw" / f"{stem}-{document['seq_num']:05}.tif", np.zeros(SHAPE, "<f4"))

    session.before = take


@pytest.mark.parametrize("case", ["gaps and numbering from 1", "plain", "names taken"])
def test_raw_frames_of_a_run_are_read_back_as_arrays(session: Session, case: str) -> None:
    match case:
        case "plain":
            plan = count([session.detector], 3)
        case "names taken":
            takes_names(session)
            plan = count([session.detector], 4)
        case _:
            plan = with_lone_frames(session.detector, [False, True, False, False, True, True])
    (uid,) = session.engine(plan)
    assert session.statistics.wait(PATIENCE)
    run = session.client[uid]
    files = session.raw_files(uid)
    names = [path.name for path in files]
    if case == "names taken":
        assert [name.endswith("-00001.tif") for name in names] == [False, True, False, True]
    elif case == "gaps and numbering from 1":
        assert [name[-9:] for name in names] == ["00001.tif", "00004.tif", "00005.tif"]
    raw = np.stack([tifffile.imread(path) for path in files])
    np.testing.assert_array_equal(run["primary"]["pe_image"].read()[:, 0], raw)
    np.testing.assert_array_equal(run["primary"].read()["pe_image"].values[:, 0], raw)
    statistics_agree(session, uid, converted=len(files))


def statistics_agree(session: Session, uid: str, *, converted: int, failed: int = 0) -> None:
    """The event, the run's metadata, the server's own statistics and the files on disk say the same."""
    run = session.client[uid]
    stored = run.metadata["conversion"]
    assert stored == session.server_statistics(uid)
    found = {name: stored[name] for name in ("submitted", "converted", "failed", "skipped", "placeholders", "pending")}
    assert found == {
        "submitted": converted + failed,
        "converted": converted,
        "failed": failed,
        "skipped": 0,
        "placeholders": 0,
        "pending": 0,
    }
    event = run["conversion"].read()
    for name in ("submitted", "converted", "failed", "conversion_time_total", "latency_median", "latency_p95"):
        assert float(event[f"converter_{name}"].values[-1]) == pytest.approx(stored[name])
    outputs = list((session.root / "processed").glob("*.tif"))
    assert len(outputs) == converted
    assert stored["bytes_out"] == sum(path.stat().st_size for path in outputs)


def test_late_frames_are_added_to_the_metadata_of_the_run(session: Session) -> None:
    proxy = tango.DeviceProxy(session.converter.client.address)
    proxy.Pause()
    session.converter.drain_timeout = 0.3
    (uid,) = session.engine(count([session.detector], 3))
    run = session.client[uid]
    assert bool(run["conversion"].read()["converter_drained"].values[-1]) is False
    assert not session.statistics.wait(1.0)
    stored = session.client[uid].metadata["conversion"]
    assert [stored[name] for name in ("submitted", "converted", "pending")] == [3, 0, 3]
    proxy.Resume()
    assert session.statistics.wait(PATIENCE)
    assert session.client[uid].metadata["conversion"] == session.server_statistics(uid)
    assert session.client[uid].metadata["conversion"]["converted"] == 3
    assert session.client[uid].metadata["stop"]["exit_status"] == "success"


def test_catalogue_gets_statistics_after_an_outage(session: Session) -> None:
    proxy = tango.DeviceProxy(session.converter.client.address)
    proxy.Pause()
    session.converter.drain_timeout = 0.3
    (uid,) = session.engine(count([session.detector], 2))
    port = int(session.tiled.uri.split(":")[2].split("/")[0])
    session.tiled.close()
    proxy.Resume()
    assert not session.statistics.wait(2.0)
    session.tiled = session.open_catalogue(port)
    assert session.statistics.wait(2 * PATIENCE)
    assert session.client[uid].metadata["conversion"] == session.server_statistics(uid)
    assert session.client[uid].metadata["conversion"]["converted"] == 2


def test_runs_are_found_by_recipe(session: Session) -> None:
    from tiled.queries import Key

    uids = {}
    for rotation in (0, 90, 180):
        session.preprocessor.recipe = Recipe.preset("xdi", rotation=rotation)
        (uids[rotation],) = session.engine(count([session.detector], 1))
    assert session.statistics.wait(PATIENCE)
    for rotation, uid in uids.items():
        assert list(session.client.search(Key("start.conversion.recipe.rotation") == rotation)) == [uid]
    assert set(session.client.search(Key("conversion.converted") == 1)) == set(uids.values())
    assert list(session.client.search(Key("conversion.failed") > 0)) == []
