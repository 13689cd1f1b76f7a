"""`petif subscribe`: runs of one process are converted by the callback in another, over bluesky's 0MQ proxy."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from threading import Timer
from typing import TYPE_CHECKING, Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import psutil
import pytest
import tango
import tifffile
from bluesky import RunEngine
from bluesky.callbacks.zmq import Publisher
from click.testing import CliRunner
from ophyd.sim import SynAxis

from petif_bluesky import ConversionPreprocessor, PETifConverter
from petif_bluesky.commands.subscribe import subscribe
from petif_bluesky.sim import SimulatedPerkinElmer
from petif_bluesky.tiled.literal_names import LiteralNames
from tango_server.client.local_server import LocalServer
from tango_server.recipe import Recipe
from tests.system.waiting import until
from tests.tiled_server import open_client, open_tiled, tiled_writer
from tests.unit.documents import Recorder

if TYPE_CHECKING:
    from tiled.server import SimpleTiledServer

START = {"conversion": {"recipe": Recipe.preset("xdi", rotation=90, flip="1").model_dump(mode="json")}}
PROXY = """
from bluesky.callbacks.zmq import Proxy
proxy = Proxy("tcp://127.0.0.1", "tcp://127.0.0.1")
print(proxy.in_port, proxy.out_port, flush=True)
proxy.start()
"""


@pytest.fixture
def ports() -> Iterator[tuple[str, str]]:
    """Where a 0MQ proxy takes documents, and where it hands them out."""
    with subprocess.Popen([sys.executable, "-c", PROXY], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        into, out = (address.removeprefix("tcp://") for address in process.stdout.readline().split())
        yield into, out
        process.kill()


class Host:
    """`petif subscribe` in a process of its own, and what it wrote."""

    def __init__(self, address: str, device: str, root: Path, more: tuple[str, ...]) -> None:
        main = "from petif_bluesky.commands.subscribe import subscribe; subscribe()"
        options = ["--zmq", address, "--device", device, "--spool", str(root / "spool.sqlite"), *more]
        self.process = subprocess.Popen(
            [sys.executable, "-c", main, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self.process.stdout is not None
        assert "Listening" in self.process.stdout.readline()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(iter(self.process.stderr.readline, ""))

    def stop(self) -> str:
        """End it as Ctrl-C does; return what it said then."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.send_signal(signal.SIGINT)
        with self.process.stdout, self.process.stderr:
            said = self.process.stdout.read()
            self.process.wait(20)
            self._reader.join()
        return said


@pytest.fixture
def start_host(ports: tuple[str, str], root: Path) -> Iterator[Callable[..., Host]]:
    started: list[Host] = []

    def start(device: str, *more: str) -> Host:
        started.append(Host(ports[1], device, root, more))
        return started[-1]

    yield start
    for host in started:
        if host.process.poll() is None:
            host.stop()


@pytest.fixture
def publish(run_engine: RunEngine, ports: tuple[str, str]) -> Iterator[Publisher]:
    publisher = Publisher(ports[0])
    run_engine.subscribe(publisher)
    yield publisher
    publisher.close()


def connect(run_engine: RunEngine, host: Host) -> None:
    """Run until a whole run has arrived: 0MQ does not say when it is connected."""

    def arrived() -> bool:
        run_engine(bpp.run_wrapper(bps.null()))
        return any("all its documents were received" in line for line in host.lines)

    until(arrived, "runs come over 0MQ")


def take(run_engine: RunEngine, root: Path, frames: int) -> str:
    detector = SimulatedPerkinElmer(name="pe", directory=root / "raw", shape=(64, 64), exposure_time=0.01)
    (uid,) = run_engine(bp.count([detector], num=frames, md=START))
    return str(uid)


def statistics(address: str, uid: str) -> dict[str, Any]:
    """Return the numbers of a run, none while it is unknown."""
    try:
        found: dict[str, Any] = json.loads(tango.DeviceProxy(address).command_inout("GetRunStatistics", uid))
    except tango.DevFailed:
        return {}
    return found


def converted(address: str, uid: str) -> int:
    return int(statistics(address, uid).get("converted", 0))


@pytest.mark.parametrize("address", ["localhost", ":5578", "localhost:", "localhost:port", "localhost:99999"])
def test_invalid_address_is_refused_at_once(address: str) -> None:
    refused = CliRunner().invoke(subscribe, ["--zmq", address])
    assert refused.exit_code == 2
    assert "HOST:PORT" in refused.stderr


def test_run_is_converted_by_a_host_in_another_process(
    run_engine: RunEngine, publish: Publisher, server: LocalServer, start_host: Callable[..., Host], root: Path
) -> None:
    host = start_host(server.address)
    connect(run_engine, host)
    before = len(host.lines)
    uid = take(run_engine, root, 20)
    until(lambda: converted(server.address, uid) == 20, "every frame is converted")
    for path in (root / "raw").glob("*.tif"):
        expected = np.flip(np.rot90(tifffile.imread(path)), 1).astype(np.int32)
        np.testing.assert_array_equal(tifffile.imread(root / "processed" / path.name), expected)
    assert host.stop() == "Stopped.\n"
    assert host.process.returncode == 130
    assert [line for line in host.lines[before:] if "ERROR" in line or "Traceback" in line] == []


