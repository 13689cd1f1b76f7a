"""Full frames one after the other: the rate of the server beside that of as many processes that only copy."""

import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from benchmarks.server_rig import WORKERS, Rig, flush, image, put, put_sidecar, rig, wait_for

SIZE = 2048
ANCESTOR = 2.9  # frames/s of PETifConverter with three workers
_LOOK = 0.005


@dataclass(frozen=True)
class Round:
    """One conversion and one copy of the same frames, in frames/s."""

    converted: float
    copied: float

    @property
    def ratio(self) -> float:
        """How fast the conversion is by the measure of the copy."""
        return self.converted / self.copied


def throughput(parent: Path, where: str, count: int, rounds: int) -> list[str]:
    """Return how fast full frames are converted and copied on one file system, in alternating rounds."""
    with rig(parent) as server, copiers() as pool:
        pixels = image(SIZE)
        frames = [put(server.raw / f"frame-{number:05d}.tif", pixels) for number in range(count)]
        for frame in frames:
            put_sidecar(frame)
        flush()
        one_round(server, pool, frames)  # warms up
        results = [one_round(server, pool, frames) for _ in range(rounds)]
    rate, copied = median(one.converted for one in results), median(one.copied for one in results)
    ratios = sorted(one.ratio for one in results)
    spread = f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    return [
        f"| {where} | {rate:.1f} | {copied:.1f} | {spread} | {rate / ANCESTOR:.0f} |",
    ]


def heading(count: int, rounds: int) -> list[str]:
    return [
        f"{count} frames of {SIZE} x {SIZE} in one AddFiles, {WORKERS} workers, and the same files copied by {WORKERS}",
        f"processes (`shutil.copyfile`); {rounds} rounds in turn, medians. The time ends when the last output is",
        f"visible. The ancestor did {ANCESTOR} frames/s. The goal is 60 frames/s and a ratio of 0.3 in memory.",
        "",
        "| | converted, frames/s | copied, frames/s | ratio (lowest to highest) | times the ancestor |",
        "|---|---|---|---|---|",
    ]


@contextmanager
def copiers() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        yield pool


def one_round(server: Rig, pool: ProcessPoolExecutor, frames: Sequence[Path]) -> Round:
    return Round(converted=_converted(server, frames), copied=_copied(server, pool, frames))


def _converted(server: Rig, frames: Sequence[Path]) -> float:
    begun = time.perf_counter()
    server.proxy.command_inout("AddFiles", [str(path) for path in frames])
    taken = wait_for(lambda: server.visible("frame") == len(frames), pause=_LOOK) - begun
    server.wait_until_done()
    server.drop_outputs()
    flush()
    return len(frames) / taken


def _copied(server: Rig, pool: ProcessPoolExecutor, frames: Sequence[Path]) -> float:
    folder = server.root / "copies"
    folder.mkdir()
    begun = time.perf_counter()
    shares = [frames[number::WORKERS] for number in range(WORKERS)]
    list(pool.map(copy_all, shares, [folder] * WORKERS))
    taken = time.perf_counter() - begun
    shutil.rmtree(folder)
    flush()
    return len(frames) / taken


def copy_all(frames: Sequence[Path], folder: Path) -> None:
    for path in frames:
        shutil.copyfile(path, folder / path.name)
