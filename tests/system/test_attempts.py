"""Attempts to stop or bloat a server with what is no frame, with names, races, connections and numbers."""

import json
import os
import random
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tango
import tifffile

from tango_server.client.local_server import LocalServer
from tests.hostile import GOOD, SETTINGS, Watched, ask, reports
from tests.system.conftest import settings
from tests.system.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.name == "nt", reason="FIFOs, links and sockets in folders")]


class Target:
    """A server that must go on as if nothing had happened."""

    def __init__(self, server: LocalServer, raw: Path) -> None:
        self.raw, self._watched = raw, Watched(server, raw)
        self.proxy = tango.DeviceProxy(server.address)
        self.proxy.set_timeout_millis(20_000)
        self.place = server.address.split("/")[2].split(":")
        self.convert_good()
        self._before = self._watched.memory()

    def submit(self, *paths: Path, **fields: Any) -> list[str]:
        """Return what became of frames: the outcome, or the reason of a refusal."""
        answer = ask(self.proxy, "Submit", {"requests": [{"source": str(path), **fields} for path in paths]})
        told = [report["outcome"] for report in reports(self.proxy, [job["job_id"] for job in answer["jobs"]])]
        return told + [refused["reason"] for refused in answer["refused"]]

    def convert_good(self) -> None:
        self._watched.convert_good(self.proxy)
        assert self._watched.slowest < 2.0

    def check(self) -> None:
        self.convert_good()
        assert self.proxy.state() != tango.DevState.FAULT, self.proxy.status()
        assert self._watched.memory() - self._before < 50e6


@pytest.fixture
def target(start_server: Callable[..., LocalServer], root: Path) -> Iterator[Target]:
    target = Target(start_server(*settings(*SETTINGS, "time_limit=5")), root / "raw")
    yield target
    target.check()


def test_what_is_no_file_is_no_frame_and_no_sidecar(target: Target) -> None:
    raw = target.raw
    os.mkfifo(raw / "fifo.tif")
    os.mkfifo(raw / "frame.tif.metadata")
    (raw / "folder.tif").mkdir()
    (raw / "frame.tif").write_bytes(GOOD.read_bytes())
    for name, leads_to in (("zero", "/dev/zero"), ("loop", "loop.tif"), ("nowhere", "nothing")):
        (raw / f"{name}.tif").symlink_to(leads_to)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(raw / "socket.tif"))
        names = ("fifo", "folder", "socket", "nowhere", "frame", "zero", "loop")
        *told, zero, loop = target.submit(*(raw / f"{name}.tif" for name in names))
    assert told == ["failed"] * 4 + ["converted"]
    assert "outside the folders" in zero
    assert "cannot be resolved" in loop


@pytest.mark.timeout(300)
def test_sparse_file_of_gigabytes_is_answered(target: Target) -> None:
    path = target.raw / "sparse.tif"
    entries = [(256, 3, 60_000), (257, 3, 60_000), (258, 3, 8), (262, 3, 1), (273, 4, 8), (279, 4, 3_600_000_000)]
    with path.open("wb") as file:
        file.write(b"II*\0" + struct.pack("<I", 2**32 - 200))
        file.truncate(2**32 - 1)
        file.seek(2**32 - 200)
        file.write(directory(entries))
    assert set(target.submit(path)) <= {"failed", "converted"}


def directory(entries: list[tuple[int, int, int]]) -> bytes:
    packed = [struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries]
    return struct.pack("<H", len(packed)) + b"".join(packed) + bytes(4)


def test_a_compressed_frame_of_zeros_is_a_frame(target: Target) -> None:
    pixels = zlib.compress(bytes(2**26), 9)
    start = b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels
    entries = [(256, 4, 8192), (257, 4, 8192), (258, 3, 8), (259, 3, 8), (262, 3, 1), (273, 4, 8), (278, 4, 8192)]
    path = target.raw / "zeros.tif"
    path.write_bytes(start + directory([*entries, (279, 4, len(pixels))]))
    assert target.submit(path) == ["converted"]


@pytest.mark.parametrize("recipe", [{"rotation": 90}, {"rotation": 90, "output": {"mode": "in_place"}}])
def test_files_that_change_while_they_are_read_cost_themselves(target: Target, recipe: dict[str, Any]) -> None:
    paths = [target.raw / f"race-{number}.tif" for number in range(200)]
    whole, draw, ended = GOOD.read_bytes(), random.Random(7), threading.Event()
    for path in paths:
        path.write_bytes(whole)

    def change() -> None:
        while not ended.is_set():
            path = draw.choice(paths)
            with suppress(OSError):
                match draw.randrange(3):
                    case 0:
                        os.truncate(path, draw.randrange(len(whole)))
                    case 1:
                        path.write_bytes(whole)
                    case _:
                        path.unlink()

    changing = threading.Thread(target=change)
    changing.start()
    try:
        assert set(target.submit(*paths, recipe=recipe)) <= {"converted", "failed", "skipped"}
    finally:
        ended.set()
        changing.join()


