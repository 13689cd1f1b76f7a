"""The callback before a real server that goes, hangs and comes back: runs don't notice, and no frame is lost."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import event_model
import numpy as np
import psutil
import pytest
import tango
import tifffile
from bluesky import RunEngine

from petif_bluesky import ConversionCallback, PETifConverter
from petif_bluesky.delivery import sender
from petif_bluesky.server_poller import ServerPoller
from petif_bluesky.sim import SimulatedPerkinElmer
from petif_bluesky.sim.qxrd_file import write_frame
from tango_server.backoff import Backoff
from tango_server.client.client import Client
from tango_server.client.local_server import LocalServer
from tango_server.recipe import Recipe
from tests.system.waiting import until

RECIPE = Recipe.preset("xdi", rotation=90, flip="1")
START = {"conversion": {"recipe": RECIPE.model_dump(mode="json")}}
TIME_OUT = 3.0
LONGEST_DELAY = 2.5  # far above an event's own time on a busy machine, below a call that is waited for
HANGS_FOR = 7.0  # several time-outs of a call


def port_of(server: LocalServer) -> str:
    return server.address.split(":")[2].split("/")[0]


class Session:
    """A RunEngine with the callback subscribed, and the moments at which events came out."""

    def __init__(self, engine: RunEngine, root: Path, address: str) -> None:
        self.engine = engine
        self.root = root
        self.poller = ServerPoller(Client(address, TIME_OUT))
        self.poller.wait_for_first_poll(10)
        self.converter = PETifConverter(address, name="converter", poller=self.poller)
        self.callback = ConversionCallback(self.converter, spool=root / "spool.sqlite")
        self.moments: list[float] = []
        self.stops: list[dict[str, Any]] = []
        self.at_event: Callable[[int], None] = lambda _number: None
        engine.subscribe(self.callback)
        engine.subscribe(self._note)

    def count(self, frames: int, exposure_time: float = 0.01) -> str:
        detector = SimulatedPerkinElmer(
            name="pe", directory=self.root / "raw", shape=(64, 64), exposure_time=exposure_time
        )
        (uid,) = self.engine(bp.count([detector], num=frames, md=START))
        assert self.stops[-1]["exit_status"] == "success"
        return str(uid)

    @property
    def longest_delay(self) -> float:
        return float(max(np.diff(self.moments)))

    def _note(self, name: str, document: dict[str, Any]) -> None:
        if name == "event":
            self.moments.append(time.monotonic())
            self.at_event(document["seq_num"])
        elif name == "stop":
            self.stops.append(document)

    def close(self) -> None:
        self.callback.close()
        self.poller.close()


@pytest.fixture
def open_session(
    run_engine: RunEngine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Session]]:
    monkeypatch.setattr(sender, "_PAUSES", Backoff(shortest=0.2, longest=0.5))
    opened: list[Session] = []

    def open_(address: str) -> Session:
        opened.append(Session(run_engine, root, address))
        return opened[-1]

    yield open_
    for session in opened:
        session.close()


def all_converted(address: str, root: Path, uid: str, frames: int) -> None:
    """Every frame of a run was converted once, rightly."""
    proxy = tango.DeviceProxy(address)

    def statistics() -> Any:
        try:
            return json.loads(proxy.command_inout("GetRunStatistics", uid))
        except tango.DevFailed:
            return {"converted": 0}

    until(lambda: statistics()["converted"] >= frames, "every frame is converted")
    found = statistics()
    assert (found["submitted"], found["converted"], found["failed"], found["skipped"]) == (frames, frames, 0, 0)
    raw = sorted((root / "raw").glob("*.tif"))
    assert len(raw) == frames == len(list((root / "processed").glob("*.tif")))
    for path in raw:
        expected = np.flip(np.rot90(tifffile.imread(path)), 1).astype(np.int32)
        np.testing.assert_array_equal(tifffile.imread(root / "processed" / path.name), expected)


def kill(server: LocalServer) -> None:
    """End the server's process as the kernel does it when memory is short, and its workers with it."""
    process = psutil.Process(server.pid)
    everybody = [*process.children(recursive=True), process]
    process.kill()
    psutil.wait_procs(everybody, timeout=20)
    server.stop()


def test_run_without_a_server_is_converted_later(
    open_session: Callable[[str], Session], start_server: Callable[..., LocalServer], root: Path
) -> None:
    server = start_server()
    port = port_of(server)
    session = open_session(server.address)
    server.stop()
    uid = session.count(50)
    sys.stdout.write(f"server down: longest delay between events {session.longest_delay:.3f} s\n")
    assert session.longest_delay < LONGEST_DELAY
    assert session.callback.waiting == 50
    all_converted(start_server("--port", port).address, root, uid, 50)


