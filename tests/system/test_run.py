"""A real RunEngine, a real server, a real catalogue: frames of a run come out converted, with statistics in the run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fabio
import numpy as np
import pytest
import tango
import tifffile
from bluesky import RunEngine
from bluesky.plan_stubs import one_shot
from bluesky.plans import count, scan
from ophyd.sim import SynAxis

from petif_bluesky import ConversionCallback, ConversionPreprocessor, PETifConverter
from petif_bluesky.server_poller import ServerPoller
from petif_bluesky.sim import SimulatedPerkinElmer
from petif_bluesky.tiled.patches import with_trailing_slash, write_statistics
from tango_server.client.client import Client
from tango_server.client.local_server import LocalServer
from tango_server.recipe import Recipe
from tests.system.waiting import all_done, until, workers_of
from tests.tiled_server import open_client, open_tiled, tiled_writer

RECIPE = Recipe.preset("xdi", rotation=90, flip="1")


def reference(raw: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.flip(np.rot90(raw), 1).astype(np.int32)


class Session:
    """A bluesky session: RunEngine, converter, callback, preprocessor, detector, and the documents they made."""

    def __init__(self, engine: RunEngine, root: Path, address: str, size: int = 64) -> None:
        self.engine = engine
        self.root = root
        self.poller = ServerPoller(Client(address))
        self.poller.wait_for_first_poll(10)
        self.converter = PETifConverter(address, name="converter", poller=self.poller, drain_timeout=10)
        self.motor = SynAxis(name="motor")
        self.detector = SimulatedPerkinElmer(
            name="pe", directory=root / "raw", shape=(size, size), motor=self.motor, exposure_time=0.01
        )
        self.documents: list[tuple[str, dict[str, Any]]] = []
        self.before_callback: Callable[[str, dict[str, Any]], None] = lambda _name, _document: None
        engine.subscribe(self._interfere)
        self.callback = ConversionCallback(self.converter, spool=root / "spool.sqlite")
        engine.subscribe(self.callback)
        engine.subscribe(lambda name, document: self.documents.append((name, document)))
        engine.preprocessors.append(ConversionPreprocessor(self.converter, recipe=RECIPE))

    def _interfere(self, name: str, document: dict[str, Any]) -> None:
        self.before_callback(name, document)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [document for name, document in self.documents if name == kind]

    def statistics(self) -> dict[str, Any]:
        """The one event of the stream `conversion`, without the prefix of its keys."""
        (descriptor,) = [document for document in self.of("descriptor") if document["name"] == "conversion"]
        (event,) = [document for document in self.of("event") if document["descriptor"] == descriptor["uid"]]
        return {key.removeprefix("converter_"): value for key, value in event["data"].items()}

    def raw_files(self) -> list[Path]:
        return sorted((self.root / "raw").glob("*.tif"))

    def close(self) -> None:
        self.callback.close()
        self.poller.close()


@pytest.fixture
def open_session(run_engine: RunEngine, root: Path) -> Iterator[Callable[..., Session]]:
    opened: list[Session] = []

    def open_(address: str, size: int = 64) -> Session:
        opened.append(Session(run_engine, root, address, size))
        return opened[-1]

    yield open_
    for session in opened:
        session.close()


@pytest.fixture
def session(open_session: Callable[..., Session], server: LocalServer) -> Session:
    return open_session(server.address)


@pytest.fixture
def catalogue(root: Path) -> Iterator[Any]:
    (root / "processed").mkdir()
    with open_tiled(root / "catalogue", readable_storage=[root / "raw", root / "processed"]) as tiled:
        client = open_client(tiled.uri)
        yield client
        client.context.close()


def test_catalogued_run_has_all_results_of_its_conversion(session: Session, catalogue: Any) -> None:
    session.engine.subscribe(tiled_writer(catalogue, patches={"resource": with_trailing_slash}))
    (uid,) = session.engine(scan([session.detector], session.motor, -1, 1, 5))
    write_statistics(catalogue[uid], session.converter.client.run_statistics(uid))
    run = catalogue[uid]
    assert Recipe.model_validate(run.metadata["start"]["conversion"]["recipe"]) == RECIPE
    assert run.metadata["start"]["conversion"]["recipe_source"] == "run"
    stream = run["conversion"].read()
    on_disk = len(list((session.root / "processed").glob("*.tif")))
    assert on_disk == 5
    assert [int(stream[f"converter_{name}"][0]) for name in ("submitted", "converted", "failed")] == [5, 5, 0]
    assert bool(stream["converter_drained"][0])
    conversion = run.metadata["conversion"]
    assert (conversion["submitted"], conversion["converted"], conversion["failed"]) == (5, 5, 0)
    assert conversion["latency_median"] == pytest.approx(float(stream["converter_latency_median"][0]))
    raw = run["primary"]["pe_image"].read()
    for frame, path in zip(raw, session.raw_files(), strict=True):
        output = session.root / "processed" / path.name
        np.testing.assert_array_equal(np.squeeze(frame), tifffile.imread(path))
        with fabio.open(str(output)) as image:
            np.testing.assert_array_equal(image.data, reference(np.squeeze(frame)))
        np.testing.assert_array_equal(tifffile.imread(output), reference(np.squeeze(frame)))


def test_converted_images_are_one_array_in_the_catalogue(session: Session, catalogue: Any) -> None:
    def damage(name: str, document: dict[str, Any]) -> None:
        if name == "resource":  # the name of the fourth frame is taken: the detector finds another one
            names = document["resource_kwargs"]
            (session.root / "raw" / (names["template"] % ("", names["filename"], 3)).lstrip("/")).touch()
        if name == "event" and document["seq_num"] == 2 and "pe_full_file_name" in document["data"]:
            Path(document["data"]["pe_full_file_name"]).write_bytes(b"no TIFF at all")

    session.engine.subscribe(tiled_writer(catalogue, patches={"resource": with_trailing_slash}))
    session.before_callback = damage
    (uid,) = session.engine(scan([session.detector], session.motor, -1, 1, 5))
    run = catalogue[uid]
    raw = [Path(str(path)) for path in np.asarray(run["primary"]["pe_full_file_name"].read())]
    assert raw[3].stem.endswith("-00001")
    frames = run["converted"].read()
    assert [int(number) for number in frames["converter_seq_num"]] == [1, 3, 4, 5]
    assert [str(path) for path in np.asarray(frames["converter_raw"])] == [str(raw[index]) for index in (0, 2, 3, 4)]
    assert set(np.asarray(frames["converter_outcome"]).tolist()) == {"converted"}
    images = run["converted"]["converter_image"].read()
    assert images.dtype == np.dtype("<i4")
    for image, output, index in zip(images, np.asarray(frames["converter_output"]), (0, 2, 3, 4), strict=True):
        np.testing.assert_array_equal(np.squeeze(image), tifffile.imread(str(output)))
        np.testing.assert_array_equal(np.squeeze(image), reference(tifffile.imread(raw[index])))
    lost = run["unconverted"].read()
    assert ([int(number) for number in lost["converter_seq_num"]], len(lost["converter_reason"])) == ([2], 1)


def test_each_point_can_wait_for_its_converted_frame(session: Session) -> None:
    session.engine.preprocessors[:] = [ConversionPreprocessor(session.converter, recipe=RECIPE, wait="point")]
    seen: list[np.ndarray[Any, Any]] = []

    def use_the_frame(readables: Any) -> Any:
        yield from one_shot(readables)
        seen.append(tifffile.imread(session.converter.reports[-1].output))

    session.engine(count([session.detector], 3, per_shot=use_the_frame))
    for image, path in zip(seen, session.raw_files(), strict=True):
        np.testing.assert_array_equal(image, reference(tifffile.imread(path)))


def test_bad_frames_are_counted_and_the_run_continues(session: Session, root: Path) -> None:
    def damage(name: str, document: dict[str, Any]) -> None:
        if name != "event" or "pe_full_file_name" not in document["data"]:
            return
        path = Path(document["data"]["pe_full_file_name"])
        match document["seq_num"]:
            case 2:
                path.write_bytes(b"no TIFF at all")
            case 3:
                path.write_bytes(path.read_bytes()[:-30])
            case 4:
                path.unlink()

    session.before_callback = damage
    (uid,) = session.engine(count([session.detector], 5))
    assert session.of("stop")[0]["exit_status"] == "success"
    statistics = session.statistics()
    assert (statistics["submitted"], statistics["converted"], statistics["failed"]) == (5, 2, 3)
    assert statistics["drained"] is True
    reports = tango.DeviceProxy(session.converter.client.address).GetReports(
        f'{{"run_uid": "{uid}", "outcome": "failed"}}'
    )
    for words in ("no TIFF", "the file ends at", "no such file"):
        assert words in reports or "starts with b'no T'" in reports
    assert len(list((root / "processed").glob("*.tif"))) == 2


def test_frames_outside_of_the_roots_are_counted_as_failed(
    session: Session, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = SimulatedPerkinElmer(
        name="other", directory=tmp_path_factory.mktemp("elsewhere"), shape=(64, 64), exposure_time=0.01
    )
    session.engine(count([session.detector, elsewhere], 3))
    assert session.of("stop")[0]["exit_status"] == "success"
    statistics = session.statistics()
    assert (statistics["submitted"], statistics["converted"], statistics["failed"]) == (6, 3, 3)
    assert statistics["drained"] is True


def test_invalid_recipe_in_metadata_fails_the_plan_before_the_run(session: Session) -> None:
    with pytest.raises(ValueError, match=r"conversion.*recipe\.rotation: input should be 0, 90, 180 or 270, got 45"):
        session.engine(count([session.detector], 2, md={"conversion": {"recipe": {"rotation": 45}}}))
    assert session.documents == []
    assert session.raw_files() == []


@pytest.mark.long
def test_run_succeeds_without_a_server(
    open_session: Callable[..., Session], start_server: Callable[..., LocalServer], root: Path
) -> None:
    server = start_server("--port", "0")
    address = server.address
    session = open_session(address)
    server.stop()
    until(lambda: session.poller.state.down, "the poller has noticed")
    (uid,) = session.engine(count([session.detector], 3))
    assert session.of("stop")[0]["exit_status"] == "success"
    assert (session.statistics()["submitted"], session.statistics()["drained"]) == (3, False)
    assert not (root / "processed").exists()
    port = address.split(":")[2].split("/")[0]
    proxy = tango.DeviceProxy(start_server("--port", port).address)
    until(lambda: proxy.StatisticsTotalFrames == 3, "the frames are converted")
    assert session.converter.client.run_statistics(uid).converted == 3


@pytest.mark.long
def test_killed_worker_loses_no_frame_of_a_run(
    open_session: Callable[..., Session], server: LocalServer, root: Path
) -> None:
    session = open_session(server.address, size=1024)

    def kill(name: str, document: dict[str, Any]) -> None:
        if name == "event" and document["seq_num"] == 4 and "pe_full_file_name" in document["data"]:
            workers_of(server.pid)[0].kill()

    session.before_callback = kill
    session.engine(count([session.detector], 10))
    statistics = session.statistics()
    assert (statistics["submitted"], statistics["converted"], statistics["failed"]) == (10, 10, 0)
    for path in session.raw_files():
        np.testing.assert_array_equal(tifffile.imread(root / "processed" / path.name), reference(tifffile.imread(path)))
    all_done(tango.DeviceProxy(server.address))
