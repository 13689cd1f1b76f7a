"""Full frames one after the other: the server beside bare conversions and plain copies of the same files."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from benchmarks.results import Figure, rows
from benchmarks.server_rig import RECIPE, WORKERS, Rig, flush, image, put, put_sidecar, rig, wait_for
from tango_server.conversion.convert import convert_file

SIZE = 2048
ANCESTOR = 2.9  # frames/s of PETifConverter with three workers
_LOOK = 0.02


@dataclass(frozen=True)
class Round:
    """The same frames in three ways, in frames/s: by the server, by `convert_file` alone, by a plain copy."""

    server: float
    bare: float
    copy: float


def throughput(parent: Path, where: str, count: int, rounds: int) -> list[Figure]:
    """Return how fast full frames are converted and copied on one file system, in alternating rounds.

    Each way replaces what it made in the round before, so that all write into memory that was freed just then: fresh
    memory may be ten times slower on a virtual machine. The time ends when the last output is visible. Rates are
    medians, ratios medians of those within a round. The goal in memory is 60 frames/s and 0.3 times the copy.
    """
    with rig(parent) as server, ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        pixels = image(SIZE)
        frames = [put(server.raw / f"frame-{number:05d}.tif", pixels) for number in range(count)]
        for frame in frames:
            put_sidecar(frame)
        _round(server, pool, frames)  # loads what the processes need, and makes what is then replaced
        results = [_round(server, pool, frames) for _ in range(rounds)]
    rates = {
        "server": median(one.server for one in results),
        "convert_file alone": median(one.bare for one in results),
        "copy": median(one.copy for one in results),
    }
    ratios = {
        **_spread("server / copy", [one.server / one.copy for one in results]),
        **_spread("server / convert_file alone", [one.server / one.bare for one in results]),
        "server / PETifConverter": rates["server"] / ANCESTOR,
    }
    return [*rows("full frames", where, "frames/s", rates), *rows("full frames", where, "", ratios)]


def _spread(name: str, ratios: Sequence[float]) -> dict[str, float]:
    return {name: median(ratios), f"{name}, lowest": min(ratios), f"{name}, highest": max(ratios)}


def _round(server: Rig, pool: ProcessPoolExecutor, frames: Sequence[Path]) -> Round:
    return Round(
        _by_server(server, frames),
        _by_processes(pool, convert_all, frames, server.root / "bare"),
        _by_processes(pool, copy_all, frames, server.root / "copies"),
    )


def _by_server(server: Rig, frames: Sequence[Path]) -> float:
    taken = seconds_by_server(server, frames)
    flush()
    return len(frames) / taken


def seconds_by_server(server: Rig, frames: Sequence[Path]) -> float:
    """Return how long (s) a server takes until the last output of these frames is visible."""
    before = _files(server.processed)
    begun = time.perf_counter()
    server.proxy.command_inout("AddFiles", [str(path) for path in frames])
    taken = wait_for(lambda: len(_files(server.processed) - before) == len(frames), pause=_LOOK) - begun
    server.wait_until_done()
    return taken


def _files(folder: Path) -> set[tuple[str, int]]:
    """Return name and inode of the outputs that are visible: one that was replaced is another one."""
    if not folder.exists():
        return set()
    return {(entry.name, entry.inode()) for entry in os.scandir(folder) if entry.name.endswith(".tif")}


def _by_processes(
    pool: ProcessPoolExecutor, work: Callable[[Sequence[Path], Path], None], frames: Sequence[Path], folder: Path
) -> float:
    folder.mkdir(exist_ok=True)
    shares = [frames[number::WORKERS] for number in range(WORKERS)]
    begun = time.perf_counter()
    list(pool.map(work, shares, [folder] * WORKERS))
    taken = time.perf_counter() - begun
    flush()
    return len(frames) / taken


def convert_all(frames: Sequence[Path], folder: Path) -> None:
    for path in frames:
        convert_file(path, RECIPE, output=folder / path.name)


def copy_all(frames: Sequence[Path], folder: Path) -> None:
    for path in frames:
        shutil.copyfile(path, folder / path.name)