def test_recipe_of_a_preprocessor_reaches_the_host(
    run_engine: RunEngine, publish: Publisher, server: LocalServer, start_host: Callable[..., Host], root: Path
) -> None:
    host = start_host(server.address)
    connect(run_engine, host)
    before = len(host.lines)
    converter = PETifConverter(server.address, name="converter")
    run_engine.preprocessors.append(ConversionPreprocessor(converter, recipe=Recipe.preset("xdi", rotation=180)))
    detector = SimulatedPerkinElmer(name="pe", directory=root / "raw", shape=(64, 64), exposure_time=0.01)
    (uid,) = run_engine(bp.count([detector], num=3))
    until(lambda: converted(server.address, uid) == 3, "every frame is converted")
    converter.destroy()
    for path in (root / "raw").glob("*.tif"):
        expected = np.rot90(tifffile.imread(path), 2).astype(np.int32)
        np.testing.assert_array_equal(tifffile.imread(root / "processed" / path.name), expected)
    assert [line for line in host.lines[before:] if "ERROR" in line or "WARNING" in line] == []


def test_lost_documents_are_logged_at_the_end_of_the_run(
    run_engine: RunEngine, publish: Publisher, server: LocalServer, start_host: Callable[..., Host], root: Path
) -> None:
    host = start_host(server.address)
    connect(run_engine, host)
    run_engine.unsubscribe(0)
    run_engine.subscribe(lambda name, document: document.get("seq_num") in {2, 3} or publish(name, document))
    uid = take(run_engine, root, 5)
    until(lambda: any("not received" in line and uid in line for line in host.lines), "the loss is told")
    (line,) = [line for line in host.lines if "not received" in line and uid in line]
    assert "2 of 5 events of stream 'primary'" in line
    assert "seq_num 2, 3." in line
    until(lambda: converted(server.address, uid) == 3, "what came is converted")


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for another process")
def test_spooled_frames_are_sent_at_the_next_start(
    run_engine: RunEngine,
    publish: Publisher,
    start_server: Callable[..., LocalServer],
    start_host: Callable[..., Host],
    root: Path,
) -> None:
    server = start_server()
    port = server.address.split(":")[2].split("/")[0]
    server.stop()
    host = start_host(server.address)
    connect(run_engine, host)
    uid = take(run_engine, root, 5)
    until(
        lambda: any(uid in line and "all its documents were received" in line for line in host.lines),
        "the run has come",
    )
    assert "5 frames are waiting" in host.stop()
    assert not psutil.pid_exists(host.process.pid)
    again = start_server("--port", port)
    start_host(again.address)
    until(lambda: converted(again.address, uid) == 5, "every frame is converted")


@pytest.mark.long
def test_a_host_combines_the_frames_of_a_run(
    run_engine: RunEngine, publish: Publisher, server: LocalServer, start_host: Callable[..., Host], root: Path
) -> None:
    """It closes the last groups at the stop document; the run itself does not wait."""
    host = start_host(server.address)
    connect(run_engine, host)
    motor = SynAxis(name="x")
    used = Recipe.preset("xdi", combine={"of": {"by": {"x": 0.1}}, "method": "sum"})
    detector = SimulatedPerkinElmer(name="pe", directory=root / "raw", shape=(64, 64), exposure_time=0.01)
    plan = bp.list_scan([detector], motor, [0, 0, 1, 1, 0, 2], md={"conversion": {"recipe": used.model_dump()}})
    (uid,) = run_engine(plan)
    until(lambda: statistics(server.address, uid).get("groups") == 3, "all groups are written")
    until(lambda: statistics(server.address, uid)["pending"] == 0, "none is made anew")
    found = statistics(server.address, uid)
    assert [found[name] for name in ("submitted", "grouped", "groups", "converted")] == [6, 6, 3, 0]
    raw = [tifffile.imread(path).astype(np.float64) for path in sorted((root / "raw").glob("*.tif"))]
    sums = [raw[0] + raw[1] + raw[4], raw[2] + raw[3], raw[5]]
    outputs = sorted((root / "processed").glob("*.tif"))
    for path, expected in zip(outputs, sums, strict=True):
        np.testing.assert_array_equal(tifffile.imread(path), np.trunc(expected).astype(np.int32))


