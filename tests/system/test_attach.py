"""A session in one line: a real server, RunEngine and catalogue."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import fabio
import numpy as np
import pytest
import tango
import tifffile
from bluesky import RunEngine
from ophyd.sim import SynAxis

from petif_bluesky import PETifConverter, Recipe, attach
from petif_bluesky.sim import SimulatedPerkinElmer
from petif_bluesky.testing.fake_server import FakeServer
from petif_bluesky.tiled.literal_names import LiteralNames
from tango_server.client.local_server import LocalServer
from tests.system.conftest import FAST, settings
from tests.system.waiting import until
from tests.tiled_server import open_client, tiled_writer
from tests.unit.documents import Recorder

TURNED = Recipe.preset("xdi", rotation=90, flip="1")


pytestmark = pytest.mark.usefixtures("own_state")


@pytest.fixture
def detector(root: Path) -> SimulatedPerkinElmer:
    return SimulatedPerkinElmer(name="pe", directory=root / "raw", shape=(48, 64), exposure_time=0.0)


def raw(root: Path) -> list[Path]:
    return sorted((root / "raw").glob("*.tif"))


def expected(root: Path) -> list[Any]:
    return [np.flip(np.rot90(tifffile.imread(path)), 1).astype(np.int32) for path in raw(root)]


@pytest.mark.long
def test_one_line_gives_frames_statistics_and_recipe_in_the_catalogue(
    run_engine: RunEngine, server: LocalServer, tiled: Any, client: Any, root: Path, detector: SimulatedPerkinElmer
) -> None:
    with attach(run_engine, server.address, recipe=TURNED, tiled=tiled.uri) as attached:
        (uid,) = run_engine(bp.count([detector], num=3))
        assert attached.wait(30.0)
    run = client[uid]
    taken = [tifffile.imread(path) for path in raw(root)]
    np.testing.assert_array_equal(run["primary"]["pe_image"].read()[:, 0], taken)
    np.testing.assert_array_equal(run["converted"]["converter_image"].read()[:, 0], expected(root))
    assert Recipe.parse(run.metadata["start"]["conversion"]["recipe"]) == TURNED
    numbers = run.metadata["conversion"]
    assert (numbers["submitted"], numbers["converted"], numbers["pending"]) == (3, 3, 0)
    assert list(run["conversion"].read()["converter_drained"].values) == [True]


@pytest.mark.long
def test_writer_of_the_session_is_used(
    run_engine: RunEngine, server: LocalServer, client: Any, detector: SimulatedPerkinElmer
) -> None:
    run_engine.subscribe(LiteralNames(tiled_writer(client)))
    with attach(run_engine, server.address, recipe="xdi", tiled=client) as attached:
        (uid,) = run_engine(bp.count([detector]))
        assert attached.wait(30.0)
    assert client[uid]["primary"].read()["pe_full_file_name"].shape == (1,), "it is written once"
    assert client[uid].metadata["conversion"]["converted"] == 1


def test_catalogue_that_is_away_costs_no_run(
    run_engine: RunEngine, server: LocalServer, tiled: Any, root: Path, detector: SimulatedPerkinElmer
) -> None:
    away = open_client(tiled.uri)
    with attach(run_engine, server.address, recipe="xdi", tiled=away) as attached:
        away.context.close()
        (uid,) = run_engine(bp.count([detector]))
        assert not attached.wait(0.5)
        assert attached.converter.client.run_statistics(uid).converted == 1
    (kept,) = (root / "home").rglob("*.jsonl")
    assert uid in kept.read_text()


@pytest.fixture(params=["one server", pytest.param("two servers", marks=pytest.mark.long)])
def addresses(request: pytest.FixtureRequest, server: LocalServer, root: Path) -> Iterator[tuple[str, str]]:
    with ExitStack() as stack:
        other = server
        if request.param == "two servers":
            other = stack.enter_context(LocalServer(root, root / "other state", settings(*FAST)))
        yield server.address, other.address


def test_two_converters_write_both_outputs(
    run_engine: RunEngine,
    addresses: tuple[str, str],
    client: Any,
    root: Path,
) -> None:
    esperanto = Recipe.preset("esperanto", esperanto={"omega": {"center": "omega", "width": 0.5}})
    omega, recorder = SynAxis(name="omega"), Recorder()
    detector = SimulatedPerkinElmer(name="pe", directory=root / "raw", shape=(256, 256), exposure_time=0.1)
    run_engine.subscribe(recorder)
    first, second = PETifConverter(addresses[0], name="tiff"), PETifConverter(addresses[1], name="esperanto")
    with (
        attach(run_engine, first, recipe=TURNED, tiled=client) as one,
        attach(run_engine, second, recipe=esperanto, tiled=client) as other,
    ):
        (uid,) = run_engine(bp.scan([detector], omega, -1, 1, 3))
        assert one.wait(30.0)
        assert other.wait(30.0)
    recorder.check()
    run = client[uid]
    outputs = list(run["converted_esperanto"].read()["esperanto_output"].values)
    for path, turned, output in zip(raw(root), expected(root), outputs, strict=True):
        np.testing.assert_array_equal(tifffile.imread(root / "processed" / path.name), turned)
        rotated = np.rot90(tifffile.imread(path), 2).astype(np.int32)
        np.testing.assert_array_equal(fabio.open(output).data, rotated)
    for stream, name in (("conversion", "tiff"), ("conversion_esperanto", "esperanto")):
        row = run[stream].read()
        assert (row[f"{name}_converted"].values[0], row[f"{name}_drained"].values[0]) == (3, True)
        assert run.metadata[stream]["converted"] == 3
    np.testing.assert_array_equal(run["converted"]["tiff_image"].read()[:, 0], expected(root))
    assert recorder.of("stop")[0]["num_events"]["converted_esperanto"] == 3
    first.destroy()
    second.destroy()


@pytest.mark.long
def test_retried_failures_are_followed_in_the_catalogue(
    run_engine: RunEngine,
    start_server: Callable[..., LocalServer],
    client: Any,
    root: Path,
    detector: SimulatedPerkinElmer,
) -> None:
    server = start_server()
    (root / "processed").mkdir()
    blocker = root / "processed" / "sample.tif"
    with attach(run_engine, server.address, recipe="xdi", tiled=client) as attached:
        recipe = {"preset": "xdi", "output": {"template": "sample", "on_existing": "refuse"}}
        blocker.write_bytes(b"in the way")
        (uid,) = run_engine(bp.count([detector], md={"conversion": recipe}))
        assert attached.wait(30.0)
        assert client[uid].metadata["conversion"]["failed"] == 1
    with attach(run_engine, server.address, recipe="xdi", tiled=client) as later:
        blocker.unlink()
        until(lambda: later._catalogue._position != "now", "the reports are followed")
        tango.DeviceProxy(server.address).RetryFailed()
        until(lambda: client[uid].metadata["conversion"]["converted"] == 1, "the retried frame is in the catalogue")
        assert client[uid].metadata["conversion"]["failed"] == 0


@pytest.mark.long
def test_second_attachment_keeps_the_writer_of_the_first(
    run_engine: RunEngine, server: LocalServer, client: Any, detector: SimulatedPerkinElmer
) -> None:
    moved = Recipe.preset("xdi", output={"template": "{stem}-second"})
    second = PETifConverter(server.address, name="second")
    with attach(run_engine, server.address, recipe="xdi", tiled=client) as one:
        other = attach(run_engine, second, recipe=moved, tiled=client)
        one.close()
    with other:
        (uid,) = run_engine(bp.count([detector]))
        assert other.wait(30.0)
    assert client[uid].metadata["conversion"]["converted"] == 1
    second.destroy()


def test_catalogue_that_cannot_be_reached_is_named(
    run_engine: RunEngine, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiled.client.utils.TILED_RETRY_ATTEMPTS", 1)
    with pytest.raises(ConnectionError, match=r"http://127.0.0.1:9: cannot reach the catalogue.*Start Tiled"):
        attach(run_engine, server.address, tiled="http://127.0.0.1:9")
    assert run_engine.preprocessors == []


@pytest.mark.long
def test_dark_run_is_looked_up_in_the_catalogue(
    run_engine: RunEngine, client: Any, root: Path, detector: SimulatedPerkinElmer
) -> None:
    run_engine.subscribe(LiteralNames(tiled_writer(client)))
    (dark,) = run_engine(bp.count([detector], num=2, md={"dark_frame": True}))
    server = FakeServer()
    converter = PETifConverter(server.address, name="converter", poller=server)
    recipe = {"preset": "xdi", "corrections": {"dark": "run"}}
    with attach(run_engine, converter, recipe=recipe, tiled=client) as attached:
        (uid,) = run_engine(bp.count([detector], num=2, md={"sc_dk_field_uid": dark}))
        assert attached.converter.reading.drained
    darks, lights = raw(root)[:2], raw(root)[2:]
    requests = [request for request in server.requests.values() if request.run_uid == uid]
    assert [request.source for request in requests] == list(map(str, lights))
    for request in requests:
        assert request.recipe is not None
        assert request.recipe.corrections is not None
        assert request.recipe.corrections.dark == tuple(map(str, darks))
        assert request.metadata["recipe.dark"]["run_uid"] == dark
