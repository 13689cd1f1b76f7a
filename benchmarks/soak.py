"""What grows over a long night, measured in some minutes.

    python -m benchmarks.soak [--scale 0.1] [--only points,runs] [--write docs/explanation/performance/soak.csv]

Each part runs in a process of its own, with a real server, a real RunEngine and small frames, and tells memory,
threads, open files and files on disk at an early instant and at the end. `--scale` makes all of it shorter.
"""

# ruff: noqa: SLF001 - the spool is filled as the callback does, without documents

import argparse
import gc
import json
import random
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import psutil
import tango
import tifffile
from bluesky import Msg, RunEngine

from benchmarks.results import Figure, machine, publish
from petif_bluesky import ConversionCallback, PETifConverter, conversion_wrapper
from petif_bluesky.sim import SimulatedPerkinElmer
from petif_bluesky.testing.fake_server import FakeServer
from tango_server.client.local_server import LocalServer

_NOWHERE = "tango://127.0.0.1:9/petif/converter/1#dbase=no"
_QUICK = ["--set", "numworkers=2", "--set", "settle_time=0.1", "--set", "sidecar_timeout=0.2"]
_BATCH = 500
_INSTANTS = ("early", "at the end")


@dataclass(frozen=True)
class Usage:
    """What a process has at an instant: memory and files in MB."""

    memory: float
    threads: int
    descriptors: int
    files: float

    @classmethod
    def at(cls, folder: Path, pid: int | None = None) -> "Usage":
        """Look at a process, with its children if it is another one, and at the files in a folder."""
        gc.collect()
        own = psutil.Process(pid)
        every = [own, *own.children(recursive=True)] if pid else [own]
        return cls(
            sum(each.memory_info().rss for each in every) / 1e6,
            own.num_threads(),
            own.num_fds(),
            sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6,
        )


def _told(before: Usage, after: Usage, **more: Any) -> dict[str, Any]:
    numbers = {name: [round(getattr(look, name), 1) for look in (before, after)] for name in Usage.__annotations__}
    return {**numbers, **more}


def jobs(count: int, folder: Path, seed: int) -> dict[str, Any]:
    """So many jobs through a server, with a history of a fifth of them."""
    draw, raw = random.Random(seed), folder / "data" / "raw"
    raw.mkdir(parents=True)
    names = [str(raw / f"{number:03d}.tif") for number in range(200)]
    for name in names:
        tifffile.imwrite(name, np.asarray([draw.random() for _ in range(256)], np.float32).reshape(16, 16))
    state = folder / "state"
    with LocalServer(raw.parent, state, [*_QUICK, "--set", f"history_limit={count // 5}"]) as server:
        proxy = tango.DeviceProxy(server.address)
        before, begun = Usage.at(state, server.pid), time.monotonic()
        for start in range(0, count, _BATCH):
            requests = [{"source": draw.choice(names)} for _ in range(min(_BATCH, count - start))]
            proxy.command_inout("Submit", json.dumps({"requests": requests}))
            while proxy.QueueLength > 2 * _BATCH:
                time.sleep(0.05)
            if start == 10 * _BATCH:
                before = Usage.at(state, server.pid)
        while proxy.QueueLength:
            time.sleep(0.1)
        took, failed = time.monotonic() - begun, proxy.NumFailed
        time.sleep(70)  # the history is pruned once a minute
        after = Usage.at(state, server.pid)
    return _told(before, after, seconds=round(took, 1), per_second=round(count / took), failed=failed)


@contextmanager
def _session(folder: Path, *, with_conversion: bool) -> Iterator[tuple[RunEngine, Any, Any]]:
    """A RunEngine with a simulated detector and, if asked for, a server and all that a session has for it."""
    raw = folder / "data" / "raw"
    raw.mkdir(parents=True)
    engine = RunEngine({}, context_managers=[])
    detector = SimulatedPerkinElmer(name="pe", directory=raw / "s", shape=(16, 16), exposure_time=0.0)
    with ExitStack() as stack:
        stack.callback(detector.destroy)
        converter = None
        if with_conversion:
            server = stack.enter_context(LocalServer(raw.parent, folder / "state", _QUICK))
            converter = PETifConverter(server.address, name="converter")
            stack.callback(converter.destroy)
            callback = ConversionCallback(converter, spool=folder / "spool" / "spool.sqlite")
            stack.callback(callback.close)
            engine.subscribe(callback)
        yield engine, detector, converter