@pytest.mark.long
@pytest.mark.parametrize("late", [False, True], ids=["up", "down at the start"])
def test_final_statistics_are_written_to_a_catalogue(
    run_engine: RunEngine,
    publish: Publisher,
    server: LocalServer,
    start_host: Callable[..., Host],
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    late: bool,
) -> None:
    monkeypatch.setenv("TILED_API_KEY", "secret")

    def open_catalogue(port: int = 0) -> "SimpleTiledServer":
        return open_tiled(root / "catalogue", api_key="secret", port=port, readable_storage=[root])

    def start(uri: str) -> Host:
        host = start_host(server.address, "--tiled", uri)
        connect(run_engine, host)
        return host

    port = 0
    if late:
        with open_catalogue() as tiled:
            port = tiled.port
            uri = tiled.uri
        host = start(uri)
        until(lambda: any("Retrying" in line for line in host.lines), "the catalogue is missed")
    with open_catalogue(port) as tiled:
        if not late:
            host = start(tiled.uri)
        client = open_client(tiled.uri)
        run_engine.subscribe(LiteralNames(tiled_writer(client)))
        uid = take(run_engine, root, 4)
        until(lambda: "conversion" in client[uid].metadata, "the statistics are in the catalogue")
        until(lambda: client[uid].metadata["conversion"]["pending"] == 0, "they are final")
        numbers = client[uid].metadata["conversion"]
        assert host.stop().startswith("Stopped")
        client.context.close()
    assert (numbers["submitted"], numbers["converted"], numbers["failed"]) == (4, 4, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGSTOP")
@pytest.mark.parametrize("runs", [8, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_no_run_is_drained_early_when_the_host_is_slow_or_stalled(
    run_engine: RunEngine,
    recorder: Recorder,
    publish: Publisher,
    server: LocalServer,
    start_host: Callable[..., Host],
    root: Path,
    runs: int,
) -> None:
    random = Random(20)
    detector = SimulatedPerkinElmer(name="pe", directory=root / "raw", shape=(16, 16), exposure_time=0.0)
    converter = PETifConverter(server.address, name="converter", drain_timeout=0.7)
    taken: dict[str, int] = {}

    def plan(frames: int) -> Any:
        for _ in range(frames):
            yield from bps.sleep(random.choice([0.0, 0.0, 0.01, 0.1]))
            yield from bps.trigger_and_read([detector])

    with ExitStack() as stack:
        stack.callback(converter.destroy)
        client, options = None, ()
        if runs > 20:
            tiled = stack.enter_context(open_tiled(root / "catalogue", readable_storage=[root]))
            client, options = open_client(tiled.uri), ("--tiled", tiled.uri)
            stack.callback(client.context.close)
            run_engine.subscribe(LiteralNames(tiled_writer(client)))  # takes most of the time of a run
        host = start_host(server.address, *options)
        connect(run_engine, host)
        run_engine.preprocessors.append(ConversionPreprocessor(converter, recipe="xdi"))
        for _ in range(runs):
            if random.random() < 0.2:
                host.process.send_signal(signal.SIGSTOP)
                Timer(random.uniform(0.1, 1.2), host.process.send_signal, [signal.SIGCONT]).start()
            frames = random.randint(1, 5)
            (uid,) = run_engine(bpp.stage_wrapper(bpp.run_wrapper(plan(frames)), [detector]))
            taken[uid] = frames
        in_runs = {uid: recorder.stream("conversion", uid)[-1]["data"] for uid in taken}
        drained = {uid: numbers for uid, numbers in in_runs.items() if numbers["converter_drained"]}
        assert [uid for uid, numbers in drained.items() if numbers["converter_converted"] != taken[uid]] == []
        assert len(drained) > runs // 2

        def wrong() -> list[str]:
            if client is None:
                return [uid for uid in taken if converted(server.address, uid) != taken[uid]]
            found = {uid: client[uid].metadata.get("conversion", {}).get("converted") for uid in taken}
            return [uid for uid in taken if found[uid] != taken[uid]]

        until(lambda: wrong() == [], "the numbers are right for every run in the end")


@pytest.mark.long
def test_two_hosts_serve_two_converters(
    run_engine: RunEngine,
    recorder: Recorder,
    publish: Publisher,
    server: LocalServer,
    start_host: Callable[..., Host],
    root: Path,
) -> None:
    hosts = [
        start_host(server.address),
        start_host(server.address, "--converter", "second", "--spool", str(root / "s")),
    ]
    for host in hosts:
        connect(run_engine, host)
    recipes = {"first": Recipe.preset("xdi"), "second": Recipe.preset("xdi", rotation=90, output={"folder": str(root)})}
    for name, recipe in recipes.items():
        converter = PETifConverter(server.address, name=name)
        run_engine.preprocessors.append(ConversionPreprocessor(converter, recipe=recipe))
    detector = SimulatedPerkinElmer(name="pe", directory=root / "raw", shape=(64, 64), exposure_time=0.0)
    (uid,) = run_engine(bp.count([detector], num=3))
    for stream, name in (("conversion", "first"), ("conversion_second", "second")):
        (event,) = recorder.stream(stream, uid)
        assert (event["data"][f"{name}_converted"], event["data"][f"{name}_drained"]) == (3, True), stream
    for path in (root / "raw").glob("*.tif"):
        raw = tifffile.imread(path).astype(np.int32)
        np.testing.assert_array_equal(tifffile.imread(root / "processed" / path.name), raw)
        np.testing.assert_array_equal(tifffile.imread(root / path.name), np.rot90(raw))
    for preprocessor in run_engine.preprocessors:
        preprocessor.converter.destroy()
