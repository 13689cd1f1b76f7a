"""What do corrections cost? Beside the plain conversion of the same frame, in one run.

    python -m benchmarks.corrections [--rounds 31] [--write docs/explanation/performance/corrections.csv]

In a memory file system, 2048 x 2048, on one core; each round runs all ways one after the other, and every output
replaces the one of the round before. Then a server with two workers converts the same frames plain and corrected, in
alternating rounds; last the peak memory of one process. The goals are 1.25 times the plain conversion, 0.85 of the
server's plain rate, and a memory of the plain conversion, the masters and one block.
"""

import argparse
import subprocess
import sys
import tempfile
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.conversion import one_core
from benchmarks.results import Figure, machine, publish, rows
from benchmarks.server_rig import Rig, flush, rig
from benchmarks.server_throughput import seconds_by_server
from benchmarks.timing import seconds
from petif_bluesky.sim.qxrd_file import write_frame
from petif_bluesky.sim.qxrd_sidecar import Sidecar, write_sidecar
from tango_server.conversion.convert import convert_file
from tango_server.recipe import NewFile, Recipe

SIZE = 2048
GOAL, SERVER_GOAL = 1.25, 0.85
"""Of the plain conversion's time; of the plain rate of a server."""
_KINDS = {"float32": 1, "uint16": 1, "uint32": 10}  # of frames of QXRD, with their number of summed exposures


def masters(folder: Path) -> dict[str, str]:
    """Write a dark, a flat and a mask of one pixel in a hundred; return their paths."""
    random = np.random.default_rng(1)
    made = {
        "dark": (random.random((SIZE, SIZE)) * 100 + 300).astype(np.float32),
        "flat": random.uniform(0.8, 1.2, (SIZE, SIZE)).astype(np.float32),
        "mask": (random.random((SIZE, SIZE)) < 0.01).astype(np.uint8),
    }
    for kind, image in made.items():
        np.save(folder / f"{kind}.npy", image)
    return {kind: str(folder / f"{kind}.npy") for kind in made}


def frame(path: Path, kind: str) -> Path:
    """Write a frame of QXRD with its sidecar."""
    image = (np.random.default_rng(2).random((SIZE, SIZE)) * 5000 + 500).astype(kind)
    now = datetime.now().astimezone()
    write_frame(path, image, document_name=path.name, acquired=now)
    about: dict[str, Any] = {"exposure_time": 1.0, "acquired": now, "center": (1000, 1000), "distance": 300.0}
    write_sidecar(path, Sidecar(shape=image.shape, pixel_type=kind, energy=4e4, summed_exposures=_KINDS[kind], **about))
    return path


def recipes(folder: Path) -> dict[str, Recipe]:
    paths = masters(folder)
    wanted: dict[str, dict[str, Any] | None] = {
        "plain": None,
        "dark": {"dark": paths["dark"], "force": True},  # QXRD's floats have their dark subtracted
        "mask": {"mask": paths["mask"]},
        "dark, flat and mask": {**paths, "force": True},
        "dark, flat, mask and saturation": {**paths, "force": True, "saturation": 60_000},
    }
    output = NewFile(folder=str(folder / "out"))
    return {name: Recipe.preset("xdi", output=output, corrections=given) for name, given in wanted.items()}


def conversions(folder: Path, rounds: int) -> list[Figure]:
    """Return the medians of all ways, and those of their ratios to the plain conversion within a round."""
    figures: list[Figure] = []
    for kind in _KINDS:
        source, ways = frame(folder / f"{kind}.tif", kind), recipes(folder)
        times: dict[str, list[float]] = {name: [] for name in ways}
        with one_core():
            for name, recipe in ways.items():
                for number in range(rounds + 1):  # masters are kept for the latest recipes only: one way at a time
                    plain, corrected = (
                        seconds(partial(convert_file, source, each)) for each in (ways["plain"], recipe)
                    )
                    if number:
                        times[name].append(corrected / plain if name != "plain" else corrected)
        case = f"{kind}, {SIZE} x {SIZE}"
        figures.append(Figure("corrected conversion", case, "plain", 1e3 * median(times.pop("plain")), "ms"))
        ratios = {f"{name} / plain": median(each) for name, each in times.items()}
        figures += rows("corrected conversion", case, "", ratios)
    return figures


def served(parent: Path, kind: str, count: int, rounds: int) -> list[Figure]:
    """Return the rate of a server with corrections, in parts of its plain rate within a round."""
    with rig(parent) as server:
        frames = [frame(server.raw / f"frame-{number:05d}.tif", kind) for number in range(count)]
        paths = masters(server.raw)
        ways = {"plain": Recipe.preset("xdi"), "corrected": Recipe.preset("xdi", corrections={**paths, "force": True})}
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, recipe in ways.items():
                rate = _rate(server, recipe, frames)
                if number:
                    rates[name].append(rate)
    ratio = median(one / plain for one, plain in zip(rates["corrected"], rates["plain"], strict=True))
    case = f"2 workers, {kind}"
    plain = Figure("corrected frames of a server", case, "plain", median(rates["plain"]), "frames/s")
    return [plain, Figure("corrected frames of a server", case, "corrected / plain", ratio)]


def _rate(server: Rig, recipe: Recipe, frames: list[Path]) -> float:
    server.proxy.command_inout("SetRecipe", recipe.model_dump_json())
    taken = seconds_by_server(server, frames)
    flush()
    return len(frames) / taken


MEMORY = """
import re, sys
from pathlib import Path
from tango_server.conversion.convert import convert_file
from tango_server.recipe import Recipe
source, *recipes = sys.argv[1:]
def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
for recipe in recipes:
    for _ in range(3):
        convert_file(source, Recipe.model_validate_json(recipe))
    print(peak())
"""


def memory(folder: Path) -> list[Figure]:
    """Return the peak memory that corrections add to a process, in sizes of a float32 frame."""
    source, ways = frame(folder / "memory.tif", "uint16"), recipes(folder)
    texts = [ways[name].model_dump_json() for name in ("plain", "dark, flat and mask")]
    finished = subprocess.run(
        [sys.executable, "-c", MEMORY, str(source), *texts], capture_output=True, text=True, check=True
    )
    plain, corrected = map(int, finished.stdout.split())
    return [Figure("memory", "dark, flat and mask", "more than plain", (corrected - plain) / (4 * SIZE**2), "frames")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--write", type=Path, help="write the figures to this CSV file")
    arguments = parser.parse_args()
    figures = machine("python -m benchmarks.corrections")
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="petif-") as name:
        figures += conversions(Path(name), arguments.rounds)
        figures += memory(Path(name))
    for kind in ("float32", "uint32"):
        figures += served(Path("/dev/shm"), kind, 60, 5)
    publish(figures, arguments.write)


if __name__ == "__main__":
    main()