def test_similar_names_are_distinct_and_long_ones_are_refused(target: Target) -> None:
    for first, second in (("\u00e9.tif", "e\u0301.tif"), ("A.tif", "a.tif")):
        paths = [target.raw / first, target.raw / second]
        for path in paths:
            path.write_bytes(GOOD.read_bytes())
        assert target.submit(*paths) == ["converted"] * 2
    longest = target.raw / ("x" * 251 + ".tif")
    longest.write_bytes(GOOD.read_bytes())
    assert target.submit(longest) == ["converted"]
    (told,) = target.submit(target.raw / ("y" * 300 + ".tif"))
    assert "at most 255" in told


def test_idle_connections_and_garbage_delay_no_client(target: Target) -> None:
    host, port = target.place
    with ExitStack() as stack:
        lines = [stack.enter_context(socket.create_connection((host, int(port)), timeout=5)) for _ in range(800)]
        target.convert_good()
        for number, line in enumerate(lines):
            giant = b"GIOP\x01\x02\x00\x00" + struct.pack("<I", 2**31 - 1) + bytes(100)
            with suppress(OSError):
                line.sendall(random.Random(number).randbytes(2000) if number % 2 else giant)
        target.convert_good()


def test_many_runs_folders_pages_and_subscriptions_do_no_harm(target: Target) -> None:
    for portion in range(10):
        runs = [f"{portion}-{number}" for number in range(10_000)]
        target.proxy.command_inout("Submit", json.dumps({"requests": [], "runs": runs}))
    for number in range(3000):
        (target.raw / "folders" / str(number)).mkdir(parents=True)
    target.proxy.AddFolder(str(target.raw / "folders"))
    for _ in range(300):
        target.proxy.subscribe_event("NumProcessed", tango.EventType.CHANGE_EVENT, lambda _: None)
    path = target.raw / "pages.tif"
    with tifffile.TiffWriter(path) as writer:
        for _ in range(3000):
            writer.write(np.zeros((4, 4), np.uint8), contiguous=False)
    assert target.submit(path) == ["converted"]


def test_a_watched_folder_of_traps_costs_none_of_its_frames(
    start_server: Callable[..., LocalServer], root: Path
) -> None:
    raw, draw = root / "raw", random.Random(16)
    target = Target(start_server(*settings(*SETTINGS, f"watch={raw}", "watch_interval=0.2", "time_limit=5")), raw)
    os.mkfifo(raw / "fifo.tif")
    (raw / "folder.tif").mkdir()
    (raw / "loop").symlink_to(raw, target_is_directory=True)
    (raw / "up.tif").symlink_to("/dev/zero")
    deeper = os.open(raw, os.O_RDONLY)
    for _ in range(60):  # longer than a path may be
        os.mkdir("d" * 100, dir_fd=deeper)
        deeper, upper = os.open("d" * 100, os.O_RDONLY, dir_fd=deeper), deeper
        os.close(upper)
    os.close(os.open("deep.tif", os.O_CREAT | os.O_WRONLY, dir_fd=deeper))
    os.close(deeper)
    for _ in range(450):
        (raw / os.fsdecode(draw.randbytes(12).translate(None, b"\0/") + b".tif")).write_bytes(draw.randbytes(400))
    letters = [letter for letter in map(chr, range(1, 0xD800)) if letter.isprintable() and letter != "/"]
    texts = ["".join(draw.sample(letters, 12)) for _ in range(50)]
    for text in texts:
        (raw / f"good-{text}.tif").write_bytes(GOOD.read_bytes())
    for number in range(40):
        (raw / "moving").mkdir(exist_ok=True)
        (raw / "moving" / f"{number}.tif").write_bytes(GOOD.read_bytes())
        (raw / "moving").rename(raw / f"moved-{number}")
    (raw / "last.tif").write_bytes(GOOD.read_bytes())
    names = ["last", *(f"moved-{number}/{number}" for number in range(40)), *(f"good-{text}" for text in texts)]
    outputs = [root / "processed" / f"{name}.tif" for name in names]
    until(lambda: all(output.exists() for output in outputs), "every frame is converted")
    until(lambda: target.proxy.QueueLength == 0, "nothing waits")
    target.check()
