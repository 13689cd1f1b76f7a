"""What every measurement of the server needs: folders, frames, a running server, and a look at its memory."""

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import tango

from petif_bluesky.sim.pattern import Pattern
from petif_bluesky.sim.qxrd_file import write_frame
from tango_server.client.local_server import LocalServer
from tango_server.conversion.sidecar import sidecar_path
from tango_server.recipe import Recipe

MEMORY_FOLDER = Path("/dev/shm")
DISK_FOLDER = Path(tempfile.gettempdir())
RECIPE = Recipe.preset("xdi", rotation=90, flip="1")
WORKERS = 2

_PATIENCE = 120.0  # s; nothing here takes nearly as long
_CALL_TIMEOUT = 60_000  # ms; a slow command is to be measured, not to end the measurement
_SPACIOUS = {"free_space_limit": 0, "free_space_warning": 0}  # a memory file system is small
_LINKS = 10_000  # names of one file; file systems have limits
_SIDECAR = "[metadata]\nwidth=64\nheight=64\n[centerfinder]\ncenterX=33.5\ncenterY=27.5\n"


@dataclass(frozen=True)
class Rig:
    """A running server, a client of it, and the folders: `raw` for frames, `processed` for outputs."""

    server: LocalServer
    proxy: tango.DeviceProxy
    root: Path

    @property
    def raw(self) -> Path:
        """Where frames are put."""
        return self.root / "raw"

    @property
    def processed(self) -> Path:
        """Where outputs appear."""
        return self.root / "processed"

    def submit(self, paths: Sequence[Path], **fields: Any) -> list[str]:
        """Submit frames in one call; return the job ids."""
        requests = [{"source": str(path), **fields} for path in paths]
        answer = json.loads(self.proxy.command_inout("Submit", json.dumps({"requests": requests})))
        if answer["refused"]:
            raise RuntimeError(f"refused: {answer['refused'][0]['reason']}")
        return [job["job_id"] for job in answer["jobs"]]

    def queued(self) -> int:
        """Return how many jobs have no report."""
        return int(self.proxy.read_attribute("QueueLength").value)

    def wait_until_done(self) -> None:
        """Wait until every job has its report."""
        wait_for(lambda: self.queued() == 0, pause=0.05)

    def drop_outputs(self) -> None:
        """Remove what was converted so far."""
        shutil.rmtree(self.processed, ignore_errors=True)

    def visible(self, name: str) -> int:
        """Return how many outputs have their final names, of the frames that are called so."""
        return sum(path.name.endswith(".tif") for path in self.processed.glob(f"{name}*"))


def wait_for(condition: Callable[[], bool], pause: float) -> float:
    """Look every `pause` seconds until `condition` holds; return the instant by the performance counter."""
    deadline = time.perf_counter() + _PATIENCE
    while not condition():
        if time.perf_counter() > deadline:
            raise TimeoutError(f"nothing came of it within {_PATIENCE:g} s; look into the server's log")
        time.sleep(pause)
    return time.perf_counter()


@contextmanager
def rig(parent: Path, **settings: object) -> Iterator[Rig]:
    """Start a server for a new folder below `parent`; its ledger is on the disk, as at a beamline."""
    options = [
        word
        for name, value in {"numworkers": WORKERS, **_SPACIOUS, **settings}.items()
        for word in ("--set", f"{name}={value}")
    ]
    with (
        tempfile.TemporaryDirectory(dir=parent, prefix="petif-") as frames,
        tempfile.TemporaryDirectory(dir=DISK_FOLDER, prefix="petif-") as state,
    ):
        root = Path(frames).resolve()
        (root / "raw").mkdir()
        with LocalServer(root, Path(state).resolve(), [*options]) as server:
            proxy = client(server.address)
            proxy.command_inout("SetRecipe", RECIPE.model_dump_json())
            yield Rig(server, proxy, root)


def client(address: str) -> tango.DeviceProxy:
    proxy = tango.DeviceProxy(address)
    proxy.set_timeout_millis(_CALL_TIMEOUT)
    return proxy


def image(size: int) -> Any:
    return Pattern(shape=(size, size), center=(0.54 * size, 0.43 * size), distance=300.0, energy=40e3).frame()


def put(path: Path, pixels: Any) -> Path:
    """Write one frame as QXRD does."""
    write_frame(path, pixels, document_name=path.name, acquired=datetime.now())
    return path


def put_sidecar(frame: Path) -> None:
    """Write the sidecar that belongs to a frame."""
    sidecar_path(frame).write_text(_SIDECAR)


def flush() -> None:
    """Let the disk catch up, so that one measurement does not pay for the one before."""
    if hasattr(os, "sync"):
        os.sync()


def small_frames(folder: Path, name: str, count: int, *, sidecars: bool) -> list[Path]:
    """Return `count` frames of 64 x 64, each a name of its own; many names are links to one file."""
    pixels, paths = image(64), [folder / f"{name}-{number:06d}.tif" for number in range(count)]
    for start in range(0, count, _LINKS):
        first, *others = paths[start : start + _LINKS]
        put(first, pixels)
        if sidecars:
            put_sidecar(first)
        for path in others:
            path.hardlink_to(first)
            if sidecars:
                sidecar_path(path).hardlink_to(sidecar_path(first))
    return paths


@dataclass(frozen=True)
class Memory:
    """Resident memory in MB: of the server's own process now and at its peak, and of its workers together."""

    server: float
    server_peak: float
    workers: float


def memory(server: LocalServer) -> Memory:
    """Return what the processes take; zeros where the system does not tell (`/proc` is Linux's)."""
    now, peak = _resident(server.pid)
    children = [_resident(child.pid)[0] for child in psutil.Process(server.pid).children(recursive=True)]
    return Memory(now, peak, sum(children))


def _resident(pid: int) -> tuple[float, float]:
    """Return what a process takes and what it took at most, itself: the resource module counts its starter in."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0.0, 0.0
    values = dict(re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", status))
    return int(values.get("VmRSS", 0)) / 1e3, int(values.get("VmHWM", 0)) / 1e3


def ordered_at(values: Sequence[float], fraction: float) -> float:
    """Return the value below which `fraction` of the values lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(-int(-fraction * len(ordered) // 1), 1) - 1]
