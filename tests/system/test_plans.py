"""Files, folders and catalogued runs converted by plans: a real RunEngine, a real server, a real catalogue."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tango
import tifffile
from bluesky import RunEngine
from bluesky.plans import count

from petif_bluesky import ConversionCallback, ConversionPreprocessor, PETifConverter
from petif_bluesky.plans import FramesNotFoundError, convert_files, convert_folder, reprocess_run
from petif_bluesky.server_poller import ServerPoller
from petif_bluesky.sim import SimulatedPerkinElmer
from petif_bluesky.tiled.literal_names import LiteralNames
from petif_bluesky.tiled.patches import with_trailing_slash
from tango_server.client.client import Client
from tango_server.client.local_server import LocalServer
from tango_server.recipe import Recipe
from tests.system.waiting import until
from tests.tiled_server import open_client, open_tiled, tiled_writer
from tests.unit.documents import Recorder

RECIPE = Recipe.preset("xdi", rotation=90, flip="1")
OTHER = {"preset": "xdi-unsigned", "rotation": 180}
SHAPE = (48, 64)
Image = np.ndarray[Any, Any]


def by_recipe(raw: Image) -> Image:
    return np.flip(np.rot90(raw), 1).astype(np.int32)


def by_other(raw: Image) -> Image:
    return np.rot90(raw, 2).clip(0).astype(np.uint32)


class Session:
    """A bluesky session with a catalogue."""

    def __init__(self, engine: RunEngine, root: Path, address: str) -> None:
        self.engine = engine
        self.root = root
        (root / "processed").mkdir()
        storage = [root / "raw", root / "processed"]
        self.tiled = open_tiled(root / "catalogue", api_key="secret", readable_storage=storage)
        self.client = open_client(self.tiled.uri)
        self.poller = ServerPoller(Client(address))
        self.poller.wait_for_first_poll(10)
        self.converter = PETifConverter(address, name="converter", poller=self.poller, drain_timeout=10)
        self.detector = SimulatedPerkinElmer(name="pe", directory=root / "raw", shape=SHAPE, exposure_time=0.01)
        self.callback = ConversionCallback(self.converter, spool=root / "spool.sqlite")
        self.recorder = Recorder()
        engine.subscribe(self.recorder)
        engine.subscribe(self.callback)
        engine.preprocessors.append(ConversionPreprocessor(self.converter, recipe=RECIPE))
        self.options: dict[str, Any] = {"timeout": 30.0, "spool": str(root / "plans.sqlite")}

    def raw_files(self, uid: str) -> list[Path]:
        return [Path(event["data"]["pe_full_file_name"]) for event in self.recorder.stream("primary", uid)]

    def check(self, uid: str, expected: Callable[[Image], Image], raw: list[Path], outputs: list[Path]) -> None:
        """Compare the converted frames of a run, as the catalogue has them and on disk, with numpy's."""
        frames = self.client[uid]["converted"].read()
        assert [Path(str(path)) for path in np.asarray(frames["converter_raw"])] == raw
        assert [Path(str(path)) for path in np.asarray(frames["converter_output"])] == outputs
        images = self.client[uid]["converted"]["converter_image"].read()
        for image, source, output in zip(images, raw, outputs, strict=True):
            reference = expected(tifffile.imread(source))
            np.testing.assert_array_equal(np.squeeze(image), reference)
            np.testing.assert_array_equal(tifffile.imread(output), reference)
        statistics = self.client[uid]["conversion"].read()
        found = [int(statistics[f"converter_{name}"][0]) for name in ("submitted", "converted", "failed")]
        assert (found, bool(statistics["converter_drained"][0])) == ([len(raw), len(raw), 0], True)

    def close(self) -> None:
        self.callback.close()
        self.poller.close()
        self.client.context.close()
        self.tiled.close()


@pytest.fixture
def session(run_engine: RunEngine, root: Path, server: LocalServer) -> Iterator[Session]:
    session = Session(run_engine, root, server.address)
    yield session
    session.close()


def with_literal_names(session: Session) -> Any:
    return LiteralNames(tiled_writer(session.client))


def with_templates(session: Session) -> Any:
    return tiled_writer(session.client, patches={"resource": with_trailing_slash})


def put(root: Path, data: Path, *names: str) -> list[Path]:
    (root / "raw" / "scan").mkdir()
    return [Path(shutil.copy(data / "qxrd_f32_64.tif", root / "raw" / "scan" / name)) for name in names]


def processed(session: Session, name: str) -> Path:
    return session.root / "processed" / name


@pytest.mark.long
def test_files_by_name_become_a_run_with_the_converted_images(session: Session, data: Path) -> None:
    session.engine.subscribe(with_literal_names(session))
    raw = put(session.root, data, "b.tif", "a.dark.tif", "\u03b2.tif")
    (uid,) = session.engine(convert_files(session.converter, list(map(str, raw)), recipe=OTHER, **session.options))
    session.check(uid, by_other, raw, [processed(session, f"scan/{path.name}") for path in raw])
    start = session.client[uid].metadata["start"]
    assert (start["plan_name"], start["conversion"]["recipe"]["rotation"]) == ("convert_files", 180)