def points(count: int, folder: Path, _seed: int, *, with_conversion: bool = True) -> dict[str, Any]:
    """So many points of one run, each waited for."""
    early = count // 5
    usages: dict[int, Usage] = {}
    instants = array("d")  # 8 bytes a point: what this program keeps must not count
    with _session(folder, with_conversion=with_conversion) as (engine, detector, converter):

        def shot(detectors: Any) -> Iterator[Msg]:
            yield from bps.one_shot(detectors)
            instants.append(time.monotonic())
            if len(instants) in {early, count}:
                usages[len(instants)] = Usage.at(folder / "spool")

        plan = bp.count([detector], num=count, per_shot=shot)
        engine(conversion_wrapper(plan, converter, wait="point") if converter else plan)
    times, tenth = np.diff(instants), max(1, count // 10)
    return _told(
        usages[early], usages[count],
        kb_per_frame=round((usages[count].memory - usages[early].memory) * 1e3 / (count - early), 2),
        ms_per_point=[round(float(np.median(part)) * 1e3, 1) for part in (times[:tenth], times[-tenth:])],
    )  # fmt: skip


def runs(count: int, folder: Path, _seed: int, *, with_conversion: bool = True) -> dict[str, Any]:
    """So many runs of ten frames in one call of the RunEngine."""
    looks: list[Usage] = []
    with _session(folder, with_conversion=with_conversion) as (engine, detector, converter):

        def plan() -> Any:
            for number in range(1, count + 1):
                yield from bp.count([detector], num=10)
                if number in {count // 5, count}:
                    looks.append(Usage.at(folder / "spool"))

        engine(conversion_wrapper(plan(), converter) if converter else plan())
    growth = (looks[1].memory - looks[0].memory) * 1e3 / (10 * (count - count // 5))
    return _told(*looks, kb_per_frame=round(growth, 2))


def outage(count: int, folder: Path, _seed: int) -> dict[str, Any]:
    """So many frames of one run while the server is down."""
    converter = PETifConverter(_NOWHERE, name="converter")
    callback = ConversionCallback(converter, spool=folder / "spool.sqlite")
    request = {"recipe": {"rotation": 90}, "run_uid": "run", "metadata": {"energy": 37_000.0}}
    took: list[float] = []
    before = Usage.at(folder)
    for number in range(count):
        name = f"/data/raw/sample/scan-{number:06d}.tif"
        begun = time.perf_counter()
        callback._spool.put({**request, "source": name, "key": f"run/{name}"})
        callback._sender.wake()
        took.append(time.perf_counter() - begun)
        time.sleep(0.0005)
        if number == count // 5:
            before = Usage.at(folder)
    after = Usage.at(folder)
    callback.close()
    converter.destroy()
    median, slow = (round(float(value) * 1e3, 2) for value in np.percentile(took, [50, 99.9]))
    return _told(before, after, put_ms_median=median, put_ms_999_of_1000=slow)


def startups(count: int, folder: Path, _seed: int) -> dict[str, Any]:
    """So many devices and callbacks in one session, each ended before the next."""
    before = Usage.at(folder)
    for number in range(count):
        converter = PETifConverter(_NOWHERE, name="converter")
        callback = ConversionCallback(converter, spool=folder / "spool.sqlite")
        converter.poller.wait_for_first_poll(10)
        callback.close()
        converter.destroy()
        if number == 0:
            before = Usage.at(folder)
    time.sleep(2)
    return _told(before, Usage.at(folder))


def close_run(count: int, folder: Path, _seed: int) -> dict[str, Any]:
    """The end of a run of so many converted frames, beside a bare RunEngine that writes as many events."""
    server = FakeServer()
    converter = PETifConverter(server.address, name="converter", poller=server)
    engine, took = RunEngine({}, context_managers=[]), [0.0, 0.0]

    def converted() -> Any:
        uid = yield Msg("open_run")
        for start in range(0, count, 1000):
            names = range(start, min(start + 1000, count))
            asked = {"run_uid": uid, "stream": "primary", "recipe": None}
            server.submit([{**asked, "source": f"/raw/{n}.tif", "key": f"{uid}/{n}", "seq_num": n + 1} for n in names])
        took[0] = time.monotonic()
        yield Msg("close_run")
        took[0] = time.monotonic() - took[0]

    def bare() -> Iterator[Msg]:
        yield Msg("open_run")
        took[1] = time.monotonic()
        for _ in range(count):
            yield Msg("create", name="converted")
            yield Msg("read", converter)
            yield Msg("save")
            yield Msg("checkpoint")
        took[1] = time.monotonic() - took[1]
        yield Msg("close_run")

    before = Usage.at(folder)
    engine(conversion_wrapper(converted(), converter))
    after = Usage.at(folder)
    engine(bare())
    return _told(before, after, seconds=round(took[0], 1), seconds_bare=round(took[1], 1))


PARTS: dict[str, tuple[Callable[..., dict[str, Any]], int, dict[str, Any]]] = {
    "jobs": (jobs, 100_000, {}),
    "points": (points, 1000, {}),
    "bare points": (points, 1000, {"with_conversion": False}),
    "runs": (runs, 300, {}),
    "bare runs": (runs, 300, {"with_conversion": False}),
    "outage": (outage, 20_000, {}),
    "startups": (startups, 30, {}),
    "close_run": (close_run, 20_000, {}),
}


def main() -> None:
    """Run the parts, each in a process of its own, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=16)
    parser.add_argument("--write", type=Path, help="write the figures to this CSV file")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        part, count, more = PARTS[options.part]
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            told = part(max(10, int(count * options.scale)), Path(folder).resolve(), options.seed, **more)
        sys.stdout.write(json.dumps(told) + "\n")
        return
    wanted = options.only.split(",") if options.only else list(PARTS)
    figures = machine(f"python -m benchmarks.soak --scale {options.scale:g}")
    for name in wanted:
        command = [sys.executable, "-m", "benchmarks.soak", "--part", name, "--scale", str(options.scale)]
        ended = subprocess.run([*command, "--seed", str(options.seed)], stdout=subprocess.PIPE, text=True, check=True)
        figures += _figures(name, json.loads(ended.stdout.splitlines()[-1]))
    publish(figures, options.write)


def _figures(part: str, measured: dict[str, Any]) -> list[Figure]:
    units = {"memory": "MB", "files": "MB"}
    found = []
    for quantity, value in measured.items():
        both = isinstance(value, list) and len(value) == len(_INSTANTS)
        for case, one in zip(_INSTANTS, value, strict=True) if both else [("", value)]:
            found.append(Figure(part, case, quantity, str(one), units.get(quantity, "")))
    return found


if __name__ == "__main__":
    main()