@pytest.mark.long
def test_killed_server_delays_no_event_and_loses_no_frame(
    open_session: Callable[[str], Session], start_server: Callable[..., LocalServer], root: Path
) -> None:
    server = start_server()
    port = port_of(server)
    session = open_session(server.address)
    killer = threading.Thread(target=kill, args=(server,))
    session.at_event = lambda number: killer.start() if number == 20 else None
    uid = session.count(60)
    killer.join()
    sys.stdout.write(f"server killed: longest delay between events {session.longest_delay:.3f} s\n")
    assert session.longest_delay < LONGEST_DELAY
    all_converted(start_server("--port", port).address, root, uid, 60)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGSTOP")
def test_hanging_server_delays_no_event_and_loses_no_frame(
    open_session: Callable[[str], Session], server: LocalServer, root: Path
) -> None:
    session = open_session(server.address)
    pid = server.pid
    wakes = threading.Timer(HANGS_FOR, os.kill, (pid, signal.SIGCONT))

    def hang(number: int) -> None:
        if number == 5:
            os.kill(pid, signal.SIGSTOP)
            wakes.start()

    session.at_event = hang
    began = time.monotonic()
    uid = session.count(30, exposure_time=0.3)
    took = time.monotonic() - began
    sys.stdout.write(
        f"server hung for {HANGS_FOR} s in a run of {took:.1f} s: longest delay {session.longest_delay:.3f} s\n"
    )
    wakes.join()
    assert took > HANGS_FOR
    assert session.longest_delay < LONGEST_DELAY
    all_converted(server.address, root, uid, 30)


def test_killed_session_loses_no_frame(start_server: Callable[..., LocalServer], root: Path) -> None:
    server = start_server()
    port = port_of(server)
    server.stop()
    command = [sys.executable, "-m", "tests.system.session_process", server.address, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        taken = [process.stdout.readline().strip() for _ in range(40)]
        process.kill()
        taken += process.stdout.read().split()
    again = start_server("--port", port)
    poller = ServerPoller(Client(again.address))
    callback = ConversionCallback(
        PETifConverter(again.address, name="converter", poller=poller), spool=root / "spool.sqlite"
    )
    outputs = [root / "processed" / Path(path).name for path in taken]
    until(lambda: all(output.exists() for output in outputs), "every frame is converted")
    until(lambda: callback.waiting == 0, "the spool is empty")
    callback.close()
    poller.close()
    assert len(set(outputs)) >= 40
    for path, output in zip(taken, outputs, strict=True):
        expected = np.flip(np.rot90(tifffile.imread(path)), 1).astype(np.int32)
        np.testing.assert_array_equal(tifffile.imread(output), expected)


@pytest.mark.long
def test_run_of_1000_events_converts_each_frame_once(
    open_session: Callable[[str], Session], server: LocalServer, root: Path
) -> None:
    session = open_session(server.address)
    uid = session.count(1000, exposure_time=0.0)
    assert session.converter.runs.submitted(uid) == 1000
    all_converted(server.address, root, uid, 1000)


@pytest.mark.long
def test_fly_scan_of_500_stream_datums_converts_each_frame_once(
    open_session: Callable[[str], Session], server: LocalServer, root: Path
) -> None:
    session = open_session(server.address)
    pixels = np.arange(64 * 48, dtype=np.float32).reshape(64, 48)
    run = event_model.compose_run(metadata=START)
    session.callback("start", run.start_doc)
    keys = {
        "pe_image": {"source": "pe", "dtype": "array", "shape": [1, 64, 48], "external": "STREAM:", "object_name": "pe"}
    }
    descriptor = run.compose_descriptor(name="fly", data_keys=keys, object_keys={"pe": ["pe_image"]}).descriptor_doc
    session.callback("descriptor", descriptor)
    resource, compose_datum = run.compose_stream_resource(
        mimetype="multipart/related;type=image/tiff",
        uri=f"file://localhost{root}/raw/",
        data_key="pe_image",
        parameters={"chunk_shape": [1, 64, 48], "template": "fly_{:06d}.tif"},
    )
    session.callback("stream_resource", resource)
    for index in range(500):
        write_frame(
            root / "raw" / f"fly_{index:06d}.tif", pixels + index, document_name="fly", acquired=datetime(2026, 1, 1)
        )
        spans = {"indices": {"start": index, "stop": index + 1}, "seq_nums": {"start": index + 1, "stop": index + 2}}
        session.callback("stream_datum", compose_datum(descriptor=descriptor, **spans))
    session.callback("stop", run.compose_stop())
    assert session.converter.runs.submitted(run.start_doc["uid"]) == 500
    all_converted(server.address, root, run.start_doc["uid"], 500)