def test_folder_becomes_a_run_with_its_bad_frame(session: Session, data: Path) -> None:
    session.engine.subscribe(with_literal_names(session))
    raw = put(session.root, data, "a.tif", "b.tiff", "bad.tif", "c.dark.tif")
    raw[2].write_bytes(b"no TIFF at all")
    (uid,) = session.engine(convert_folder(session.converter, str(raw[0].parent), recipe=RECIPE, **session.options))
    run = session.client[uid]
    assert [Path(str(path)) for path in np.asarray(run["converted"].read()["converter_raw"])] == raw[:2]
    for path in raw[:2]:
        output = tifffile.imread(processed(session, f"scan/{path.name}"))
        np.testing.assert_array_equal(output, by_recipe(tifffile.imread(path)))
    assert [Path(str(path)) for path in np.asarray(run["unconverted"].read()["converter_raw"])] == raw[2:3]
    assert run.metadata["stop"]["exit_status"] == "success"


def take_names(session: Session) -> None:
    """Let somebody take the name of the second frame of a run."""

    def take(name: str, document: dict[str, Any]) -> None:
        if name == "event" and document["data"].get("pe_full_file_name", "").endswith("-00000.tif"):
            taken = document["data"]["pe_full_file_name"].replace("-00000.tif", "-00001.tif")
            tifffile.imwrite(taken, np.zeros(SHAPE, "<f4"))

    session.engine.subscribe(take)


@pytest.mark.parametrize("writer", [pytest.param(with_literal_names, marks=pytest.mark.long), with_templates])
def test_reprocessing_leaves_the_old_run_unchanged(session: Session, writer: Callable[[Session], Any]) -> None:
    take_names(session)
    session.engine.subscribe(writer(session))
    (old,) = session.engine(count([session.detector], 3, md={"sample_name": "CeO2"}))
    raw = session.raw_files(old)
    assert [path.name[-10:] for path in raw] == ["-00000.tif", "-00001.tif", "-00002.tif"]
    assert raw[1].name.endswith("-00001-00001.tif")
    before = {path: path.read_bytes() for path in raw}
    metadata, first = dict(session.client[old].metadata), [processed(session, path.name) for path in raw]
    (uid,) = session.engine(
        reprocess_run(session.converter, old, recipe=OTHER, catalogue=session.client, **session.options)
    )
    session.check(uid, by_other, raw, [path.with_stem(f"{path.stem}-00001") for path in first])
    session.check(old, by_recipe, raw, first)
    frames = session.client[uid]["converted"].read()
    assert [int(number) for number in frames["converter_seq_num"]] == [1, 2, 3]
    assert set(np.asarray(frames["converter_stream"]).tolist()) == {"primary"}
    assert session.client[uid].metadata["start"]["parent_uid"] == old
    assert {path: path.read_bytes() for path in raw} == before
    assert dict(session.client[old].metadata) == metadata


@pytest.mark.long
def test_reprocessed_run_cannot_be_reprocessed(session: Session) -> None:
    session.engine.subscribe(with_literal_names(session))
    (old,) = session.engine(count([session.detector], 1))
    run = session.client[old]
    (uid,) = session.engine(reprocess_run(session.converter, run, recipe=OTHER, **session.options))
    with pytest.raises(FramesNotFoundError, match=f"run {uid}: no frames"):
        session.engine(reprocess_run(session.converter, session.client[uid], recipe=OTHER, **session.options))
    with pytest.raises(FramesNotFoundError, match="run 0f: not in the catalogue"):
        session.engine(
            reprocess_run(session.converter, "0f", recipe=OTHER, catalogue=session.client, **session.options)
        )


@pytest.mark.long
def test_missing_raw_file_is_reported_before_the_run(session: Session) -> None:
    session.engine.subscribe(with_literal_names(session))
    (old,) = session.engine(count([session.detector], 2))
    gone = session.raw_files(old)[1]
    gone.unlink()
    with pytest.raises(FramesNotFoundError, match=f"run {old}: 1 of 2 frames cannot be found: {gone}: "):
        session.engine(reprocess_run(session.converter, session.client[old], recipe=OTHER, **session.options))
    assert [start["uid"] for start in session.recorder.of("start")] == [old]


def test_server_restart_within_a_run_loses_nothing(
    session: Session, server: LocalServer, start_server: Callable[..., LocalServer], data: Path
) -> None:
    raw = put(session.root, data, *(f"{number}.tif" for number in range(4)))
    tango.DeviceProxy(server.address).Pause()
    port = server.address.split(":")[2].split("/")[0]

    def restart() -> None:
        until(lambda: len(session.recorder.of("start")) == 1, "the run is open")
        server.stop()
        until(lambda: session.poller.state.down, "the poller has noticed")
        tango.DeviceProxy(start_server("--port", port).address).Resume()

    restarting = threading.Thread(target=restart)
    restarting.start()
    (uid,) = session.engine(convert_files(session.converter, list(map(str, raw)), recipe=RECIPE, **session.options))
    restarting.join()
    (event,) = session.recorder.stream("conversion", uid)
    assert (event["data"]["converter_converted"], event["data"]["converter_drained"]) == (4, True)
